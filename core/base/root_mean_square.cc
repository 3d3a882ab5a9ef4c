#include "core/base/root_mean_square.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace boss {
namespace {

constexpr int64_t kChunk = int64_t{1} << 18;

}  // namespace

double RootMeanSquare(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor elements = a.reshape({-1}), others = b.reshape({-1});
  const int64_t count = elements.size(0);
  double sum = 0;
  for (int64_t begin = 0; begin < count; begin += kChunk) {
    const int64_t end = std::min(begin + kChunk, count);
    const at::Tensor difference =
        elements.slice(0, begin, end).to(at::kDouble) - others.slice(0, begin, end).to(a.device(), at::kDouble);
    sum += difference.square().sum().item<double>();
  }
  return std::sqrt(sum / static_cast<double>(count));
}

}  // namespace boss
