#include "core/nets/prepared_convolution.h"

#include <ATen/ATen.h>
#include <ATen/core/List.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <optional>

namespace boss {
namespace {

constexpr int64_t kOnes[] = {1, 1};
constexpr int64_t kTypicalBatch = 16, kTypicalSide = 16;

// LibTorch's operators on oneDNN's packed weights have no C++ function; these are their schemas' types.
using Pack = at::Tensor(const at::Tensor& weight, c10::IntArrayRef padding, c10::IntArrayRef stride,
                        c10::IntArrayRef dilation, int64_t groups, c10::OptionalArrayRef<int64_t> input_size);
using Convolve = at::Tensor(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                            c10::IntArrayRef padding, c10::IntArrayRef stride, c10::IntArrayRef dilation,
                            int64_t groups, c10::string_view activation, c10::List<std::optional<at::Scalar>> scalars,
                            std::optional<c10::string_view> algorithm);

template <typename Signature>
c10::TypedOperatorHandle<Signature> Operator(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

}  // namespace

at::Tensor PrepareConvolutionWeight(const at::Tensor& weight, at::ScalarType dtype) {
  const at::Tensor copy = weight.to(dtype).contiguous(at::MemoryFormat::ChannelsLast);
  if (!weight.is_cpu() || !at::hasMKLDNN()) return copy;
  const int64_t padding[] = {weight.size(2) / 2, weight.size(3) / 2};
  // The layout is chosen for a typical input; oneDNN lays the weight out anew where another one needs it otherwise.
  const int64_t input[] = {kTypicalBatch, weight.size(1), kTypicalSide, kTypicalSide};
  return Operator<Pack>("mkldnn::_reorder_convolution_weight")
      .call(copy, padding, kOnes, kOnes, 1, c10::OptionalArrayRef<int64_t>(input));
}

at::Tensor PreparedConvolution(const at::Tensor& x, const at::Tensor& prepared, const at::Tensor& bias,
                               int64_t padding) {
  if (!prepared.is_mkldnn()) return at::conv2d(x, prepared, bias, /*stride=*/1, padding);
  const int64_t paddings[] = {padding, padding};
  const std::optional<at::Tensor> optional_bias = bias.defined() ? std::optional(bias) : std::nullopt;
  return Operator<Convolve>("mkldnn::_convolution_pointwise")
      .call(x, prepared, optional_bias, paddings, kOnes, kOnes, /*groups=*/1, "none",
            c10::List<std::optional<at::Scalar>>(), "");
}

bool SupportsBfloat16(at::Device device) {
  if (device.is_cuda()) return true;
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

}  // namespace boss
