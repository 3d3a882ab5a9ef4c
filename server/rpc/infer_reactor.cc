#include "server/rpc/infer_reactor.h"

#include <utility>

#include "server/rpc/status.h"

namespace boss::server {

InferReactor::InferReactor(Sampling& sampling, int64_t max_message_bytes, inference::ModelInferResponse& response)
    : InferSink(sampling, max_message_bytes, "infer"), response_(response) {
  sampling_.open_calls().Add();
}

InferReactor* InferReactor::Start(Sampling& sampling, int64_t max_message_bytes,
                                  const inference::ModelInferRequest& request, absl::Time deadline,
                                  inference::ModelInferResponse& response) {
  const std::shared_ptr<InferReactor> reactor(new InferReactor(sampling, max_message_bytes, response));
  reactor->self_ = reactor;
  const absl::Status status = reactor->Submit(request, deadline, reactor);
  if (!status.ok()) reactor->Finish(ToGrpcStatus(status));
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
  if (status.ok()) answer_->Finish();
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
