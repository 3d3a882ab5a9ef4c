// Any message as a request of the Open Inference Protocol. What is taken asks for samples, and its tensors have the
// bytes that their shapes say.
#include <cstdint>
#include <string>

#include "inference/grpc_service.pb.h"
#include "server/rpc/convert_inference.h"
#include "server/rpc/infer_tensor.h"
#include "tests/fuzz/check.h"

namespace boss::server {
namespace {

using boss::testing::FuzzCheck;

void CheckTensor(const v1::Tensor& tensor) {
  static constexpr uint64_t kWidths[] = {0, 4, 8, 2, 2, 8, 1};
  FuzzCheck(tensor.dtype() > 0 && tensor.dtype() < 7, "a tensor without a datatype");
  uint64_t bytes = kWidths[tensor.dtype()];
  for (const int64_t size : tensor.shape()) bytes *= static_cast<uint64_t>(size);
  FuzzCheck(bytes == tensor.data().size(), "a tensor has other bytes than its shape says");
}

}  // namespace
}  // namespace boss::server

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace boss::server;
  using boss::testing::FuzzCheck;
  inference::ModelInferRequest request;
  if (!request.ParseFromArray(data, static_cast<int>(size))) return 0;
  const auto call = InferCallFromProto(request);
  if (!call.ok()) {
    boss::testing::FuzzCheckError(call.status(), absl::StatusCode::kInvalidArgument, absl::StatusCode::kUnimplemented);
    return 0;
  }
  FuzzCheck(!call->generate.model().empty(), "no model");
  FuzzCheck(call->generate.num_samples() >= 1, "no samples");
  FuzzCheck(!call->outputs.empty(), "no outputs");
  FuzzCheck(call->generate.output_format() != boss::v1::OUTPUT_FORMAT_UNSPECIFIED, "no format");
  if (call->generate.has_initial_noise()) CheckTensor(call->generate.initial_noise());
  for (const auto* tensors : {&call->generate.conditions(), &call->generate.negative_conditions()}) {
    for (const auto& [name, tensor] : *tensors) CheckTensor(tensor);
  }
  return 0;
}
