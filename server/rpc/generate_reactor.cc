#include "server/rpc/generate_reactor.h"

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

GenerateReactor::GenerateReactor(Sampling& sampling, Admission admission, const v1::GenerateRequest& request,
                                 CallId call)
    : requested_format_(request.output_format()),
      client_request_id_(request.request_id()),
      call_(std::move(call)),
      sampling_(sampling),
      admission_(std::move(admission)) {
  sampling_.open_calls().Add();
}

GenerateReactor* GenerateReactor::Start(Sampling& sampling, Admission admission, const v1::GenerateRequest& request,
                                        absl::Time deadline, CallId call) {
  const std::shared_ptr<GenerateReactor> reactor(
      new GenerateReactor(sampling, std::move(admission), request, std::move(call)));
  reactor->self_ = reactor;
  reactor->Begin(request, deadline);
  return reactor.get();
}

void GenerateReactor::Begin(const v1::GenerateRequest& request, absl::Time deadline) {
  const auto submit = [&]() -> absl::Status {
    BOSS_ASSIGN_OR_RETURN(request_, SampleRequestFromProto(request, deadline, sampling_.ChooseSeed()));
    return engine_call_.Submit(sampling_, request_, shared_from_this());
  };
  if (absl::Status status = submit(); !status.ok()) {
    absl::MutexLock lock(&mutex_);
    final_status_ = std::move(status);
    Advance();
  }
}

void GenerateReactor::OnAccepted(AcceptedRequest accepted) {
  v1::GenerateResponse response;
  *response.mutable_accepted() = ToProto(accepted, request_, sampling_.clock().Now());
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
  LogSampling("generate", request_, client_request_id_, status, summary, call_);
  absl::MutexLock lock(&mutex_);
  if (status.ok() && !request_.validate_only) {
    v1::GenerateResponse response;
    *response.mutable_summary() = ToProto(summary);
    compute_end_ = summary.compute_end;
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
    if (current_.has_summary()) sampling_.CountOutput(compute_end_);
    StartWrite(&current_);
  } else if (final_status_) {
    finished_ = true;
    admission_.Leave();
    Finish(ToGrpcStatus(*final_status_));
  }
}

void GenerateReactor::OnWriteDone(bool ok) {
  const int64_t taken = DataBytes(current_);
  if (ok) sampling_.CountSent(current_.ByteSizeLong());
  {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    if (!ok) queue_.clear();
    Advance();
  }
  if (ok) {
    engine_call_.Consumed(taken);
  } else {
    engine_call_.Cancel(absl::CancelledError("the stream is broken"));
  }
}

void GenerateReactor::OnCancel() { engine_call_.Cancel(absl::CancelledError("the client has gone")); }

void GenerateReactor::OnDone() {
  sampling_.open_calls().Remove();
  // The engine may still hold the sink; the last of both deletes it.
  const std::shared_ptr<GenerateReactor> self = std::move(self_);
  engine_call_.Release();
}

}  // namespace boss::server
