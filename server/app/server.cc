#include "server/app/server.h"

#include <ATen/Parallel.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "core/base/error_details.h"
#include "core/base/status_macros.h"
#include "core/io/image_dataset.h"
#include "server/app/credentials.h"
#include "server/app/data_lock.h"
#include "server/app/data_metrics.h"
#include "server/app/gpu_collector.h"
#include "server/app/grpc_server.h"
#include "server/app/job_counter.h"
#include "server/app/seed_models.h"
#include "server/app/server_devices.h"
#include "server/app/timed_file_system.h"
#include "server/app/timed_journal.h"
#include "server/jobs/job_manager.h"
#include "server/log/log.h"
#include "server/metrics/process_metrics.h"
#include "server/rpc/gated_services.h"
#include "server/rpc/inference_service.h"
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
// For the last messages of streams that have finished otherwise, also in a hurry.
constexpr absl::Duration kFlushTime = absl::Seconds(2);
// When a client is to try again: here, or at another server.
constexpr absl::Duration kRetryDelay = absl::Seconds(1);

absl::Status Unavailable(const char* why) { return WithRetryDelay(absl::UnavailableError(why), kRetryDelay); }

ServerDescription Describe(const ServerConfig& config, std::vector<DeviceDescription> devices,
                           const SamplingLimits& limits, absl::Time now) {
  ServerDescription description;
  description.version = BOSS_VERSION;
  description.devices = std::move(devices);
  description.datasets = InstalledDatasets();
  for (const auto& [name, path] : config.feature_networks) description.feature_networks.push_back(name);
  description.allow_torchscript = config.allow_torchscript;
  description.max_samples_per_request = config.max_samples_per_request;
  description.max_queued_samples = config.max_queued_samples;
  description.max_queued_jobs = config.max_queued_jobs;
  description.max_steps = limits.max_steps;
  description.max_message_bytes = config.max_message_bytes;
  description.max_import_bytes = config.max_import_bytes;
  description.max_pixels_per_request = config.max_pixels_per_request;
  description.max_request_time = config.max_request_time;
  description.max_streams_per_connection = config.max_streams_per_connection;
  description.start_time = now;
  return description;
}

}  // namespace

// In the order of construction; destroyed in the opposite order.
class Server::Parts {
 public:
  Parts(const ServerConfig& config, const ServerDisk& disk, Devices devices)
      : config_(config),
        disk_(disk),
        devices_(std::move(devices)),
        metrics_(std::make_unique<Metrics>(BOSS_VERSION, DeviceNames(devices_))),
        files_(disk.files, metrics_->store(), clock_) {}
  ~Parts() {
    Hurry();
    Shutdown();
  }

  absl::Status Start(const absl::Notification* stop) {
    stop_ = stop;
    BOSS_ASSIGN_OR_RETURN(credentials_, Credentials::Open(config_, clock_));
    BOSS_ASSIGN_OR_RETURN(device_descriptions_, DescribeDevices(devices_, config_.precision));
    // The device worker alone computes with several threads. OpenMP keeps helpers for every thread that ever did, and
    // with more of them than cores all sleep at every barrier in place of spinning: a small batch takes twice as long.
    num_threads_ = config_.threads > 0 ? config_.threads : at::get_num_threads();
    at::set_num_threads(1);
    BOSS_ASSIGN_OR_RETURN(data_lock_, DataLock::Acquire(config_.data_folder, files_));
    BOSS_RETURN_IF_ERROR(OpenPorts());
    for (const auto stage : {&Parts::StartData, &Parts::StartWork}) {
      BOSS_RETURN_IF_ERROR((this->*stage)());
      if (stop_ != nullptr && stop_->HasBeenNotified()) return absl::CancelledError("asked to stop");
    }
    StartServices();
    return absl::OkStatus();
  }

  int port() const { return grpc_server_->port(); }
  int metrics_port() const { return metrics_server_ ? metrics_server_->port() : 0; }

  void ReloadCredentials() { credentials_->Reload(); }

  void Hurry() {
    {
      absl::MutexLock lock(&hurry_mutex_);
      hurry_ = true;
    }
    if (sampling_) sampling_->open_calls().StopWaiting();
    if (grpc_server_) grpc_server_->Hurry();
  }

  void Drain() {
    LogInfo("draining", {{"drain_seconds", config_.drain}});
    SetReady(false);
    absl::MutexLock lock(&hurry_mutex_);
    hurry_mutex_.AwaitWithTimeout(absl::Condition(&hurry_), config_.drain);
  }

  void Shutdown() {
    if (!grpc_server_ || std::exchange(stopped_, true)) return;
    if (!models_service_) return grpc_server_->Shutdown(clock_.Now(), clock_.Now());  // it was not ready
    const absl::Time deadline = clock_.Now() + config_.grace;
    LogInfo("shutting down", {{"grace_seconds", config_.grace}});
    SetReady(false);
    const absl::Status reason = Unavailable("the server is shutting down");
    gate_.Close(reason);
    pool_->StopAccepting();
    inference_service_->EndStreams();
    std::thread save_job([this] { jobs_->Shutdown(); });
    sampling_->open_calls().WaitForNone(deadline);
    pool_->CancelAll(reason);
    save_job.join();
    jobs_service_->EndWatches();
    // Imports and exports go on.
    const absl::Time soon = clock_.Now() + kFlushTime;
    grpc_server_->Shutdown(soon, std::max(soon, deadline));
    rpc_pool_.Shutdown();
    LogInfo("stopped");
  }

 private:
  // Calls are refused until there is somebody to serve them.
  absl::Status OpenPorts() {
    BOSS_ASSIGN_OR_RETURN(grpc_server_,
                          GrpcServer::Start(config_, {&gated_sampler_, &gated_jobs_, &gated_models_, &gated_inference_},
                                            *credentials_, *metrics_, clock_));
    metrics_->AddCollector([this] {
      return std::vector<CollectedFamily>{{.name = "boss_ready",
                                           .help = "Whether the server wants new calls, as its health says",
                                           .series = {{{}, ready_ ? 1.0 : 0.0}}}};
    });
    metrics_->AddCollector([this] { return job_counter_.Collect(); });
    metrics_->AddCollector([this] { return credentials_->Collect(); });
    metrics_->AddCollector(CollectProcess);
    CollectGpus(config_.device, *metrics_);
    if (!config_.metrics_listen.empty()) {
      BOSS_ASSIGN_OR_RETURN(metrics_server_, MetricsServer::Start(config_.metrics_listen, *metrics_));
    }
    LogInfo("listening", {{"grpc_port", port()}, {"metrics_port", metrics_port()}});
    return absl::OkStatus();
  }

  void SetReady(bool ready) {
    ready_ = ready;
    inference_service_->SetReady(ready);
    grpc_server_->SetServing(ready);
  }

  absl::Status StartData() {
    BOSS_ASSIGN_OR_RETURN(store_, ModelStore::Open(config_.data_folder, clock_, files_,
                                                   {.keep_versions = config_.keep_versions,
                                                    .max_bytes = config_.max_store_bytes,
                                                    .min_free_bytes = config_.min_free_disk_bytes,
                                                    .allow_torchscript = config_.allow_torchscript}));
    BOSS_ASSIGN_OR_RETURN(uploads_,
                          UploadStore::Open(absl::StrCat(config_.data_folder, "/", kUploadsFolder), files_, clock_));
    BOSS_ASSIGN_OR_RETURN(
        std::unique_ptr<JobJournal> journal,
        SqliteJobJournal::Open(absl::StrCat(config_.data_folder, "/", kJournalFile), disk_.sqlite_vfs));
    journal_ = std::make_unique<TimedJournal>(std::move(journal), metrics_->journal(), clock_);
    if (!config_.seed_models_folder.empty()) return ImportSeedModels(*store_, config_.seed_models_folder, stop_);
    return absl::OkStatus();
  }

  absl::Status StartWork() {
    BOSS_ASSIGN_OR_RETURN(pool_, StartDevices(config_, devices_, num_threads_, *store_, *metrics_, clock_));
    at::set_num_threads(1);  // of threads that start from here on
    JobManagerOptions options;
    options.data_folder = config_.data_folder;
    options.max_unfinished = config_.max_queued_jobs;
    options.retention = config_.job_retention;
    options.data_retention = config_.job_data_retention;
    options.checkpoint_period = config_.checkpoint_period;
    options.crash_backoff = config_.crash_backoff;
    options.max_data_bytes = config_.max_job_data_bytes;
    const int64_t memory = device_descriptions_.back().memory_bytes;  // of the device that runs jobs
    if (memory > 0) options.max_weights = memory / kTrainingBytesPerWeight;
    options.min_free_bytes = config_.min_free_disk_bytes;
    options.dataset_folders = config_.dataset_folders;
    options.feature_networks = config_.feature_networks;
    options.device = pool_->job_worker().device();
    options.files = &files_;
    options.metrics = metrics_->jobs();
    BOSS_ASSIGN_OR_RETURN(
        jobs_, JobManager::Start(std::move(options), *store_, *journal_, pool_->job_worker().training_executor(),
                                 clock_, [this](JobKind kind, std::optional<JobState> from, JobState to) {
                                   job_counter_.OnChange(kind, from, to);
                                 }));
    // Not before: by now every job uses the versions that it reads.
    store_->CollectGarbage();
    return absl::OkStatus();
  }

  void StartServices() {
    Access& access = credentials_->access();
    sampling_ = std::make_unique<Sampling>(*pool_, clock_, absl::BitGen(), metrics_->rpc(), config_.max_request_time);
    sampler_service_ = std::make_unique<SamplerService>(*sampling_, access);
    inference_service_ = std::make_unique<InferenceService>(
        InferenceService::Options{.version = BOSS_VERSION, .max_message_bytes = config_.max_message_bytes}, *store_,
        *sampling_, access, rpc_pool_);
    jobs_service_ = std::make_unique<JobsService>(*jobs_, access, rpc_pool_);
    const SamplingLimits& limits = pool_->engine_options().limits;
    models_service_ = std::make_unique<ModelsService>(
        ModelsService::Options{.default_steps = limits.default_steps,
                               .description = Describe(config_, device_descriptions_, limits, clock_.Now())},
        *store_, *uploads_, *pool_, access, rpc_pool_);

    metrics_->AddCollector([this] { return CollectData(*store_, disk_.files, config_.data_folder); });
    metrics_->AddCollector([this] { return CollectDevices(*pool_); });
    gated_sampler_.Attach(*sampler_service_);
    gated_jobs_.Attach(*jobs_service_);
    gated_models_.Attach(*models_service_);
    gated_inference_.Attach(*inference_service_);
    gate_.Open();
    SetReady(true);
    grpc_server_->SetStarted();
  }

  const ServerConfig config_;
  const absl::Notification* stop_ = nullptr;  // while it starts
  int num_threads_ = 0;                       // of the CPU's device worker
  const ServerDisk disk_;
  const RealClock clock_;
  const Devices devices_;
  std::vector<DeviceDescription> device_descriptions_;
  std::atomic<bool> ready_ = false;
  const std::unique_ptr<Metrics> metrics_;
  const TimedFileSystem files_;
  JobCounter job_counter_;
  std::unique_ptr<Credentials> credentials_;
  std::unique_ptr<DataLock> data_lock_;
  std::unique_ptr<ModelStore> store_;
  std::unique_ptr<UploadStore> uploads_;
  std::unique_ptr<JobJournal> journal_;
  std::unique_ptr<DevicePool> pool_;
  std::unique_ptr<JobManager> jobs_;
  ThreadPool rpc_pool_{kRpcThreads};
  std::unique_ptr<Sampling> sampling_;
  std::unique_ptr<SamplerService> sampler_service_;
  std::unique_ptr<InferenceService> inference_service_;
  std::unique_ptr<JobsService> jobs_service_;
  std::unique_ptr<ModelsService> models_service_;
  Gate gate_{Unavailable("the server is starting")};
  GatedSampler gated_sampler_{gate_};
  GatedJobs gated_jobs_{gate_};
  GatedModels gated_models_{gate_};
  GatedInference gated_inference_{gate_};
  std::unique_ptr<GrpcServer> grpc_server_;
  std::unique_ptr<MetricsServer> metrics_server_;
  bool stopped_ = false;
  absl::Mutex hurry_mutex_;
  bool hurry_ ABSL_GUARDED_BY(hurry_mutex_) = false;
};

Server::Server(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Server::~Server() = default;

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerConfig& config, const ServerDisk& disk,
                                                      const absl::Notification* stop) {
  BOSS_ASSIGN_OR_RETURN(Devices devices, OpenConfiguredDevices(config));
  auto parts = std::make_unique<Parts>(config, disk, std::move(devices));
  BOSS_RETURN_IF_ERROR(parts->Start(stop));
  return std::unique_ptr<Server>(new Server(std::move(parts)));
}

int Server::port() const { return parts_->port(); }
int Server::metrics_port() const { return parts_->metrics_port(); }
void Server::Drain() { parts_->Drain(); }
void Server::Shutdown() { parts_->Shutdown(); }
void Server::Hurry() { parts_->Hurry(); }
void Server::ReloadCredentials() { parts_->ReloadCredentials(); }

}  // namespace boss::server
