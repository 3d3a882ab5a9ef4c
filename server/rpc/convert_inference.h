// inference/grpc_service.proto -> boss/v1/sampling.proto: what a request of the Open Inference Protocol asks for.
// docs/inference-protocol.md lists the inputs, outputs and parameters.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "boss/v1/sampling.pb.h"
#include "inference/grpc_service.pb.h"

namespace boss::server {

enum class InferOutput {
  kSamples,   // "samples"
  kSeeds,     // "seeds": UINT64, one a sample
  kTimeGrid,  // "time_grid": FP64, K + 1 of them; none for rk45
};

// A request that samples, and how it is to be answered.
struct InferCall {
  v1::GenerateRequest generate;  // its output_format is never OUTPUT_FORMAT_UNSPECIFIED
  std::string id;
  std::vector<InferOutput> outputs;                   // in this order; never empty
  bool raw = true;                                    // raw_output_contents rather than contents
  bool empty_final_response = false;                  // of a stream: a response without outputs is the last one
  absl::Duration timeout = absl::InfiniteDuration();  // from the request's arrival
};

// NAME or NAME@VERSION of a model and a version as the protocol names them. \error INVALID_ARGUMENT if a version is
// given and the name has one already.
absl::StatusOr<std::string> ModelReference(const std::string& name, const std::string& version);

// \error INVALID_ARGUMENT with the name of the input, output or parameter. What boss/v1 checks is checked there.
absl::StatusOr<InferCall> InferCallFromProto(const inference::ModelInferRequest& proto);

// The inputs and outputs of ModelMetadata.
void AddTensorMetadata(const v1::Model& model, inference::ModelMetadataResponse& response);

}  // namespace boss::server
