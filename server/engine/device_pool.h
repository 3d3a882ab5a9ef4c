// The devices of a server as one: who computes which request, and what is loaded where.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/device/device_worker.h"
#include "server/engine/model_registry.h"
#include "server/engine/sampler_engine.h"
#include "server/store/model_store.h"

namespace boss::server {

// Destroyed in the opposite order: each uses those before it.
struct PoolDevice {
  std::unique_ptr<DeviceWorker> worker;
  std::unique_ptr<ModelRegistry> registry;
  std::unique_ptr<SamplerEngine> engine;

  std::string name() const { return worker->device().str(); }  // "cpu", "cuda:0"
};

// A request goes to the device with the fewest samples queued. One where the version is not in memory counts as having
// another full batch queued: so a version is loaded on a further device once those that have it are busy, and idle
// devices do not take turns to load it.
//
// Jobs run on the last device, which among equals is the last to get requests.
//
// Thread-safe.
class DevicePool {
 public:
  // `devices` is not empty. `store` outlives the pool.
  DevicePool(const ModelStore& store, std::vector<PoolDevice> devices);
  DevicePool(const DevicePool&) = delete;
  DevicePool& operator=(const DevicePool&) = delete;

  const std::vector<PoolDevice>& devices() const { return devices_; }
  DeviceWorker& job_worker() { return *devices_.back().worker; }
  // Of every engine.
  const SamplerEngineOptions& engine_options() const { return devices_.front().engine->options(); }

  // As of SamplerEngine.
  absl::StatusOr<std::shared_ptr<SampleHandle>> Submit(SampleRequest request, std::shared_ptr<SampleSink> sink);
  void StopAccepting();
  void CancelAll(const absl::Status& reason);

  // As of ModelRegistry, on the device called `device`, or, if that is empty, on the one that a request for the version
  // would go to. \error INVALID_ARGUMENT with the field "device" if there is no such one; then `done` hears nothing.
  absl::Status Acquire(const VersionKey& key, const std::string& device, ModelRegistry::Callback done);
  // On every device. \error UNAVAILABLE if one of them is LOADING it; the others have let it go.
  absl::Status Unload(const VersionKey& key);
  // READY if it is READY anywhere, and so on for LOADING, UNLOADING and FAILED; the memory of all devices.
  ModelStatus Status(const VersionKey& key) const;
  absl::StatusOr<ModelShape> Shape(const VersionKey& key);

 private:
  PoolDevice& Choose(const std::optional<VersionKey>& key);

  const ModelStore& store_;
  std::vector<PoolDevice> devices_;
};

}  // namespace boss::server
