// Which model versions are in memory.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "core/base/clock.h"
#include "core/base/step_executor.h"
#include "core/flow/velocity_model.h"
#include "core/nets/decoder.h"
#include "server/device/device_backend.h"
#include "server/device/devices.h"
#include "server/engine/cost_model.h"
#include "server/engine/thread_pool.h"
#include "server/engine/velocity_runner.h"
#include "server/metrics/metrics.h"
#include "server/store/model_store.h"

namespace boss::server {

// The life of one version in memory.
//
//   UNLOADED  --load-->      LOADING
//   LOADING   --loaded-->    READY
//   LOADING   --failed-->    FAILED      (the error is kept)
//   FAILED    --load-->      LOADING     (tries again)
//   FAILED    --unload-->    UNLOADED
//   READY     --unload-->    UNLOADING   (nobody new gets it)
//   UNLOADING --released-->  UNLOADED    (the last user has let it go)
enum class ModelState { kUnloaded, kLoading, kReady, kUnloading, kFailed };
enum class ModelEvent { kLoad, kLoaded, kFailed, kUnload, kReleased };

// The state after `event`; nullopt where it changes nothing.
std::optional<ModelState> NextModelState(ModelState state, ModelEvent event);
// "UNLOADED", ...
std::string_view ModelStateName(ModelState state);

// A version in memory. Immutable and shared by everyone who samples from it.
struct LoadedModel {
  VersionKey key;
  Manifest manifest;
  std::shared_ptr<const VelocityModel> network;  // on the registry's device
  std::shared_ptr<const VelocityRunner> runner;  // of it: how batches are evaluated
  std::shared_ptr<const Decoder> decoder;        // of its samples, on the same device; null: they are what they are
  std::shared_ptr<const LoadedModel> base;       // of an adapter: whose weights its network shares; null for all others
  int64_t memory_bytes = 0;                      // of its tensors, without the base's
  VersionUse use;                                // so that it is not deleted while it is in memory
  // What its batches cost, learned for as long as it is loaded: the engine's, under its lock.
  const std::shared_ptr<CostModel> cost = std::make_shared<CostModel>();
};

// What the network's description says, without its weights.
struct ModelShape {
  int64_t parameter_count = 0;  // 0 for a TorchScript module that has not been loaded
  std::vector<int64_t> sample_shape;
  int64_t num_classes = 0;
  std::vector<ConditioningSpec> conditioning;
  std::vector<int64_t> decoded_shape;  // empty without a decoder
  bool trainable = true;
};

struct ModelStatus {
  VersionKey key;
  ModelState state = ModelState::kUnloaded;
  absl::Status error;  // with kFailed
  int64_t memory_bytes = 0;
};

struct ModelRegistryOptions {
  at::Device device = at::kCPU;
  int64_t memory_budget = 0;  // bytes of the weights of all versions in memory; 0: no limit
  Precision precision = Precision::kFloat32;
  int64_t max_batch = 64;  // rows of the batches that sampling makes
  std::shared_ptr<const DeviceBackend> backend = std::make_shared<CpuBackend>();  // of `device`
  // Runs what loading does on the device, as VelocityRunner::WarmUp asks for; null: the loading thread does. Outlives
  // the registry.
  StepExecutor* executor = nullptr;
  // Builds the network of a version that is no adapter, on the CPU. Empty: ModelStore::LoadVersionModel.
  std::function<absl::StatusOr<std::unique_ptr<VelocityModel>>(const VersionKey&)> load_network;
  ModelMetrics metrics;
  std::shared_ptr<const Clock> clock = std::make_shared<RealClock>();  // for metrics
};

// Loads published versions onto one device, each once, on a thread of its own, and evaluates each before anybody gets
// it. A version that cannot be loaded (DATA_LOSS, RESOURCE_EXHAUSTED) fails whoever asked for it and nobody else.
// A version that is being loaded or in memory is in use (ModelStore::Use) as "loaded". Thread-safe.
//
// Memory: with a budget, versions that nobody uses are unloaded, the least recently used first, until a new one fits;
// if it does not fit then, it is RESOURCE_EXHAUSTED. While it is being loaded it is not counted yet.
//
// Adapters: all adapters of a base share its network's weights (VelocityModel::ShareWeights). The base is loaded with
// the first of them, as if somebody had asked for it, and each adapter is one of its users: its memory is counted once,
// and stays as long as any adapter is in memory, also when the base is unloaded or deleted. A base that only idle
// adapters use is idle, too, and is evicted after them.
class ModelRegistry {
 public:
  using Callback = std::function<void(absl::StatusOr<std::shared_ptr<const LoadedModel>>)>;

  // `store` must outlive the registry.
  ModelRegistry(const ModelStore& store, ModelRegistryOptions options = {});
  // Fails the loads that have not begun with UNAVAILABLE and waits for the one that has.
  ~ModelRegistry();
  ModelRegistry(const ModelRegistry&) = delete;
  ModelRegistry& operator=(const ModelRegistry&) = delete;

  // Gives `done` the version, loading it first if need be. `done` runs once: here if the version is READY, otherwise on
  // the loading thread; it must not block. Errors are those of ModelStore::LoadVersionModel and of moving it to the
  // device, for an adapter also those of its base; UNAVAILABLE while the version is UNLOADING.
  void Acquire(const VersionKey& key, Callback done);

  // Lets go of the version; those who use it keep it until they are done. Unloading what is not loaded changes nothing.
  // \error UNAVAILABLE while it is LOADING.
  absl::Status Unload(const VersionKey& key);

  ModelStatus Status(const VersionKey& key) const;
  // Of all versions that are not UNLOADED, without their errors.
  std::vector<ModelStatus> Statuses() const;
  // Of READY versions.
  int64_t NumReady() const;
  // Of READY and UNLOADING versions.
  int64_t MemoryBytes() const;

  // Builds the network once a version, with random weights, if the version has not been loaded yet. Blocks. \error as
  // CreateModel.
  absl::StatusOr<ModelShape> Shape(const VersionKey& key);

  at::Device device() const { return options_.device; }

 private:
  struct Entry {
    ModelState state = ModelState::kUnloaded;
    absl::Status error;
    int64_t memory_bytes = 0;
    std::shared_ptr<const LoadedModel> model;   // with kReady
    std::weak_ptr<const LoadedModel> resident;  // with kReady and kUnloading
    std::vector<Callback> waiting;              // with kLoading
    int64_t last_use = 0;                       // by State::uses
  };
  // Outlives the registry where users of its models do: they report their release here.
  struct State {
    mutable absl::Mutex mutex;
    std::map<VersionKey, Entry> entries ABSL_GUARDED_BY(mutex);
    std::map<VersionKey, ModelShape> shapes ABSL_GUARDED_BY(mutex);
    int64_t uses ABSL_GUARDED_BY(mutex) = 0;
  };

  struct Loaded {
    absl::StatusOr<std::shared_ptr<const LoadedModel>> model;
    std::vector<Callback> waiting;  // for it
  };

  // These run on the loading thread.
  void Load(const VersionKey& key);
  // Loads the version, whose entry is LOADING and gets what comes of it.
  Loaded LoadNow(const VersionKey& key);
  absl::StatusOr<std::unique_ptr<LoadedModel>> LoadFromStore(const VersionKey& key);
  // Where an adapter's weights are, loaded if need be.
  absl::StatusOr<std::shared_ptr<const LoadedModel>> AcquireBase(const VersionKey& key);
  // Fills in network and base, on the device.
  absl::Status LoadNetwork(LoadedModel& model, StepExecutor& executor);
  absl::Status LoadAdapterNetwork(LoadedModel& model, StepExecutor& executor);
  // Of a version that has one.
  absl::Status LoadDecoder(LoadedModel& model, StepExecutor& executor) const;
  // The one place where a loaded network gets the device, the layout and the precision that it is served with. In a
  // unit of the executor.
  void PlaceOnDevice(VelocityModel& network) const;

  // Notes that the version is being used. A base is used after its adapter, so that it is evicted after it.
  void Touch(Entry& entry) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(state_->mutex);
  // Unloads versions that nobody uses until `bytes` more fit into the budget; they go to `evicted`, to die when the
  // mutex is free. \error RESOURCE_EXHAUSTED if they do not fit all the same; then nothing was unloaded.
  absl::Status MakeRoom(int64_t bytes, std::vector<std::shared_ptr<const LoadedModel>>& evicted) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(state_->mutex);
  // Applies `event` where it changes something. \return whether it did.
  static bool Apply(Entry& entry, ModelEvent event);

  const ModelStore& store_;
  const ModelRegistryOptions options_;
  const std::shared_ptr<State> state_ = std::make_shared<State>();
  ThreadPool loader_{1};
};

}  // namespace boss::server
