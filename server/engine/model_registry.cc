#include "server/engine/model_registry.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/error_details.h"
#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"
#include "core/finetune/lora.h"
#include "core/nets/architecture.h"
#include "core/nets/decoder.h"
#include "core/nets/factory.h"
#include "core/nets/torch_script_model.h"

namespace boss::server {
namespace {

ModelShape ShapeOf(const VelocityModel& network) {
  return {.parameter_count = ParameterCount(network),
          .sample_shape = network.SampleShape(),
          .num_classes = network.NumClasses(),
          .conditioning = network.ConditioningSpecs(),
          .trainable = !network.Parameters().empty()};
}

// What the description says, without running any code.
absl::StatusOr<ModelShape> DescribedShape(const std::string& architecture_json) {
  if (!IsTorchScript(architecture_json)) {
    BOSS_ASSIGN_OR_RETURN(const std::unique_ptr<VelocityModel> network,
                          CreateModel(architecture_json, /*seed=*/std::nullopt));
    return ShapeOf(*network);
  }
  BOSS_ASSIGN_OR_RETURN(const TorchScriptShape shape, DescribeTorchScript(architecture_json));
  return ModelShape{.sample_shape = shape.sample_shape,
                    .num_classes = shape.num_classes,
                    .conditioning = shape.conditioning,
                    .trainable = shape.trainable};
}

std::string DecoderDigest(const LoadedModel& model) {
  const auto digest = model.manifest.sha256.find(kDecoderFile);
  return digest == model.manifest.sha256.end() ? "" : digest->second;
}

}  // namespace

std::optional<ModelState> NextModelState(ModelState state, ModelEvent event) {
  using enum ModelState;
  switch (event) {
    case ModelEvent::kLoad:
      if (state == kUnloaded || state == kFailed) return kLoading;
      break;
    case ModelEvent::kLoaded:
      if (state == kLoading) return kReady;
      break;
    case ModelEvent::kFailed:
      if (state == kLoading) return kFailed;
      break;
    case ModelEvent::kUnload:
      if (state == kReady) return kUnloading;
      if (state == kFailed) return kUnloaded;
      break;
    case ModelEvent::kReleased:
      if (state == kUnloading) return kUnloaded;
      break;
  }
  return std::nullopt;
}

std::string_view ModelStateName(ModelState state) {
  switch (state) {
    case ModelState::kUnloaded:
      return "UNLOADED";
    case ModelState::kLoading:
      return "LOADING";
    case ModelState::kReady:
      return "READY";
    case ModelState::kUnloading:
      return "UNLOADING";
    case ModelState::kFailed:
      return "FAILED";
  }
  return "";
}

ModelRegistry::ModelRegistry(const ModelStore& store, ModelRegistryOptions options)
    : store_(store), options_(std::move(options)) {}

ModelRegistry::~ModelRegistry() {
  std::vector<Callback> waiting;
  {
    absl::MutexLock lock(&state_->mutex);
    for (auto& [key, entry] : state_->entries) {
      for (Callback& done : entry.waiting) waiting.push_back(std::move(done));
      entry.waiting.clear();
    }
  }
  for (const Callback& done : waiting) done(absl::UnavailableError("the server is shutting down"));
  loader_.Shutdown();
  // Models die after this only where somebody still uses them. They must not die under the mutex, which their release
  // takes.
  std::vector<std::shared_ptr<const LoadedModel>> models;
  absl::MutexLock lock(&state_->mutex);
  for (auto& [key, entry] : state_->entries) models.push_back(std::move(entry.model));
  state_->entries.clear();
}

void ModelRegistry::Touch(Entry& entry) const {
  entry.last_use = ++state_->uses;
  if (entry.model && entry.model->base) state_->entries[entry.model->base->key].last_use = ++state_->uses;
}

bool ModelRegistry::Apply(Entry& entry, ModelEvent event) {
  const std::optional<ModelState> next = NextModelState(entry.state, event);
  if (next) entry.state = *next;
  return next.has_value();
}

void ModelRegistry::Acquire(const VersionKey& key, Callback done) {
  std::shared_ptr<const LoadedModel> ready;
  {
    absl::MutexLock lock(&state_->mutex);
    Entry& entry = state_->entries[key];
    Touch(entry);
    if (entry.state == ModelState::kReady) {
      ready = entry.model;
    } else if (entry.state != ModelState::kUnloading) {
      entry.waiting.push_back(std::move(done));
      if (Apply(entry, ModelEvent::kLoad)) loader_.Post([this, key] { Load(key); });
      return;
    }
  }
  if (ready) {
    done(std::move(ready));
  } else {
    done(WithRetryDelay(absl::UnavailableError(absl::StrCat(key.ToString(), " is being unloaded")), absl::Seconds(1)));
  }
}

absl::StatusOr<std::shared_ptr<const LoadedModel>> ModelRegistry::AcquireBase(const VersionKey& key) {
  {
    absl::MutexLock lock(&state_->mutex);
    Entry& entry = state_->entries[key];
    // Also of one that is UNLOADING: while it is there, a second copy would be a waste.
    if (std::shared_ptr<const LoadedModel> resident = entry.resident.lock()) return resident;
    if (entry.state == ModelState::kUnloading) {
      return WithRetryDelay(absl::UnavailableError(absl::StrCat(key.ToString(), " is being unloaded")),
                            absl::Seconds(1));
    }
    Apply(entry, ModelEvent::kLoad);
  }
  const Loaded loaded = LoadNow(key);
  for (const Callback& done : loaded.waiting) done(loaded.model);
  return loaded.model;
}

absl::Status ModelRegistry::LoadAdapterNetwork(LoadedModel& model, StepExecutor& executor) {
  BOSS_ASSIGN_OR_RETURN(const AdapterWeights adapter, store_.LoadAdapterWeights(model.key));
  BOSS_ASSIGN_OR_RETURN(model.base, AcquireBase(adapter.base));
  return executor.Run([&] {
    return GuardTorch(absl::StrCat("loading ", model.key.ToString()), [&]() -> absl::Status {
      std::unique_ptr<VelocityModel> network = model.base->network->ShareWeights();
      if (network == nullptr)
        return absl::UnimplementedError(absl::StrCat(adapter.base.ToString(), " takes no adapter"));
      BOSS_RETURN_IF_ERROR(LoadAdapter(*network, adapter.deltas));
      PlaceOnDevice(*network);
      model.network = std::move(network);
      return absl::OkStatus();
    });
  });
}

absl::Status ModelRegistry::LoadNetwork(LoadedModel& model, StepExecutor& executor) {
  if (model.manifest.adapter) return LoadAdapterNetwork(model, executor);
  BOSS_ASSIGN_OR_RETURN(std::unique_ptr<VelocityModel> network,
                        options_.load_network ? options_.load_network(model.key) : store_.LoadVersionModel(model.key));
  return executor.Run([&] {
    return GuardTorch(absl::StrCat("loading ", model.key.ToString()), [&]() -> absl::Status {
      PlaceOnDevice(*network);
      model.network = std::move(network);
      return absl::OkStatus();
    });
  });
}

absl::Status ModelRegistry::LoadDecoder(LoadedModel& model, StepExecutor& executor) const {
  if (!HasDecoder(model.manifest.architecture_json)) return absl::OkStatus();
  if (model.base && model.manifest.architecture_json == model.base->manifest.architecture_json &&
      DecoderDigest(model) == DecoderDigest(*model.base)) {
    model.decoder = model.base->decoder;
    return absl::OkStatus();
  }
  BOSS_ASSIGN_OR_RETURN(std::unique_ptr<Decoder> decoder, store_.LoadVersionDecoder(model.key));
  return executor.Run([&] {
    return GuardTorch(absl::StrCat("loading the decoder of ", model.key.ToString()), [&]() -> absl::Status {
      decoder->To(options_.device);
      model.decoder = std::move(decoder);
      return absl::OkStatus();
    });
  });
}

absl::StatusOr<std::unique_ptr<LoadedModel>> ModelRegistry::LoadFromStore(const VersionKey& key) {
  auto model = std::make_unique<LoadedModel>();
  model->key = key;
  BOSS_ASSIGN_OR_RETURN(model->use, store_.Use(key, "loaded"));
  BOSS_ASSIGN_OR_RETURN(VersionInfo info, store_.GetVersion(key));
  model->manifest = std::move(info.manifest);
  InlineExecutor here;
  StepExecutor& executor = options_.executor != nullptr ? *options_.executor : here;
  BOSS_RETURN_IF_ERROR(LoadNetwork(*model, executor));
  BOSS_RETURN_IF_ERROR(LoadDecoder(*model, executor));
  model->memory_bytes = model->network->MemoryBytes();
  const bool has_own_decoder = model->decoder && !(model->base && model->base->decoder == model->decoder);
  if (has_own_decoder) model->memory_bytes += model->decoder->MemoryBytes();
  VelocityRunnerOptions runner_options;
  if (options_.device.is_cuda()) {
    runner_options = {.buckets = BatchBuckets(options_.max_batch), .channels_last = true, .backend = options_.backend};
  }
  auto runner = std::make_shared<VelocityRunner>(model->network, std::move(runner_options));
  if (const absl::Status status = runner->WarmUp(executor); !status.ok()) {
    return absl::Status(status.code(), absl::StrCat("loading ", key.ToString(), ": ", status.message()));
  }
  model->runner = std::move(runner);
  return model;
}

void ModelRegistry::PlaceOnDevice(VelocityModel& network) const {
  network.To(options_.device);
  network.PrepareForInference(options_.precision == Precision::kBfloat16 ? at::kBFloat16 : at::kFloat);
}

void ModelRegistry::Load(const VersionKey& key) {
  {
    absl::MutexLock lock(&state_->mutex);
    const Entry& entry = state_->entries[key];
    // The registry is going away and has told them, or the version was loaded for an adapter meanwhile.
    if (entry.waiting.empty() || entry.state != ModelState::kLoading) return;
  }
  Loaded loaded = LoadNow(key);
  // The last one gets this function's own reference: once all have let go, nothing here keeps the model alive.
  for (size_t i = 0; i < loaded.waiting.size(); ++i) {
    const bool is_last = i + 1 == loaded.waiting.size();
    loaded.waiting[i](is_last ? std::move(loaded.model) : loaded.model);
  }
}

ModelRegistry::Loaded ModelRegistry::LoadNow(const VersionKey& key) {
  const absl::Time start = options_.clock->Now();
  absl::StatusOr<std::unique_ptr<LoadedModel>> loaded =
      GuardTorch(absl::StrCat("loading ", key.ToString()), [&] { return LoadFromStore(key); });
  absl::StatusOr<std::shared_ptr<const LoadedModel>> result = absl::InternalError("not loaded");
  if (loaded.ok()) {
    // Whoever lets go of the last reference reports that the memory is free, even after the registry has gone.
    result = std::shared_ptr<const LoadedModel>(
        loaded->release(), [state = std::weak_ptr(state_)](const LoadedModel* model) {
          const VersionKey released = model->key;
          delete model;
          if (const std::shared_ptr<State> alive = state.lock()) {
            absl::MutexLock lock(&alive->mutex);
            const auto entry = alive->entries.find(released);
            if (entry != alive->entries.end() && Apply(entry->second, ModelEvent::kReleased))
              entry->second.memory_bytes = 0;
          }
        });
  } else {
    result = loaded.status();
  }
  std::vector<Callback> waiting;
  std::vector<std::shared_ptr<const LoadedModel>> evicted;
  {
    absl::MutexLock lock(&state_->mutex);
    if (result.ok()) {
      if (const absl::Status status = MakeRoom((*result)->memory_bytes, evicted); !status.ok()) {
        evicted.push_back(*std::move(result));
        result = absl::Status(status.code(), absl::StrCat(key.ToString(), ": ", status.message()));
      }
    }
    Entry& entry = state_->entries[key];
    waiting.swap(entry.waiting);
    if (result.ok()) {
      Apply(entry, ModelEvent::kLoaded);
      entry.model = *result;
      entry.resident = *result;
      entry.memory_bytes = (*result)->memory_bytes;
      entry.error = absl::OkStatus();
      const std::shared_ptr<const LoadedModel>& base = (*result)->base;
      state_->shapes[key] = ShapeOf(base ? *base->network : *(*result)->network);
      if ((*result)->decoder != nullptr) state_->shapes[key].decoded_shape = (*result)->decoder->decoded_shape();
      Touch(entry);
    } else {
      Apply(entry, ModelEvent::kFailed);
      entry.error = result.status();
    }
  }
  evicted.clear();  // its memory is free before the new version is used
  const ModelMetrics& metrics = options_.metrics;
  (result.ok() ? metrics.loads : metrics.failed_loads).Add(1);
  if (result.ok()) metrics.load_seconds.Observe(absl::ToDoubleSeconds(options_.clock->Now() - start));
  return {std::move(result), std::move(waiting)};
}

absl::Status ModelRegistry::Unload(const VersionKey& key) {
  std::shared_ptr<const LoadedModel> released;  // its deleter takes the mutex
  absl::MutexLock lock(&state_->mutex);
  const auto found = state_->entries.find(key);
  if (found == state_->entries.end()) return absl::OkStatus();
  Entry& entry = found->second;
  if (entry.state == ModelState::kLoading) {
    return WithRetryDelay(absl::UnavailableError(absl::StrCat(key.ToString(), " is being loaded")), absl::Seconds(1));
  }
  if (Apply(entry, ModelEvent::kUnload)) {
    released = std::move(entry.model);
    entry.error = absl::OkStatus();
  }
  return absl::OkStatus();
}

ModelStatus ModelRegistry::Status(const VersionKey& key) const {
  absl::MutexLock lock(&state_->mutex);
  const auto found = state_->entries.find(key);
  if (found == state_->entries.end()) return {.key = key};
  const Entry& entry = found->second;
  return {.key = key, .state = entry.state, .error = entry.error, .memory_bytes = entry.memory_bytes};
}

std::vector<ModelStatus> ModelRegistry::Statuses() const {
  absl::MutexLock lock(&state_->mutex);
  std::vector<ModelStatus> statuses;
  for (const auto& [key, entry] : state_->entries) {
    if (entry.state != ModelState::kUnloaded)
      statuses.push_back({.key = key, .state = entry.state, .memory_bytes = entry.memory_bytes});
  }
  return statuses;
}

int64_t ModelRegistry::MemoryBytes() const {
  absl::MutexLock lock(&state_->mutex);
  int64_t bytes = 0;
  for (const auto& [key, entry] : state_->entries) bytes += entry.memory_bytes;
  return bytes;
}

absl::Status ModelRegistry::MakeRoom(int64_t bytes, std::vector<std::shared_ptr<const LoadedModel>>& evicted) const {
  if (options_.memory_budget == 0) return absl::OkStatus();
  int64_t in_use = 0, idle_bytes = 0;
  std::vector<Entry*> idle;
  // References to bases that are idle adapters'.
  std::map<const LoadedModel*, int64_t> held;
  for (const auto& [key, entry] : state_->entries) {
    if (entry.state == ModelState::kReady && entry.model->base && entry.model.use_count() == 1)
      ++held[entry.model->base.get()];
  }
  for (auto& [key, entry] : state_->entries) {
    // A reference beside these and the registry's is a user's; only Acquire, under the mutex, makes the first of them.
    const bool is_idle = entry.state == ModelState::kReady && entry.model.use_count() == 1 + held[entry.model.get()];
    (is_idle ? idle_bytes : in_use) += entry.memory_bytes;
    if (is_idle) idle.push_back(&entry);
  }
  if (in_use + bytes > options_.memory_budget) {
    return absl::ResourceExhaustedError(absl::StrCat("the version takes ", bytes, " bytes of memory; of ",
                                                     options_.memory_budget, " that models may take, ", in_use,
                                                     " are taken by versions in use"));
  }
  std::sort(idle.begin(), idle.end(), [](const Entry* a, const Entry* b) { return a->last_use < b->last_use; });
  for (Entry* entry : idle) {
    if (in_use + idle_bytes + bytes <= options_.memory_budget) break;
    idle_bytes -= entry->memory_bytes;
    Apply(*entry, ModelEvent::kUnload);
    evicted.push_back(std::move(entry->model));
  }
  return absl::OkStatus();
}

int64_t ModelRegistry::NumReady() const {
  absl::MutexLock lock(&state_->mutex);
  int64_t count = 0;
  for (const auto& [key, entry] : state_->entries) count += entry.state == ModelState::kReady;
  return count;
}

absl::StatusOr<ModelShape> ModelRegistry::Shape(const VersionKey& key) {
  {
    absl::MutexLock lock(&state_->mutex);
    const auto found = state_->shapes.find(key);
    if (found != state_->shapes.end()) return found->second;
  }
  BOSS_ASSIGN_OR_RETURN(const VersionInfo info, store_.GetVersion(key));
  BOSS_ASSIGN_OR_RETURN(ModelShape shape, DescribedShape(info.manifest.architecture_json));
  if (const auto decoder = DecoderConfig::FromArchitecture(info.manifest.architecture_json); decoder.ok())
    shape.decoded_shape = decoder->decoded_shape;
  absl::MutexLock lock(&state_->mutex);
  return state_->shapes.try_emplace(key, shape).first->second;
}

}  // namespace boss::server
