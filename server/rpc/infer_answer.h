// From samples to a response of the Open Inference Protocol.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "inference/grpc_service.pb.h"
#include "server/engine/sample_request.h"
#include "server/rpc/convert_inference.h"

namespace boss::server {

// The last response of a request on a stream has this parameter, a boolean that is true.
inline constexpr char kFinalResponse[] = "triton_final_response";

// Builds one response. Samples come in any order; each is copied once, into its place in the message, and the only one
// of a message not at all where the message holds bytes. Not thread-safe. `call` and `accepted` outlive it.
class InferAnswer {
 public:
  // Of `num_samples` samples.
  InferAnswer(const InferCall& call, const AcceptedRequest& accepted, int64_t num_samples,
              inference::ModelInferResponse& response);

  // The sample at `place` of the response, each place once. \error INVALID_ARGUMENT if the response gets larger than
  // `max_bytes`: then it must not be used.
  absl::Status Add(EncodedSample sample, int64_t place, int64_t max_bytes);
  // After all samples.
  void Finish();

 private:
  void Place(const EncodedSample& sample, int64_t place);

  const InferCall& call_;
  const AcceptedRequest& accepted_;
  const int64_t num_samples_;
  inference::ModelInferResponse& response_;
  bool has_samples_ = false;  // among the outputs

  SampleFormat format_ = SampleFormat::kFloat32;
  std::vector<int64_t> shape_;  // of one sample; empty before the first
  int64_t bytes_ = 0;
  std::vector<uint64_t> seeds_;
  std::vector<std::string> files_;           // kPng
  std::string data_;                         // kFloat32 and kUint8, raw
  inference::InferTensorContents contents_;  // kFloat32 and kUint8, not raw
};

// What names the request that a response is about: model, version and id.
void NameRequest(const InferCall& call, const AcceptedRequest& accepted, inference::ModelInferResponse& response);

// INVALID_ARGUMENT: samples of so many bytes are more than one message may carry.
absl::Status TooLargeForOneMessage(int64_t bytes, int64_t max_bytes);

}  // namespace boss::server
