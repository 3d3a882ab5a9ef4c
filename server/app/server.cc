#include "server/app/server.h"

#include <ATen/Parallel.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/io/image_dataset.h"
#include "server/app/data_lock.h"
#include "server/app/job_counter.h"
#include "server/app/machine.h"
#include "server/app/seed_models.h"
#include "server/device/device_worker.h"
#include "server/engine/sampler_engine.h"
#include "server/jobs/job_manager.h"
#include "server/rpc/call_recorder.h"
#include "server/rpc/jobs_service.h"
#include "server/rpc/models_service.h"
#include "server/rpc/sampler_service.h"
#include "server/store/store_files.h"
#include "server/store/upload_store.h"

namespace boss::server {
namespace {

constexpr int kRpcThreads = 4;
// A float32 each for the weight, its gradient, its average and Adam's two moments.
constexpr int64_t kTrainingBytesPerWeight = 5 * 4;
// For the last messages of streams that have finished otherwise.
constexpr absl::Duration kFlushTime = absl::Seconds(2);

SamplerEngineOptions EngineOptions(const ServerConfig& config) {
  SamplerEngineOptions options;
  options.limits.max_samples_per_request = config.max_samples_per_request;
  options.max_batch = config.max_batch;
  options.max_queued_samples = config.max_queued_samples;
  return options;
}

ServerDescription Describe(const ServerConfig& config, const SamplingLimits& limits, absl::Time now) {
  ServerDescription description;
  description.version = BOSS_VERSION;
  description.device = "cpu";
  description.device_description = ProcessorName();
  description.device_memory_bytes = MemoryBytes();
  description.datasets = InstalledDatasets();
  for (const auto& [name, path] : config.feature_networks) description.feature_networks.push_back(name);
  description.max_samples_per_request = config.max_samples_per_request;
  description.max_queued_samples = config.max_queued_samples;
  description.max_queued_jobs = config.max_queued_jobs;
  description.max_steps = limits.max_steps;
  description.max_message_bytes = config.max_message_bytes;
  description.max_import_bytes = config.max_import_bytes;
  description.start_time = now;
  return description;
}

CollectedFamily DeviceSeconds(const DeviceTimes& times) {
  return {.name = "boss_device_busy_seconds_total",
          .help = "Device time by work",
          .kind = CollectedFamily::Kind::kCounter,
          .series = {{{{"work", "sampling"}}, absl::ToDoubleSeconds(times.sampling)},
                     {{{"work", "training"}}, absl::ToDoubleSeconds(times.training)}}};
}

CollectedFamily DeviceUnits(const DeviceTimes& times) {
  return {.name = "boss_device_units_total",
          .help =
              "Units of device work: solver steps of batches (sampling); train steps and evaluations of batches by "
              "jobs (training)",
          .kind = CollectedFamily::Kind::kCounter,
          .series = {{{{"work", "sampling"}}, static_cast<double>(times.sampling_units)},
                     {{{"work", "training"}}, static_cast<double>(times.training_units)}}};
}

CollectedFamily StoredVersions(const StoreTotals& totals) {
  return {.name = "boss_model_versions",
          .help = "Model versions on the disk by state",
          .kind = CollectedFamily::Kind::kGauge,
          .series = {{{{"state", "published"}}, static_cast<double>(totals.published)},
                     {{{"state", "quarantined"}}, static_cast<double>(totals.quarantined)}}};
}

CollectedFamily StoredBytes(const StoreTotals& totals) {
  return {.name = "boss_store_bytes",
          .help = "Bytes of the files of all model versions",
          .kind = CollectedFamily::Kind::kGauge,
          .series = {{{}, static_cast<double>(totals.bytes)}}};
}

}  // namespace

// In the order of construction; destroyed in the opposite order.
class Server::Parts {
 public:
  Parts(const ServerConfig& config, const ServerDisk& disk) : config_(config), disk_(disk) {}
  ~Parts() {
    Hurry();
    Shutdown();
  }

  absl::Status Start() {
    // The device worker alone computes with several threads. OpenMP keeps helpers for every thread that ever did, and
    // with more of them than cores all sleep at every barrier in place of spinning: a small batch takes twice as long.
    num_threads_ = config_.threads > 0 ? config_.threads : at::get_num_threads();
    at::set_num_threads(1);
    BOSS_RETURN_IF_ERROR(StartData());
    BOSS_RETURN_IF_ERROR(StartWork());
    BOSS_RETURN_IF_ERROR(StartServices());
    return StartMetrics();
  }

  int port() const { return port_; }
  int metrics_port() const { return metrics_server_ ? metrics_server_->port() : 0; }

  void Hurry() {
    if (sampler_service_) sampler_service_->open_calls().StopWaiting();
  }

  void Shutdown() {
    if (!grpc_server_ || std::exchange(stopped_, true)) return;
    const absl::Time deadline = clock_.Now() + config_.grace;
    spdlog::info("shutting down grace_seconds={}", absl::ToDoubleSeconds(config_.grace));
    grpc_server_->GetHealthCheckService()->SetServingStatus(false);
    engine_->StopAccepting();
    std::thread save_job([this] { jobs_->Shutdown(); });
    sampler_service_->open_calls().WaitForNone(deadline);
    engine_->CancelAll(absl::UnavailableError("the server is shutting down"));
    save_job.join();
    jobs_service_->EndWatches();
    grpc_server_->Shutdown(absl::ToChronoTime(clock_.Now() + kFlushTime));
    rpc_pool_.Shutdown();
    spdlog::info("stopped");
  }

 private:
  absl::Status StartData() {
    BOSS_ASSIGN_OR_RETURN(data_lock_, DataLock::Acquire(config_.data_folder));
    BOSS_ASSIGN_OR_RETURN(store_, ModelStore::Open(config_.data_folder, clock_, disk_.files,
                                                   {.keep_versions = config_.keep_versions,
                                                    .max_bytes = config_.max_store_bytes,
                                                    .min_free_bytes = config_.min_free_disk_bytes}));
    BOSS_ASSIGN_OR_RETURN(
        uploads_, UploadStore::Open(absl::StrCat(config_.data_folder, "/", kUploadsFolder), disk_.files, clock_));
    BOSS_ASSIGN_OR_RETURN(journal_, SqliteJobJournal::Open(config_.data_folder + "/bossd.db", disk_.sqlite_vfs));
    if (!config_.seed_models_folder.empty()) return ImportSeedModels(*store_, config_.seed_models_folder);
    return absl::OkStatus();
  }

  absl::Status StartWork() {
    worker_ = std::make_unique<DeviceWorker>(
        DeviceWorkerOptions{.device = at::kCPU, .num_threads = num_threads_, .training_share = config_.training_share},
        clock_);
    at::set_num_threads(1);  // of threads that start from here on
    registry_ = std::make_unique<ModelRegistry>(*store_, worker_->device(), config_.max_model_memory_bytes);
    engine_ = std::make_unique<SamplerEngine>(EngineOptions(config_), *store_, *registry_, *worker_, metrics_.engine(),
                                              clock_);
    JobManagerOptions options;
    options.data_folder = config_.data_folder;
    options.max_unfinished = config_.max_queued_jobs;
    options.retention = config_.job_retention;
    options.data_retention = config_.job_data_retention;
    options.checkpoint_period = config_.checkpoint_period;
    options.crash_backoff = config_.crash_backoff;
    options.max_data_bytes = config_.max_job_data_bytes;
    if (const int64_t memory = MemoryBytes(); memory > 0) options.max_weights = memory / kTrainingBytesPerWeight;
    options.min_free_bytes = config_.min_free_disk_bytes;
    options.dataset_folders = config_.dataset_folders;
    options.feature_networks = config_.feature_networks;
    options.device = worker_->device();
    options.files = &disk_.files;
    BOSS_ASSIGN_OR_RETURN(
        jobs_, JobManager::Start(std::move(options), *store_, *journal_, worker_->training_executor(), clock_,
                                 [this](JobKind kind, std::optional<JobState> from, JobState to) {
                                   job_counter_.OnChange(kind, from, to);
                                 }));
    // Not before: by now every job uses the versions that it reads.
    store_->CollectGarbage();
    return absl::OkStatus();
  }

  absl::Status StartServices() {
    sampler_service_ = std::make_unique<SamplerService>(*engine_, clock_, absl::BitGen());
    jobs_service_ = std::make_unique<JobsService>(*jobs_, rpc_pool_);
    const SamplingLimits& limits = engine_->options().limits;
    models_service_ =
        std::make_unique<ModelsService>(ModelsService::Options{.default_steps = limits.default_steps,
                                                               .description = Describe(config_, limits, clock_.Now())},
                                        *store_, *uploads_, *registry_, rpc_pool_);

    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::ServerBuilder builder;
    builder.AddListeningPort(config_.listen, grpc::InsecureServerCredentials(), &port_);
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);  // two servers on one port is a mistake
    builder.SetMaxReceiveMessageSize(static_cast<int>(config_.max_message_bytes));
    builder.experimental().SetInterceptorCreators(CallRecorders(metrics_, clock_));
    builder.RegisterService(sampler_service_.get());
    builder.RegisterService(jobs_service_.get());
    builder.RegisterService(models_service_.get());
    grpc_server_ = builder.BuildAndStart();
    if (!grpc_server_ || port_ == 0) return absl::UnavailableError(absl::StrCat("cannot listen on ", config_.listen));
    for (const char* service :
         {v1::Sampler::service_full_name(), v1::Jobs::service_full_name(), v1::Models::service_full_name()}) {
      grpc_server_->GetHealthCheckService()->SetServingStatus(service, true);
    }
    return absl::OkStatus();
  }

  absl::Status StartMetrics() {
    metrics_.AddCollector([this] { return job_counter_.Collect(); });
    metrics_.AddCollector([this] {
      const StoreTotals totals = store_->Totals();
      return std::vector<CollectedFamily>{StoredVersions(totals), StoredBytes(totals)};
    });
    metrics_.AddCollector([this] {
      const DeviceTimes times = worker_->times();
      const CollectedFamily loaded = {.name = "boss_models_loaded",
                                      .help = "Model versions in memory",
                                      .kind = CollectedFamily::Kind::kGauge,
                                      .series = {{{}, static_cast<double>(registry_->NumReady())}}};
      const CollectedFamily memory = {.name = "boss_model_memory_bytes",
                                      .help = "Memory of the model versions that are loaded",
                                      .kind = CollectedFamily::Kind::kGauge,
                                      .series = {{{}, static_cast<double>(registry_->MemoryBytes())}}};
      return std::vector<CollectedFamily>{DeviceSeconds(times), DeviceUnits(times), loaded, memory};
    });
    if (config_.metrics_listen.empty()) return absl::OkStatus();
    BOSS_ASSIGN_OR_RETURN(metrics_server_, MetricsServer::Start(config_.metrics_listen, metrics_));
    return absl::OkStatus();
  }

  const ServerConfig config_;
  int num_threads_ = 0;  // of the device worker
  const ServerDisk disk_;
  const RealClock clock_;
  Metrics metrics_{BOSS_VERSION, "cpu"};
  JobCounter job_counter_;
  std::unique_ptr<DataLock> data_lock_;
  std::unique_ptr<ModelStore> store_;
  std::unique_ptr<UploadStore> uploads_;
  std::unique_ptr<JobJournal> journal_;
  std::unique_ptr<DeviceWorker> worker_;
  std::unique_ptr<ModelRegistry> registry_;
  std::unique_ptr<SamplerEngine> engine_;
  std::unique_ptr<JobManager> jobs_;
  ThreadPool rpc_pool_{kRpcThreads};
  std::unique_ptr<SamplerService> sampler_service_;
  std::unique_ptr<JobsService> jobs_service_;
  std::unique_ptr<ModelsService> models_service_;
  std::unique_ptr<grpc::Server> grpc_server_;
  std::unique_ptr<MetricsServer> metrics_server_;
  int port_ = 0;
  bool stopped_ = false;
};

Server::Server(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Server::~Server() = default;

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerConfig& config, const ServerDisk& disk) {
  auto parts = std::make_unique<Parts>(config, disk);
  BOSS_RETURN_IF_ERROR(parts->Start());
  return std::unique_ptr<Server>(new Server(std::move(parts)));
}

int Server::port() const { return parts_->port(); }
int Server::metrics_port() const { return parts_->metrics_port(); }
void Server::Shutdown() { parts_->Shutdown(); }
void Server::Hurry() { parts_->Hurry(); }

}  // namespace boss::server
