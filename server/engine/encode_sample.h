// From a sample's values to the bytes that a client gets.
#pragma once

#include <ATen/core/Tensor.h>

#include "absl/status/statusor.h"
#include "server/engine/sample_request.h"

namespace boss::server {

// `sample`: one sample without the batch dimension, float32 on the CPU. Fills in shape, format and data. Thread-safe.
// \error INVALID_ARGUMENT if the sample's shape does not suit `format`.
absl::StatusOr<EncodedSample> EncodeSample(const at::Tensor& sample, SampleFormat format);

}  // namespace boss::server
