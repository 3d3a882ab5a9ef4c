#include "server/rpc/sampling_call.h"

#include <spdlog/spdlog.h>

#include <chrono>
#include <utility>

#include "core/base/status_macros.h"

namespace boss::server {

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

uint64_t Sampling::ChooseSeed() {
  absl::MutexLock lock(&mutex_);
  return absl::Uniform<uint32_t>(seeds_);
}

absl::Status SamplingCall::Submit(Sampling& sampling, SampleRequest request, std::shared_ptr<SampleSink> sink) {
  BOSS_ASSIGN_OR_RETURN(const std::shared_ptr<SampleHandle> handle,
                        sampling.devices().Submit(std::move(request), std::move(sink)));
  absl::Status cancel;
  int64_t consumed = 0;
  {
    absl::MutexLock lock(&mutex_);
    if (!released_) handle_ = handle;
    cancel = cancelled_;
    std::swap(consumed, consumed_);
  }
  if (!cancel.ok()) {
    handle->Cancel(cancel);
  } else if (consumed > 0) {
    handle->Consumed(consumed);
  }
  return absl::OkStatus();
}

void SamplingCall::Cancel(absl::Status reason) {
  std::shared_ptr<SampleHandle> handle;
  {
    absl::MutexLock lock(&mutex_);
    if (cancelled_.ok()) cancelled_ = reason;
    handle = handle_;
  }
  if (handle) handle->Cancel(std::move(reason));
}

void SamplingCall::Consumed(int64_t bytes) {
  std::shared_ptr<SampleHandle> handle;
  {
    absl::MutexLock lock(&mutex_);
    if (!handle_) consumed_ += bytes;
    handle = handle_;
  }
  if (handle) handle->Consumed(bytes);
}

void SamplingCall::Release() {
  std::shared_ptr<SampleHandle> handle;
  absl::MutexLock lock(&mutex_);
  released_ = true;
  handle.swap(handle_);
}

absl::Time DeadlineOf(const grpc::ServerContextBase& context) {
  const std::chrono::system_clock::time_point deadline = context.deadline();
  const bool has_deadline = deadline != std::chrono::system_clock::time_point::max();
  return has_deadline ? absl::FromChrono(deadline) : absl::InfiniteFuture();
}

void LogSampling(std::string_view rpc, const SampleRequest& request, std::string_view request_id,
                 const absl::Status& status, const SampleSummary& summary) {
  spdlog::info(
      "{} model={} samples={} seed={} status={} queue_seconds={:.3f} compute_seconds={:.3f} nfe={:.1f} request_id={}",
      rpc, request.model, summary.num_samples, request.seed, absl::StatusCodeToString(status.code()),
      absl::ToDoubleSeconds(summary.queue_time), absl::ToDoubleSeconds(summary.compute_time), summary.nfe, request_id);
}

}  // namespace boss::server
