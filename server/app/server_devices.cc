#include "server/app/server_devices.h"

#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"
#include "core/nets/prepared_convolution.h"
#include "server/device/cuda_loader.h"
#include "server/device/host_memory.h"
#include "server/log/log.h"

namespace boss::server {
namespace {

using Labels = std::vector<std::pair<std::string, std::string>>;

// Larger batches are no faster on the CPU, where they only hold up who comes next (docs/performance.md).
int64_t MaxBatch(const ServerConfig& config, at::Device device) {
  return config.max_batch.value_or(device.is_cuda() ? 64 : 32);
}

SamplerEngineOptions EngineOptions(const ServerConfig& config, at::Device device) {
  SamplerEngineOptions options;
  options.limits.max_samples_per_request = config.max_samples_per_request;
  options.limits.max_pixels_per_request = config.max_pixels_per_request;
  options.max_batch = MaxBatch(config, device);
  options.max_queued_samples = config.max_queued_samples;
  return options;
}

absl::StatusOr<PoolDevice> StartDevice(const ServerConfig& config, const Devices& devices, at::Device device,
                                       int cpu_threads, const ModelStore& store, EngineMetrics metrics,
                                       ModelMetrics model_metrics, const Clock& clock) {
  PoolDevice started;
  const DeviceWorkerOptions worker_options = {.device = device,
                                              .num_threads = cpu_threads,
                                              .training_share = config.training_share,
                                              .backend = devices.backend};
  BOSS_RETURN_IF_ERROR(GuardTorch(absl::StrCat("device ", device.str()), [&]() -> absl::Status {
    started.worker = std::make_unique<DeviceWorker>(worker_options, clock);
    return absl::OkStatus();
  }));
  ModelRegistryOptions registry_options;
  registry_options.device = device;
  registry_options.memory_budget = config.max_model_memory_bytes;
  registry_options.precision = config.precision;
  registry_options.max_batch = MaxBatch(config, device);
  registry_options.backend = devices.backend;
  registry_options.metrics = model_metrics;
  // On the CPU the loading thread does it beside the requests.
  if (device.is_cuda()) registry_options.executor = &started.worker->exclusive_executor();
  started.registry = std::make_unique<ModelRegistry>(store, std::move(registry_options));
  started.engine = std::make_unique<SamplerEngine>(EngineOptions(config, device), store, *started.registry,
                                                   *started.worker, metrics, clock);
  return started;
}

// What tensors leave is for code, stacks, what the allocator keeps, and kernels with memory of their own.
constexpr double kHostMemoryShare = 0.85;

void BoundHostMemory(const ServerConfig& config) {
  int64_t limit = config.max_host_memory_bytes;
  if (limit == 0) {
    const absl::StatusOr<int64_t> bytes = HostMemoryBytes();
    if (!bytes.ok()) return LogWarn("memory is not limited", {{"reason", bytes.status()}});
    limit = static_cast<int64_t>(kHostMemoryShare * static_cast<double>(*bytes));
  }
  LimitHostMemory(limit);
  LogInfo("memory is limited", {{"max_host_memory_bytes", limit}});
}

}  // namespace

absl::StatusOr<Devices> OpenConfiguredDevices(const ServerConfig& config) {
  BoundHostMemory(config);
  BOSS_ASSIGN_OR_RETURN(Devices devices, OpenDevices(config.device, [] { return OpenCuda(CudaLibraries::Default()); }));
  if (!devices.without_cuda.ok()) LogInfo("computing on the CPU", {{"reason", devices.without_cuda.message()}});
  if (devices.backend->type() == at::kCUDA) {
    SetCudaFloat32Precision(config.precision);
  } else if (config.precision == Precision::kTf32) {
    LogWarn("the CPU has no tf32: computing in float32");
  } else if (config.precision == Precision::kBfloat16 && !SupportsBfloat16(at::kCPU)) {
    return absl::FailedPreconditionError(
        "precision: got bfloat16, which this processor has no instructions for (avx512_bf16); expected float32");
  }
  return devices;
}

std::string DeviceNames(const Devices& devices) {
  return absl::StrJoin(devices.devices, ",",
                       [](std::string* out, const at::Device& device) { out->append(device.str()); });
}

absl::StatusOr<std::vector<DeviceDescription>> DescribeDevices(const Devices& devices, Precision precision) {
  if (devices.backend->type() == at::kCPU && precision == Precision::kTf32) precision = Precision::kFloat32;
  std::vector<DeviceDescription> descriptions;
  for (const at::Device device : devices.devices) {
    DeviceFacts facts;
    BOSS_RETURN_IF_ERROR(GuardTorch(absl::StrCat("device ", device.str()), [&]() -> absl::Status {
      facts = devices.backend->Facts(device);
      return absl::OkStatus();
    }));
    const std::string precision_name(PrecisionName(precision));
    LogInfo("device", {{"name", device.str()},
                       {"description", facts.description},
                       {"uuid", facts.uuid},
                       {"memory_bytes", facts.memory_bytes},
                       {"free_bytes", facts.free_bytes},
                       {"precision", precision_name}});
    if (precision != Precision::kFloat32) absl::StrAppend(&facts.description, ", ", precision_name);
    descriptions.push_back({.name = device.str(),
                            .description = facts.description,
                            .uuid = facts.uuid,
                            .memory_bytes = facts.memory_bytes});
  }
  return descriptions;
}

absl::StatusOr<std::unique_ptr<DevicePool>> StartDevices(const ServerConfig& config, const Devices& devices,
                                                         int cpu_threads, const ModelStore& store,
                                                         const Metrics& metrics, const Clock& clock) {
  std::vector<PoolDevice> started;
  for (const at::Device device : devices.devices) {
    // A card's host thread has little to compute.
    const int threads = device.is_cpu() ? cpu_threads : 1;
    BOSS_ASSIGN_OR_RETURN(PoolDevice next,
                          StartDevice(config, devices, device, threads, store,
                                      metrics.engine(devices.devices.size() > 1 ? device.str() : std::string()),
                                      metrics.models(), clock));
    started.push_back(std::move(next));
  }
  return std::make_unique<DevicePool>(store, std::move(started));
}

std::vector<CollectedFamily> CollectDevices(const DevicePool& pool) {
  CollectedFamily seconds = {.name = "boss_device_busy_seconds_total",
                             .help = "Device time by work; its rate is the duty cycle",
                             .kind = CollectedFamily::Kind::kCounter};
  CollectedFamily units = {
      .name = "boss_device_units_total",
      .help =
          "Units of device work: solver steps of batches (sampling); train steps and evaluations of batches by "
          "jobs (training)",
      .kind = CollectedFamily::Kind::kCounter};
  CollectedFamily states = {.name = "boss_models", .help = "Model versions that were asked for, by state in memory"};
  CollectedFamily memory = {.name = "boss_loaded_model_bytes", .help = "Memory of a model's versions that are loaded"};
  for (const PoolDevice& device : pool.devices()) {
    const DeviceTimes times = device.worker->times();
    const Labels sampling = {{"device", device.name()}, {"work", "sampling"}};
    const Labels training = {{"device", device.name()}, {"work", "training"}};
    seconds.series.push_back({sampling, absl::ToDoubleSeconds(times.sampling)});
    seconds.series.push_back({training, absl::ToDoubleSeconds(times.training)});
    units.series.push_back({sampling, static_cast<double>(times.sampling_units)});
    units.series.push_back({training, static_cast<double>(times.training_units)});

    std::map<ModelState, int64_t> versions;
    std::map<std::string, int64_t> bytes;  // by the model's name
    for (const ModelStatus& status : device.registry->Statuses()) {
      ++versions[status.state];
      if (status.memory_bytes > 0) bytes[status.key.name] += status.memory_bytes;
    }
    for (const ModelState state :
         {ModelState::kLoading, ModelState::kReady, ModelState::kUnloading, ModelState::kFailed}) {
      states.series.push_back({{{"device", device.name()}, {"state", std::string(ModelStateName(state))}},
                               static_cast<double>(versions[state])});
    }
    for (const auto& [name, model_bytes] : bytes) {
      memory.series.push_back({{{"device", device.name()}, {"model", name}}, static_cast<double>(model_bytes)});
    }
  }
  return {seconds, units, states, memory};
}

}  // namespace boss::server
