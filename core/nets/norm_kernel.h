// Group norm of channels-last images, with what stands before and after it in the networks, in one operation.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace boss {

struct NormOptions {
  int64_t groups = 1;  // divides the channels
  double eps = 1e-6;
  bool activate = false;  // swish of the result
};

// group_norm(x + offset) weight + bias, or the swish of it. x: [B, C, H, W] float32 or bfloat16 on the CPU,
// channels-last; offset: [B, C] float32 or undefined for none; weight, bias: [C] float32. The result is as x. Sums are
// float32, of the deviations from the mean (two passes). No gradients. LibTorch's own kernel is many times slower in
// this layout.
at::Tensor ChannelsLastNorm(const at::Tensor& x, const at::Tensor& offset, const at::Tensor& weight,
                            const at::Tensor& bias, const NormOptions& options);

}  // namespace boss
