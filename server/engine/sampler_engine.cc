#include "server/engine/sampler_engine.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/error_details.h"
#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"
#include "core/flow/noise.h"
#include "server/engine/encode_sample.h"
#include "server/engine/open_request.h"

namespace boss::server {
namespace {

constexpr absl::Duration kDeadlineSlack = absl::Milliseconds(100);

}  // namespace

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
    UpdateLaneGauges();
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
  absl::StatusOr<ResolvedRequest> resolved = GuardTorch("preparing the request", [&] {
    return ResolveRequest(request->request, *std::move(model), store_, options_.limits);
  });
  if (!resolved.ok()) return Finish(request, resolved.status());
  AcceptedRequest accepted = resolved->accepted;
  const bool validate_only = request->request.validate_only;
  {
    absl::MutexLock lock(&mutex_);
    if (request->phase == Request::Phase::kDone) return;
    accepted.requests_before = static_cast<int64_t>(active_.size());
    request->accept_time = clock_.Now();
    if (!validate_only) {
      Activate(request, *std::move(resolved));
      EnsureUnit();
    }
  }
  // What the request's steps bring comes later on this strand.
  request->sink->OnAccepted(std::move(accepted));
  if (validate_only) Finish(request, absl::OkStatus());
}

void SamplerEngine::Activate(const RequestPtr& request, ResolvedRequest resolved) {
  request->resolved = std::move(resolved);
  const ResolvedRequest& constant = *request->resolved;
  request->summary.device = at::Device(worker_.device()).str();
  request->phase = Request::Phase::kActive;
  request->virtual_time = virtual_time_;
  const bool by_itself = constant.solver.solver == SolverKind::kRk45 || request->request.deterministic;
  if (by_itself) {
    request->task.emplace(request->request, constant, options_.max_batch);
  } else {
    request->progress.total_solver_steps = constant.accepted.steps * request->request.num_samples;
    std::unique_ptr<Group>& group = groups_[constant.model.get()];
    if (group == nullptr) group = std::make_unique<Group>(constant.model, options_.max_lanes, virtual_time_);
    request->group = group.get();
    group->requests.push_back(request);
  }
  active_.push_back(request);
}

void SamplerEngine::Deliver(const RequestPtr& request, SampleBatch batch, bool is_preview) {
  {
    // Counted in full size until it is encoded.
    absl::MutexLock lock(&mutex_);
    request->unread_bytes += static_cast<int64_t>(batch.x.nbytes());
  }
  request->strand.Post([this, request, batch = std::move(batch), is_preview] { Encode(request, batch, is_preview); });
}

void SamplerEngine::PostProgress(const RequestPtr& request) {
  absl::MutexLock lock(&mutex_);
  if (std::exchange(request->progress_posted, true)) return;
  request->strand.Post([this, request] { SendProgress(request); });
}

void SamplerEngine::Encode(const RequestPtr& request, const SampleBatch& batch, bool is_preview) {
  if (request->abandoned) return;
  const absl::Time start = clock_.Now();
  const ResolvedRequest& resolved = *request->resolved;
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
    encoded->index = batch.indices[static_cast<size_t>(i)];
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
  LeaveGroup(request);
  UpdateLaneGauges();
  CountEnd(*request, status);
  if (request->start_time) metrics_.compute_seconds.Observe(absl::ToDoubleSeconds(request->device_time));
  if (!status.ok()) request->abandoned = true;
  request->strand.Post([this, request, status = std::move(status)] {
    request->sink->OnDone(request->output_error.ok() ? status : request->output_error, request->summary);
    // Whoever keeps a handle keeps no model.
    request->task.reset();
    request->resolved.reset();
    absl::MutexLock lock(&mutex_);
    open_.erase(request);
  });
}

void SamplerEngine::CountEnd(const Request& request, const absl::Status& status) const {
  if (status.ok()) return;
  // A client whose deadline has passed cancels, and is a little ahead of the server's clock.
  const bool is_late = absl::IsCancelled(status) && request.request.deadline <= clock_.Now() + kDeadlineSlack;
  if (absl::IsDeadlineExceeded(status) || is_late) {
    metrics_.expired_requests.Add(1);
  } else if (absl::IsCancelled(status)) {
    metrics_.cancelled_requests.Add(1);
  } else if (absl::IsUnavailable(request.stop)) {
    metrics_.stopped_requests.Add(1);
  } else {
    metrics_.failed_requests.Add(1);
  }
}

void SamplerEngine::LeaveGroup(const RequestPtr& request) {
  Group* const group = std::exchange(request->group, nullptr);
  if (group == nullptr) return;
  for (const auto& lane : request->lanes) group->lanes.ReturnSlot(lane->slot);
  request->lanes.clear();
  std::erase(group->requests, request);
  // A group in a unit has a request in it, which leaves after the unit.
  if (group->requests.empty()) groups_.erase(&group->lanes.model());
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
