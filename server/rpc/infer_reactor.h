// One ModelInfer call: gathers the samples of one request into its response.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <cstdint>
#include <memory>
#include <optional>

#include "inference/grpc_service.pb.h"
#include "server/rpc/access.h"
#include "server/rpc/infer_answer.h"
#include "server/rpc/infer_sink.h"

namespace boss::server {

// Lives until both gRPC and the engine have finished with it. What it holds is bounded by the response, and that by
// max_message_bytes.
class InferReactor final : public grpc::ServerUnaryReactor,
                           public InferSink,
                           public std::enable_shared_from_this<InferReactor> {
 public:
  // Returns the reactor of a new call, which keeps itself alive and is one of the open calls until gRPC is done with
  // it. `sampling` outlives it; gRPC keeps `response` until then.
  static InferReactor* Start(Sampling& sampling, Admission admission, int64_t max_message_bytes,
                             const inference::ModelInferRequest& request, absl::Time deadline, CallId call,
                             inference::ModelInferResponse& response);

  void OnCancel() override;
  void OnDone() override;

 private:
  InferReactor(Sampling& sampling, Admission admission, int64_t max_message_bytes, CallId call,
               inference::ModelInferResponse& response);

  int64_t SamplesTogether() const override { return request_.num_samples; }
  absl::Status Take(EncodedSample sample) override;
  void End(absl::Status status) override;

  Admission admission_;
  inference::ModelInferResponse& response_;
  std::shared_ptr<InferReactor> self_;  // until gRPC's OnDone
  std::optional<InferAnswer> answer_;   // from the first sample on
};

}  // namespace boss::server
