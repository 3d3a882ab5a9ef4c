// How far two tensors are from each other.
#pragma once

#include <ATen/core/Tensor.h>

namespace boss {

// The root mean square of all elements of a - b, which have the same shape; NaN if there are none. Summed in float64,
// some elements at a time, so that copies take a few MB. Throws what LibTorch throws.
double RootMeanSquare(const at::Tensor& a, const at::Tensor& b);

}  // namespace boss
