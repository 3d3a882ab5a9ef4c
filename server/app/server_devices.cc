#include "server/app/server_devices.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"
#include "core/nets/prepared_convolution.h"
#include "server/device/cuda_loader.h"

namespace boss::server {
namespace {

using Labels = std::vector<std::pair<std::string, std::string>>;

SamplerEngineOptions EngineOptions(const ServerConfig& config) {
  SamplerEngineOptions options;
  options.limits.max_samples_per_request = config.max_samples_per_request;
  options.max_batch = config.max_batch;
  options.max_queued_samples = config.max_queued_samples;
  return options;
}

absl::StatusOr<PoolDevice> StartDevice(const ServerConfig& config, const Devices& devices, at::Device device,
                                       int cpu_threads, const ModelStore& store, EngineMetrics metrics,
                                       const Clock& clock) {
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
  registry_options.max_batch = config.max_batch;
  registry_options.backend = devices.backend;
  // On the CPU the loading thread does it beside the requests.
  if (device.is_cuda()) registry_options.executor = &started.worker->exclusive_executor();
  started.registry = std::make_unique<ModelRegistry>(store, std::move(registry_options));
  started.engine =
      std::make_unique<SamplerEngine>(EngineOptions(config), store, *started.registry, *started.worker, metrics, clock);
  return started;
}

}  // namespace

absl::StatusOr<Devices> OpenConfiguredDevices(const ServerConfig& config) {
  BOSS_ASSIGN_OR_RETURN(Devices devices, OpenDevices(config.device, [] { return OpenCuda(CudaLibraries::Default()); }));
  if (!devices.without_cuda.ok()) spdlog::info("computing on the CPU: {}", std::string(devices.without_cuda.message()));
  if (devices.backend->type() == at::kCUDA) {
    SetCudaFloat32Precision(config.precision);
  } else if (config.precision == Precision::kTf32) {
    spdlog::warn("the CPU has no tf32: computing in float32");
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
    spdlog::info("device name={} description=\"{}\" uuid={} memory_bytes={} free_bytes={} precision={}", device.str(),
                 facts.description, facts.uuid, facts.memory_bytes, facts.free_bytes, precision_name);
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
    BOSS_ASSIGN_OR_RETURN(
        PoolDevice next, StartDevice(config, devices, device, threads, store,
                                     metrics.engine(devices.devices.size() > 1 ? device.str() : std::string()), clock));
    started.push_back(std::move(next));
  }
  return std::make_unique<DevicePool>(store, std::move(started));
}

std::vector<CollectedFamily> CollectDevices(const DevicePool& pool) {
  CollectedFamily seconds = {
      .name = "boss_device_busy_seconds_total", .help = "Device time by work", .kind = CollectedFamily::Kind::kCounter};
  CollectedFamily units = {
      .name = "boss_device_units_total",
      .help =
          "Units of device work: solver steps of batches (sampling); train steps and evaluations of batches by "
          "jobs (training)",
      .kind = CollectedFamily::Kind::kCounter};
  CollectedFamily loaded = {.name = "boss_models_loaded", .help = "Model versions in memory"};
  CollectedFamily memory = {.name = "boss_model_memory_bytes", .help = "Memory of the model versions that are loaded"};
  for (const PoolDevice& device : pool.devices()) {
    const DeviceTimes times = device.worker->times();
    Labels labels;
    if (pool.devices().size() > 1) labels.emplace_back("device", device.name());
    Labels sampling = labels, training = labels;
    sampling.emplace_back("work", "sampling");
    training.emplace_back("work", "training");
    seconds.series.push_back({sampling, absl::ToDoubleSeconds(times.sampling)});
    seconds.series.push_back({training, absl::ToDoubleSeconds(times.training)});
    units.series.push_back({sampling, static_cast<double>(times.sampling_units)});
    units.series.push_back({training, static_cast<double>(times.training_units)});
    loaded.series.push_back({labels, static_cast<double>(device.registry->NumReady())});
    memory.series.push_back({labels, static_cast<double>(device.registry->MemoryBytes())});
  }
  return {seconds, units, loaded, memory};
}

}  // namespace boss::server
