#include "server/rpc/generate_reactor.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "core/base/status_macros.h"
#include "server/rpc/convert_sampling.h"
#include "server/rpc/status.h"

namespace boss::server {
namespace {

int64_t DataBytes(const v1::GenerateResponse& response) {
  return static_cast<int64_t>(response.sample().data().size() + response.preview().data().size());
}

}  // namespace

void OpenCalls::Add() {
  absl::MutexLock lock(&mutex_);
  ++count_;
}

void OpenCalls::Remove() {
  absl::MutexLock lock(&mutex_);
  --count_;
}

void OpenCalls::WaitForNone(absl::Time deadline) const {
  absl::MutexLock lock(&mutex_);
  mutex_.AwaitWithDeadline(absl::Condition(this, &OpenCalls::IsOver), deadline);
}

void OpenCalls::StopWaiting() {
  absl::MutexLock lock(&mutex_);
  stopped_ = true;
}

GenerateReactor::GenerateReactor(const v1::GenerateRequest& request, OpenCalls& open, const Clock& clock)
    : requested_format_(request.output_format()), request_id_(request.request_id()), open_(open), clock_(clock) {
  open_.Add();
}

GenerateReactor* GenerateReactor::Start(DevicePool& devices, OpenCalls& open, const Clock& clock,
                                        const v1::GenerateRequest& request, absl::Time deadline, uint64_t chosen_seed) {
  const std::shared_ptr<GenerateReactor> reactor(new GenerateReactor(request, open, clock));
  reactor->self_ = reactor;
  reactor->Begin(devices, request, deadline, chosen_seed);
  return reactor.get();
}

void GenerateReactor::Begin(DevicePool& devices, const v1::GenerateRequest& request, absl::Time deadline,
                            uint64_t chosen_seed) {
  const auto submit = [&]() -> absl::StatusOr<std::shared_ptr<SampleHandle>> {
    BOSS_ASSIGN_OR_RETURN(request_, SampleRequestFromProto(request, deadline, chosen_seed));
    return devices.Submit(request_, shared_from_this());
  };
  const absl::StatusOr<std::shared_ptr<SampleHandle>> handle = submit();
  absl::Status cancel;
  {
    absl::MutexLock lock(&mutex_);
    if (!handle.ok()) {
      final_status_ = handle.status();
      Advance();
      return;
    }
    handle_ = *handle;
    if (cancelled_) cancel = absl::CancelledError("the client has gone");
  }
  if (!cancel.ok()) (*handle)->Cancel(cancel);
}

void GenerateReactor::OnAccepted(AcceptedRequest accepted) {
  v1::GenerateResponse response;
  *response.mutable_accepted() = ToProto(accepted, request_, clock_.Now());
  absl::MutexLock lock(&mutex_);
  Enqueue(std::move(response));
}

void GenerateReactor::OnProgress(SampleProgress progress) {
  v1::GenerateResponse response;
  *response.mutable_progress() = ToProto(progress);
  absl::MutexLock lock(&mutex_);
  if (!queue_.empty() && queue_.back().has_progress()) {
    queue_.back() = std::move(response);
  } else {
    Enqueue(std::move(response));
  }
}

void GenerateReactor::OnPreview(EncodedSample preview) {
  v1::GenerateResponse response;
  *response.mutable_preview() = PreviewToProto(std::move(preview), requested_format_);
  absl::MutexLock lock(&mutex_);
  Enqueue(std::move(response));
}

void GenerateReactor::OnSample(EncodedSample sample) {
  v1::GenerateResponse response;
  *response.mutable_sample() = SampleToProto(std::move(sample), requested_format_);
  absl::MutexLock lock(&mutex_);
  Enqueue(std::move(response));
}

void GenerateReactor::OnDone(absl::Status status, SampleSummary summary) {
  spdlog::info(
      "generate model={} samples={} seed={} status={} queue_seconds={:.3f} compute_seconds={:.3f} nfe={:.1f} "
      "request_id={}",
      request_.model, summary.num_samples, request_.seed, absl::StatusCodeToString(status.code()),
      absl::ToDoubleSeconds(summary.queue_time), absl::ToDoubleSeconds(summary.compute_time), summary.nfe, request_id_);
  absl::MutexLock lock(&mutex_);
  if (status.ok() && !request_.validate_only) {
    v1::GenerateResponse response;
    *response.mutable_summary() = ToProto(summary);
    queue_.push_back(std::move(response));
  } else if (!status.ok()) {
    queue_.clear();  // the client asks again for all of it, if at all
  }
  final_status_ = std::move(status);
  Advance();
}

void GenerateReactor::Enqueue(v1::GenerateResponse response) {
  queue_.push_back(std::move(response));
  Advance();
}

void GenerateReactor::Advance() {
  if (writing_ || finished_) return;
  if (!queue_.empty()) {
    current_ = std::move(queue_.front());
    queue_.pop_front();
    writing_ = true;
    StartWrite(&current_);
  } else if (final_status_) {
    finished_ = true;
    Finish(ToGrpcStatus(*final_status_));
  }
}

void GenerateReactor::OnWriteDone(bool ok) {
  const int64_t taken = DataBytes(current_);
  std::shared_ptr<SampleHandle> handle;
  {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    handle = handle_;
    if (!ok) queue_.clear();
    Advance();
  }
  if (!handle) return;
  if (ok) {
    handle->Consumed(taken);
  } else {
    handle->Cancel(absl::CancelledError("the stream is broken"));
  }
}

void GenerateReactor::OnCancel() {
  std::shared_ptr<SampleHandle> handle;
  {
    absl::MutexLock lock(&mutex_);
    cancelled_ = true;
    handle = handle_;
  }
  if (handle) handle->Cancel(absl::CancelledError("the client has gone"));
}

void GenerateReactor::OnDone() {
  open_.Remove();
  // The engine may still hold the sink; the last of both deletes it.
  const std::shared_ptr<GenerateReactor> self = std::move(self_);
  std::shared_ptr<SampleHandle> handle;
  absl::MutexLock lock(&mutex_);
  handle.swap(handle_);
}

}  // namespace boss::server
