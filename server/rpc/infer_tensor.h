// The tensors and parameters of the Open Inference Protocol, as values. Everything in them comes from a client.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "boss/v1/models.pb.h"
#include "inference/grpc_service.pb.h"

namespace boss::server {

// An input and where its elements are. Points into the request.
struct InferTensor {
  const inference::ModelInferRequest::InferInputTensor* input = nullptr;
  const std::string* raw = nullptr;  // its raw_input_contents; null: in input->contents

  const std::string& name() const { return input->name(); }
  const std::string& datatype() const { return input->datatype(); }
};

// The request's inputs. \error INVALID_ARGUMENT if contents and raw_input_contents are mixed, if there is not one of
// the latter for each input, or if two inputs have one name.
absl::StatusOr<std::vector<InferTensor>> TensorsOf(const inference::ModelInferRequest& request);

// The elements. All: \error INVALID_ARGUMENT with the tensor's name for a datatype that is not one of those named, a
// shape that has a negative dimension, or another number of elements than the shape says.
// INT32, INT64, UINT32 or UINT64. \error also for one above 2^63 - 1.
absl::StatusOr<std::vector<int64_t>> ReadIntegers(const InferTensor& tensor);
// FP32 or FP64.
absl::StatusOr<std::vector<double>> ReadReals(const InferTensor& tensor);
// FP32, FP64, FP16, BF16, INT64 or UINT8; FP16 and BF16 in raw_input_contents alone.
absl::StatusOr<v1::Tensor> ReadTensor(const InferTensor& tensor);

// One value: a parameter, or an input of one element whatever its shape.
using InferScalar = std::variant<bool, int64_t, uint64_t, double, std::string>;
// INT32, INT64, UINT32, UINT64, FP32, FP64, BOOL or BYTES. \error also for another number of elements than one.
absl::StatusOr<InferScalar> ReadScalar(const InferTensor& tensor);
// \error INVALID_ARGUMENT with `name` if it has no value.
absl::StatusOr<InferScalar> ScalarFromProto(std::string_view name, const inference::InferParameter& parameter);

// As raw contents carry elements of BYTES: each behind its length in 4 bytes, little-endian.
// \pre each element is shorter than 4 GiB.
std::string WithLengths(absl::Span<const std::string> elements);

}  // namespace boss::server
