// Convolutions of evaluations without gradients, with weights that were laid out beforehand.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace boss {

// weight: [out, in, K, K] float32. A copy in `dtype` in channels-last order; on the CPU, where oneDNN is there, in the
// opaque layout that oneDNN computes with.
at::Tensor PrepareConvolutionWeight(const at::Tensor& weight, at::ScalarType dtype);

// The convolution with stride 1 and 'same' padding of x [B, in, H, W], channels-last, in the weight's dtype. `prepared`
// is from PrepareConvolutionWeight, `bias` [out] of the same dtype, or undefined for none. The result is channels-last.
at::Tensor PreparedConvolution(const at::Tensor& x, const at::Tensor& prepared, const at::Tensor& bias,
                               int64_t padding);

// Whether bfloat16 is a dtype that the device computes convolutions with, not one that is emulated.
bool SupportsBfloat16(at::Device device);

}  // namespace boss
