#include "server/engine/sampler_engine.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <atomic>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/error_details.h"
#include "core/base/status_macros.h"
#include "core/flow/noise.h"
#include "server/engine/encode_sample.h"

namespace boss::server {

// Fields without a comment on their thread are guarded by the engine's mutex.
class SamplerEngine::Request final : public SampleHandle, public std::enable_shared_from_this<Request> {
 public:
  Request(SamplerEngine& engine, SampleRequest request, std::shared_ptr<SampleSink> sink)
      : request(std::move(request)),
        sink(std::move(sink)),
        strand(engine.pool_),
        submit_time(engine.clock_.Now()),
        engine_(engine) {}

  void Cancel(absl::Status reason) override { engine_.Cancel(shared_from_this(), std::move(reason)); }
  void Consumed(int64_t bytes) override { engine_.Consumed(shared_from_this(), bytes); }

  enum class Phase { kPreparing, kActive, kDone };

  const SampleRequest request;
  const std::shared_ptr<SampleSink> sink;  // called on the strand only
  Strand strand;
  const absl::Time submit_time;

  std::optional<SamplingTask> task;  // set before kActive; then used on the device's thread only
  Phase phase = Phase::kPreparing;
  absl::Status stop;     // why the request ends before its time
  bool in_unit = false;  // a solver step of it runs now
  int64_t last_turn = 0;
  int64_t reserved_samples = 0;  // of it in queued_samples_
  int64_t unread_bytes = 0;
  SampleProgress progress;
  bool progress_posted = false;
  absl::Time accept_time;
  std::optional<absl::Time> start_time;  // of the first solver step
  absl::Duration device_time;
  absl::Status output_error;            // on the strand only: a sample could not be encoded
  SampleSummary summary;                // output_time and num_samples: on the strand only
  std::atomic<bool> abandoned = false;  // what waits to be encoded is not wanted any more

 private:
  SamplerEngine& engine_;
};

SamplerEngine::SamplerEngine(SamplerEngineOptions options, const ModelStore& store, ModelRegistry& registry,
                             DeviceWorker& worker, EngineMetrics metrics, const Clock& clock)
    : options_(options),
      store_(store),
      registry_(registry),
      worker_(worker),
      metrics_(metrics),
      clock_(clock),
      pool_(options.host_threads) {}

SamplerEngine::~SamplerEngine() {
  StopAccepting();
  CancelAll(absl::UnavailableError("the server is shutting down"));
  {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(this, &SamplerEngine::IsQuiet));
  }
  pool_.Shutdown();
}

absl::StatusOr<std::shared_ptr<SampleHandle>> SamplerEngine::Submit(SampleRequest request,
                                                                    std::shared_ptr<SampleSink> sink) {
  BOSS_RETURN_IF_ERROR(CheckRequest(request, options_.limits));
  const int64_t num_samples = request.validate_only ? 0 : request.num_samples;
  const auto open = std::make_shared<Request>(*this, std::move(request), std::move(sink));
  {
    absl::MutexLock lock(&mutex_);
    if (!accepting_) return absl::UnavailableError("the server is shutting down");
    if (queued_samples_ + num_samples > options_.max_queued_samples) {
      metrics_.refused_requests.Add(1);
      return WithReason(WithRetryDelay(absl::ResourceExhaustedError(absl::StrCat(
                                           "the queue is full: ", queued_samples_, " samples wait, ", num_samples,
                                           " more were asked for, ", options_.max_queued_samples, " may wait")),
                                       RetryDelay()),
                        "QUEUE_FULL");
    }
    open->reserved_samples = num_samples;
    queued_samples_ += num_samples;
    metrics_.queued_samples.Set(static_cast<double>(queued_samples_));
    open_.insert(open);
  }
  open->strand.Post([this, open] { Prepare(open); });
  return open;
}

void SamplerEngine::Prepare(const RequestPtr& request) {
  absl::StatusOr<VersionKey> key = store_.Resolve(request->request.model);
  if (!key.ok()) {
    absl::Status status = key.status();
    if (absl::IsNotFound(status)) status = WithReason(std::move(status), "MODEL_NOT_FOUND");
    return Finish(request, WithField(std::move(status), "model"));
  }
  {
    absl::MutexLock lock(&mutex_);
    if (request->phase == Request::Phase::kDone) return;
    ++acquiring_;
  }
  registry_.Acquire(*key, [this, request](absl::StatusOr<std::shared_ptr<const LoadedModel>> model) {
    request->strand.Post([this, request, model = std::move(model)] { Admit(request, model); });
    absl::MutexLock lock(&mutex_);
    --acquiring_;
  });
}

void SamplerEngine::Admit(const RequestPtr& request, absl::StatusOr<std::shared_ptr<const LoadedModel>> model) {
  if (!model.ok()) {
    absl::Status status = model.status();
    if (absl::IsDataLoss(status)) status = WithReason(std::move(status), "WEIGHTS_CORRUPT");
    return Finish(request, std::move(status));
  }
  absl::StatusOr<ResolvedRequest> resolved =
      ResolveRequest(request->request, *std::move(model), store_, options_.limits);
  if (!resolved.ok()) return Finish(request, resolved.status());
  AcceptedRequest accepted = resolved->accepted;
  const bool validate_only = request->request.validate_only;
  {
    absl::MutexLock lock(&mutex_);
    if (request->phase == Request::Phase::kDone) return;
    accepted.requests_before = static_cast<int64_t>(active_.size());
    request->accept_time = clock_.Now();
    if (!validate_only) {
      request->task.emplace(request->request, *std::move(resolved), options_.max_batch);
      request->summary.device = at::Device(worker_.device()).str();
      request->phase = Request::Phase::kActive;
      active_.push_back(request);
      EnsureUnit();
    }
  }
  // What the request's steps bring comes later on this strand.
  request->sink->OnAccepted(std::move(accepted));
  if (validate_only) Finish(request, absl::OkStatus());
}

SamplerEngine::RequestPtr SamplerEngine::NextTurn() {
  const absl::Time now = clock_.Now();
  const std::vector<RequestPtr> active = active_;  // FinishLocked takes requests out of active_
  RequestPtr next;
  for (const RequestPtr& request : active) {
    if (request->request.deadline <= now) {
      FinishLocked(request, absl::DeadlineExceededError("the request's deadline has passed"));
      continue;
    }
    if (request->unread_bytes >= options_.max_unread_bytes) continue;
    const bool goes_first =
        !next || request->request.priority > next->request.priority ||
        (request->request.priority == next->request.priority && request->last_turn < next->last_turn);
    if (goes_first) next = request;
  }
  return next;
}

void SamplerEngine::EnsureUnit() {
  if (unit_posted_) return;
  const bool has_work = std::any_of(active_.begin(), active_.end(), [&](const RequestPtr& request) {
    return request->unread_bytes < options_.max_unread_bytes;
  });
  if (has_work) unit_posted_ = worker_.PostSampling([this] { RunUnit(); });
}

void SamplerEngine::RunUnit() {
  RequestPtr request;
  {
    absl::MutexLock lock(&mutex_);
    request = NextTurn();
    if (!request) {
      unit_posted_ = false;
      return;
    }
    request->in_unit = true;
    request->last_turn = ++turns_;
  }
  const absl::Time start = clock_.Now();
  StepOutcome outcome = request->task->Step();
  const absl::Time end = clock_.Now();
  metrics_.solver_steps.Add(1);
  metrics_.velocity_evaluations.Add(static_cast<double>(outcome.evaluations));

  const absl::Status status = outcome.status;
  const int64_t arrived = outcome.samples ? outcome.samples->x.size(0) : 0;
  {
    absl::MutexLock lock(&mutex_);
    if (!request->start_time) {
      request->start_time = start;
      request->summary.queue_time = start - request->accept_time;
      metrics_.queue_seconds.Observe(absl::ToDoubleSeconds(start - request->submit_time));
    }
    request->progress = request->task->progress();
    request->device_time += end - start;
    request->summary.compute_time = end - *request->start_time;
    request->summary.nfe = request->task->nfe();
    device_time_ += end - start;
    samples_done_ += arrived;
  }
  // What this step brought is on the strand before the request can be finished, so OnDone stays the last call.
  Deliver(request, std::move(outcome));
  absl::MutexLock lock(&mutex_);
  request->in_unit = false;
  Release(request, arrived);
  if (!request->stop.ok()) {
    FinishLocked(request, request->stop);
  } else if (!status.ok() || request->task->done()) {
    FinishLocked(request, status);
  }
  unit_posted_ = false;
  EnsureUnit();
}

void SamplerEngine::Deliver(const RequestPtr& request, StepOutcome outcome) {
  const bool is_preview = outcome.preview.has_value();
  std::optional<SampleBatch>& batch = is_preview ? outcome.preview : outcome.samples;
  if (batch) {
    {
      // Counted in full size until it is encoded.
      absl::MutexLock lock(&mutex_);
      request->unread_bytes += static_cast<int64_t>(batch->x.nbytes());
    }
    request->strand.Post(
        [this, request, batch = *std::move(batch), is_preview] { Encode(request, batch, is_preview); });
  }
  absl::MutexLock lock(&mutex_);
  if (std::exchange(request->progress_posted, true)) return;
  request->strand.Post([this, request] { SendProgress(request); });
}

void SamplerEngine::Encode(const RequestPtr& request, const SampleBatch& batch, bool is_preview) {
  if (request->abandoned) return;
  const absl::Time start = clock_.Now();
  const ResolvedRequest& resolved = request->task->resolved();
  const at::Tensor& labels = resolved.condition.class_labels;
  const int64_t num_classes = resolved.model->network->NumClasses();
  int64_t encoded_bytes = 0;
  for (int64_t i = 0; i < batch.x.size(0) && !request->abandoned; ++i) {
    absl::StatusOr<EncodedSample> encoded = EncodeSample(batch.x[i], resolved.format);
    if (!encoded.ok()) {
      request->output_error = encoded.status();  // the last batch's error would come too late for Cancel alone
      Cancel(request, encoded.status());
      return;
    }
    encoded->index = batch.first_index + i;
    encoded->seed = SampleSeed(request->request.seed, encoded->index);
    encoded->solver_steps = batch.solver_steps;
    encoded->t = batch.t;
    if (num_classes > 0) {
      const int64_t label = labels.defined() ? labels.const_data_ptr<int64_t>()[encoded->index] : num_classes;
      encoded->class_label = label == num_classes ? -1 : label;
    }
    const int64_t bytes = static_cast<int64_t>(encoded->data.size());
    encoded_bytes += bytes;
    {
      absl::MutexLock lock(&mutex_);
      request->unread_bytes += bytes;
    }
    if (is_preview) {
      request->sink->OnPreview(*std::move(encoded));
    } else {
      request->sink->OnSample(*std::move(encoded));
      ++request->summary.num_samples;
      metrics_.samples.Add(1);
    }
  }
  request->summary.output_time += clock_.Now() - start;
  Consumed(request, static_cast<int64_t>(batch.x.nbytes()));  // the unencoded form
}

void SamplerEngine::SendProgress(const RequestPtr& request) {
  SampleProgress progress;
  {
    absl::MutexLock lock(&mutex_);
    request->progress_posted = false;
    progress = request->progress;
  }
  if (!request->abandoned) request->sink->OnProgress(progress);
}

void SamplerEngine::Cancel(const RequestPtr& request, absl::Status reason) {
  absl::MutexLock lock(&mutex_);
  if (request->phase == Request::Phase::kDone || !request->stop.ok()) return;
  request->abandoned = true;
  request->stop = std::move(reason);
  if (!request->in_unit) FinishLocked(request, request->stop);
}

void SamplerEngine::Consumed(const RequestPtr& request, int64_t bytes) {
  absl::MutexLock lock(&mutex_);
  request->unread_bytes -= bytes;
  if (request->phase == Request::Phase::kActive) EnsureUnit();
}

void SamplerEngine::Finish(const RequestPtr& request, absl::Status status) {
  absl::MutexLock lock(&mutex_);
  FinishLocked(request, std::move(status));
}

void SamplerEngine::FinishLocked(const RequestPtr& request, absl::Status status) {
  if (std::exchange(request->phase, Request::Phase::kDone) == Request::Phase::kDone) return;
  active_.erase(std::remove(active_.begin(), active_.end(), request), active_.end());
  Release(request, request->reserved_samples);
  if (request->start_time) metrics_.compute_seconds.Observe(absl::ToDoubleSeconds(request->device_time));
  if (!status.ok()) request->abandoned = true;
  request->strand.Post([this, request, status = std::move(status)] {
    request->sink->OnDone(request->output_error.ok() ? status : request->output_error, request->summary);
    absl::MutexLock lock(&mutex_);
    open_.erase(request);
  });
}

void SamplerEngine::Release(const RequestPtr& request, int64_t samples) {
  samples = std::min(samples, request->reserved_samples);
  request->reserved_samples -= samples;
  queued_samples_ -= samples;
  metrics_.queued_samples.Set(static_cast<double>(queued_samples_));
}

absl::Duration SamplerEngine::RetryDelay() const {
  if (samples_done_ == 0) return absl::Seconds(1);
  const absl::Duration per_sample = device_time_ / samples_done_;
  return std::clamp(per_sample * queued_samples_, absl::Milliseconds(100), absl::Seconds(60));
}

void SamplerEngine::StopAccepting() {
  absl::MutexLock lock(&mutex_);
  accepting_ = false;
}

void SamplerEngine::CancelAll(const absl::Status& reason) {
  std::set<RequestPtr> open;
  {
    absl::MutexLock lock(&mutex_);
    open = open_;
  }
  for (const RequestPtr& request : open) Cancel(request, reason);
}

bool SamplerEngine::WaitIdle(absl::Time deadline) const {
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithDeadline(absl::Condition(this, &SamplerEngine::IsIdle), deadline);
}

int64_t SamplerEngine::queued_samples() const {
  absl::MutexLock lock(&mutex_);
  return queued_samples_;
}

}  // namespace boss::server
