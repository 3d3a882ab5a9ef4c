#include "server/rpc/infer_reactor.h"

#include <utility>

#include "server/rpc/status.h"

namespace boss::server {

InferReactor::InferReactor(Sampling& sampling, Admission admission, int64_t max_message_bytes, CallId call,
                           inference::ModelInferResponse& response)
    : InferSink(sampling, max_message_bytes, "infer", std::move(call)),
      admission_(std::move(admission)),
      response_(response) {
  sampling_.open_calls().Add();
}

InferReactor* InferReactor::Start(Sampling& sampling, Admission admission, int64_t max_message_bytes,
                                  const inference::ModelInferRequest& request, absl::Time deadline, CallId call,
                                  inference::ModelInferResponse& response) {
  const std::shared_ptr<InferReactor> reactor(
      new InferReactor(sampling, std::move(admission), max_message_bytes, std::move(call), response));
  reactor->self_ = reactor;
  const absl::Status status = reactor->Submit(request, deadline, reactor);
  if (!status.ok()) reactor->End(status);
  return reactor.get();
}

absl::Status InferReactor::Take(EncodedSample sample) {
  if (!answer_) answer_.emplace(infer_, accepted_, request_.num_samples, response_);
  const int64_t bytes = static_cast<int64_t>(sample.data.size());
  const int64_t index = sample.index;
  absl::Status status = answer_->Add(std::move(sample), index, max_message_bytes_);
  engine_call_.Consumed(bytes);
  return status;
}

void InferReactor::End(absl::Status status) {
  if (status.ok()) {
    answer_->Finish();
    sampling_.CountSent(response_.ByteSizeLong());
    sampling_.CountOutput(compute_end_);
  }
  admission_.Leave();
  Finish(ToGrpcStatus(status));
}

void InferReactor::OnCancel() { engine_call_.Cancel(absl::CancelledError("the client has gone")); }

void InferReactor::OnDone() {
  sampling_.open_calls().Remove();
  // The engine may still hold the sink; the last of both deletes it.
  const std::shared_ptr<InferReactor> self = std::move(self_);
  engine_call_.Release();
}

}  // namespace boss::server
