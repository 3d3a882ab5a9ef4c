#include "server/rpc/sampling_call.h"

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "server/log/log.h"

namespace boss::server {

uint64_t Sampling::ChooseSeed() {
  absl::MutexLock lock(&mutex_);
  return absl::Uniform<uint32_t>(seeds_);
}

void Sampling::CountOutput(absl::Time compute_end) const {
  if (compute_end == absl::InfinitePast()) return;  // nothing was computed
  metrics_.output_seconds.Observe(absl::ToDoubleSeconds(clock_.Now() - compute_end));
}

absl::Status SamplingCall::Submit(Sampling& sampling, SampleRequest request, std::shared_ptr<SampleSink> sink) {
  BOSS_ASSIGN_OR_RETURN(const std::shared_ptr<SampleHandle> handle,
                        sampling.devices().Submit(std::move(request), std::move(sink)));
  absl::Status cancel;
  int64_t consumed = 0;
  {
    absl::MutexLock lock(&mutex_);
    if (!released_) {
      handle_ = handle;
      LimitTime(sampling, handle);
    }
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

void SamplingCall::LimitTime(const Sampling& sampling, const std::shared_ptr<SampleHandle>& handle) {
  const absl::Duration limit = sampling.max_request_time();
  if (limit == absl::InfiniteDuration()) return;
  // Weakly: an alarm keeps its function until it is destroyed, this call owns the alarm, and the handle's request owns
  // this call.
  const auto end = [weak_handle = std::weak_ptr<SampleHandle>(handle), limit](bool is_time) {
    const std::shared_ptr<SampleHandle> handle = weak_handle.lock();
    if (!is_time || !handle) return;  // the call has ended before
    handle->Cancel(absl::DeadlineExceededError(
        absl::StrCat("the server gives a request ", absl::FormatDuration(limit), ", and this one took longer")));
  };
  time_limit_.Set(absl::ToChronoTime(sampling.clock().Now() + limit), end);
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
  time_limit_.Cancel();
  handle.swap(handle_);
}

absl::Time DeadlineOf(const grpc::ServerContextBase& context) {
  const std::chrono::system_clock::time_point deadline = context.deadline();
  const bool has_deadline = deadline != std::chrono::system_clock::time_point::max();
  return has_deadline ? absl::FromChrono(deadline) : absl::InfiniteFuture();
}

void LogSampling(const char* rpc, const SampleRequest& request, std::string_view client_request_id,
                 const absl::Status& status, const SampleSummary& summary, const CallId& call) {
  // Longer ones, which nothing needs, would crowd out the rest.
  constexpr size_t kMaxLoggedId = 63;
  LogInfo(rpc,
          {{"model", request.model},
           {"samples", summary.num_samples},
           {"seed", request.seed},
           {"code", absl::StatusCodeToString(status.code())},
           {"queue_seconds", summary.queue_time},
           {"compute_seconds", summary.compute_time},
           {"nfe", summary.nfe},
           {"error", status.message()},
           {"client_request_id", client_request_id.substr(0, kMaxLoggedId)}},
          call);
}

}  // namespace boss::server
