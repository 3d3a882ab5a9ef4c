#include "server/engine/device_pool.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/error_details.h"

namespace boss::server {
namespace {

bool IsThere(ModelState state) { return state == ModelState::kReady || state == ModelState::kLoading; }

// Which device's state tells what becomes of a request.
int Rank(ModelState state) {
  switch (state) {
    case ModelState::kReady:
      return 4;
    case ModelState::kLoading:
      return 3;
    case ModelState::kUnloading:
      return 2;
    case ModelState::kFailed:
      return 1;
    case ModelState::kUnloaded:
      return 0;
  }
  return 0;
}

}  // namespace

DevicePool::DevicePool(const ModelStore& store, std::vector<PoolDevice> devices)
    : store_(store), devices_(std::move(devices)) {}

PoolDevice& DevicePool::Choose(const std::optional<VersionKey>& key) {
  PoolDevice* best = nullptr;
  int64_t least = 0;
  for (PoolDevice& device : devices_) {
    int64_t load = device.engine->queued_samples();
    if (key && !IsThere(device.registry->Status(*key).state)) load += device.engine->options().max_batch;
    if (best != nullptr && load >= least) continue;
    best = &device;
    least = load;
  }
  return *best;
}

absl::StatusOr<std::shared_ptr<SampleHandle>> DevicePool::Submit(SampleRequest request,
                                                                 std::shared_ptr<SampleSink> sink) {
  std::optional<VersionKey> key;
  if (devices_.size() > 1) {
    // What is wrong with the reference, the engine tells.
    if (const absl::StatusOr<VersionKey> found = store_.Resolve(request.model); found.ok()) key = *found;
  }
  return Choose(key).engine->Submit(std::move(request), std::move(sink));
}

void DevicePool::StopAccepting() {
  for (PoolDevice& device : devices_) device.engine->StopAccepting();
}

void DevicePool::CancelAll(const absl::Status& reason) {
  for (PoolDevice& device : devices_) device.engine->CancelAll(reason);
}

absl::Status DevicePool::Acquire(const VersionKey& key, const std::string& device, ModelRegistry::Callback done) {
  if (device.empty()) {
    Choose(key).registry->Acquire(key, std::move(done));
    return absl::OkStatus();
  }
  std::vector<std::string> names;
  for (PoolDevice& candidate : devices_) {
    if (candidate.name() == device) {
      candidate.registry->Acquire(key, std::move(done));
      return absl::OkStatus();
    }
    names.push_back(candidate.name());
  }
  return FieldError("device", absl::StrCat("must be ", absl::StrJoin(names, " or "), ", got ", device));
}

absl::Status DevicePool::Unload(const VersionKey& key) {
  absl::Status status;
  for (PoolDevice& device : devices_) status.Update(device.registry->Unload(key));
  return status;
}

ModelStatus DevicePool::Status(const VersionKey& key) const {
  ModelStatus all = {.key = key};
  for (const PoolDevice& device : devices_) {
    const ModelStatus status = device.registry->Status(key);
    all.memory_bytes += status.memory_bytes;
    if (Rank(status.state) <= Rank(all.state)) continue;
    all.state = status.state;
    all.error = status.error;
  }
  return all;
}

absl::StatusOr<ModelShape> DevicePool::Shape(const VersionKey& key) { return devices_.front().registry->Shape(key); }

}  // namespace boss::server
