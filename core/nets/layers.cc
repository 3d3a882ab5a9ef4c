#include "core/nets/layers.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/nets/norm_kernel.h"
#include "core/nets/prepared_convolution.h"

namespace boss {
namespace {

using Kind = ParameterStore::Kind;

constexpr double kNormEps = 1e-6;

// The FIR kernel [1, 3, 3, 1] x [1, 3, 3, 1] with the sum `gain`, one copy a channel: [channels, 1, 4, 4].
at::Tensor FirKernel(int64_t channels, double gain, const at::Tensor& like) {
  // [1, 3, 3, 1] / 8, made on the device: a copy from the host could not be recorded in a CUDA graph.
  const at::Tensor line = (4 - 2 * (at::arange(4, like.options()) - 1.5).abs()) / 8;
  return (at::outer(line, line) * gain).expand({channels, 1, 4, 4}).contiguous();
}

// CUDA's own kernels know the layout.
bool UsesNormKernel(const ParameterStore& store, const at::Tensor& x) { return store.UsesPrepared() && x.is_cpu(); }

at::Tensor AddResidual(const at::Tensor& x, const at::Tensor& h, bool rescale) {
  const at::Tensor sum = x + h;
  return rescale ? sum.div_(std::numbers::sqrt2) : sum;
}

// y += scale h b^T over the last dimension, in place.
void AddProduct(const at::Tensor& y, const at::Tensor& h, const at::Tensor& b_transposed, double scale) {
  if (y.is_contiguous()) {
    y.view({-1, y.size(-1)}).addmm_(h.reshape({-1, h.size(-1)}), b_transposed, 1, scale);
  } else {
    y.add_(at::matmul(h, b_transposed), scale);
  }
}

// W x + bias and the delta of W, apart.
at::Tensor LinearWithDelta(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const ParameterStore::Delta& delta) {
  at::Tensor y = at::linear(x, weight, bias);
  AddProduct(y, at::linear(x, delta.a), delta.b.t(), delta.scale);
  return y;
}

// The delta of a convolution: one to `rank` channels, then a linear map of those.
void AddConvolutionDelta(const at::Tensor& y, const at::Tensor& h, const ParameterStore::Delta& delta) {
  AddProduct(y.permute({0, 2, 3, 1}), h.permute({0, 2, 3, 1}), delta.b.t(), delta.scale);
}

}  // namespace

LayerBuilder::LayerBuilder(ParameterStore& store, std::optional<uint64_t> seed, int64_t max_weights)
    : store(store),
      generator(at::detail::createCPUGenerator(seed.value_or(0))),
      draws_(seed.has_value()),
      max_weights_(max_weights),
      weights_left_(max_weights) {}

void LayerBuilder::Reserve(at::IntArrayRef shape) {
  int64_t weights = 1;
  bool fit = true;
  for (const int64_t size : shape) fit = !__builtin_mul_overflow(weights, size, &weights) && fit;
  TORCH_CHECK_VALUE(fit && weights <= weights_left_, "the network has more than ", max_weights_, " weights");
  weights_left_ -= weights;
}

at::Tensor LayerBuilder::VarianceScaling(at::IntArrayRef shape, double fan_in, double fan_out, double scale) {
  Reserve(shape);
  if (!draws_) return at::empty(shape);
  const double variance = (scale == 0 ? 1e-10 : scale) / ((fan_in + fan_out) / 2);
  return at::rand(shape, generator).mul_(2).sub_(1).mul_(std::sqrt(3 * variance));
}

at::Tensor LayerBuilder::Normal(at::IntArrayRef shape, double standard_deviation) {
  Reserve(shape);
  if (!draws_) return at::empty(shape);
  return at::randn(shape, generator).mul_(standard_deviation);
}

Linear Linear::Build(LayerBuilder& builder, const std::string& name, int64_t in, int64_t out, double scale) {
  Linear linear;
  linear.weight = builder.store.Add(name + ".weight", builder.VarianceScaling({out, in}, in, out, scale), Kind::kAdaptable);
  linear.bias = builder.store.Add(name + ".bias", at::zeros({out}), Kind::kParameter);
  return linear;
}

at::Tensor Linear::operator()(const ParameterStore& store, const at::Tensor& x) const {
  if (store.HasDelta(weight)) return LinearWithDelta(x, store.Value(weight), store.Weight(bias), store.FloatDelta(weight));
  return at::linear(x, store.Weight(weight), store.Weight(bias));
}

at::Tensor Linear::OnTokens(const ParameterStore& store, const at::Tensor& tokens) const {
  if (!store.HasDelta(weight)) return at::linear(tokens, store.Compute(weight), store.Compute(bias));
  return LinearWithDelta(tokens, store.ComputeValue(weight), store.Compute(bias), store.ComputeDelta(weight));
}

Conv Conv::Build(LayerBuilder& builder, const std::string& name, int64_t in, int64_t out, int64_t kernel, double scale) {
  Conv conv;
  const double area = static_cast<double>(kernel * kernel);
  conv.weight = builder.store.Add(name + ".weight", builder.VarianceScaling({out, in, kernel, kernel}, in * area, out * area, scale),
                                  Kind::kAdaptable);
  conv.bias = builder.store.Add(name + ".bias", at::zeros({out}), Kind::kParameter);
  conv.padding = kernel / 2;
  return conv;
}

at::Tensor Conv::operator()(const ParameterStore& store, const at::Tensor& x) const {
  const bool has_delta = store.HasDelta(weight);
  if (store.UsesPrepared()) {
    at::Tensor y = PreparedConvolution(x, store.Prepared(weight), store.Prepared(bias), padding);
    if (!has_delta) return y;
    const ParameterStore::Delta delta = store.ComputeDelta(weight);
    AddConvolutionDelta(y, PreparedConvolution(x, delta.a, /*bias=*/{}, padding), delta);
    return y;
  }
  if (has_delta) {
    at::Tensor y = at::conv2d(x, store.Value(weight), store.Weight(bias), /*stride=*/1, padding);
    const ParameterStore::Delta delta = store.ComputeDelta(weight);
    AddConvolutionDelta(y, at::conv2d(x, delta.a, /*bias=*/{}, /*stride=*/1, padding), delta);
    return y;
  }
  return at::conv2d(x, store.Weight(weight), store.Weight(bias), /*stride=*/1, padding);
}

int64_t NumGroups(int64_t channels) { return std::min<int64_t>(channels / 4, 32); }

GroupNorm GroupNorm::Build(LayerBuilder& builder, const std::string& name, int64_t channels) {
  GroupNorm norm;
  norm.weight = builder.store.Add(name + ".weight", at::ones({channels}), Kind::kParameter);
  norm.bias = builder.store.Add(name + ".bias", at::zeros({channels}), Kind::kParameter);
  norm.groups = NumGroups(channels);
  return norm;
}

at::Tensor GroupNorm::operator()(const ParameterStore& store, const at::Tensor& x) const {
  if (UsesNormKernel(store, x)) {
    return ChannelsLastNorm(x, {}, store.Weight(weight), store.Weight(bias), {.groups = groups, .eps = kNormEps});
  }
  return at::group_norm(x, groups, store.Compute(weight), store.Compute(bias), kNormEps);
}

at::Tensor GroupNorm::Activated(const ParameterStore& store, const at::Tensor& x, const at::Tensor& offset) const {
  if (UsesNormKernel(store, x)) {
    return ChannelsLastNorm(x, offset, store.Weight(weight), store.Weight(bias),
                            {.groups = groups, .eps = kNormEps, .activate = true});
  }
  const at::Tensor sum = offset.defined() ? x + offset.to(x.scalar_type()).unsqueeze(2).unsqueeze(3) : x;
  at::Tensor normalized = (*this)(store, sum);
  return at::GradMode::is_enabled() ? at::silu(normalized) : at::silu_(normalized);
}

Nin Nin::Build(LayerBuilder& builder, const std::string& name, int64_t in, int64_t out, double scale) {
  Nin nin;
  nin.weight = builder.store.Add(name + ".W", builder.VarianceScaling({in, out}, in, out, scale), Kind::kAdaptable);
  nin.bias = builder.store.Add(name + ".b", at::zeros({out}), Kind::kParameter);
  return nin;
}

at::Tensor Nin::operator()(const ParameterStore& store, const at::Tensor& tokens) const {
  if (store.HasDelta(weight)) {
    // Here y = x W, and so x (W + scale b a).
    const ParameterStore::Delta delta = store.ComputeDelta(weight);
    at::Tensor y = at::linear(tokens, store.ComputeValue(weight).t(), store.Compute(bias));
    AddProduct(y, at::matmul(tokens, delta.b), delta.a, delta.scale);
    return y;
  }
  return at::linear(tokens, store.Compute(weight).t(), store.Compute(bias));
}

Attention Attention::Build(LayerBuilder& builder, const std::string& name, int64_t channels, bool skip_rescale) {
  Attention attention;
  attention.norm = GroupNorm::Build(builder, name + ".GroupNorm_0", channels);
  attention.query = Nin::Build(builder, name + ".NIN_0", channels, channels, 0.1);
  attention.key = Nin::Build(builder, name + ".NIN_1", channels, channels, 0.1);
  attention.value = Nin::Build(builder, name + ".NIN_2", channels, channels, 0.1);
  attention.output = Nin::Build(builder, name + ".NIN_3", channels, channels, 0.0);
  attention.skip_rescale = skip_rescale;
  return attention;
}

at::Tensor Attention::operator()(const ParameterStore& store, const at::Tensor& x) const {
  const int64_t batch = x.size(0), channels = x.size(1);
  const at::Tensor tokens = norm(store, x).flatten(2).transpose(1, 2);  // [B, H W, C]
  const at::Tensor attended =
      at::scaled_dot_product_attention(query(store, tokens).unsqueeze(1), key(store, tokens).unsqueeze(1), value(store, tokens).unsqueeze(1));
  const at::Tensor h = output(store, attended.squeeze(1)).transpose(1, 2).reshape({batch, channels, x.size(2), x.size(3)});
  return AddResidual(x, h, skip_rescale);
}

at::Tensor ApplyResample(const at::Tensor& x, Resample resample, bool fir) {
  const int64_t channels = x.size(1);
  switch (resample) {
    case Resample::kNone:
      return x;
    case Resample::kUp:
      if (!fir) return at::upsample_nearest2d(x, {2 * x.size(2), 2 * x.size(3)});
      // Zero-insertion by 2, padding (2, 1) and the filter are a transposed convolution with padding 1.
      return at::conv_transpose2d(x, FirKernel(channels, 4.0, x), {}, /*stride=*/2, /*padding=*/1, /*output_padding=*/0, /*groups=*/channels);
    case Resample::kDown:
      if (!fir) return at::avg_pool2d(x, 2);
      return at::conv2d(x, FirKernel(channels, 1.0, x), {}, /*stride=*/2, /*padding=*/1, /*dilation=*/1, /*groups=*/channels);
  }
  return x;
}

ResBlock ResBlock::Build(LayerBuilder& builder, const std::string& name, const Options& options) {
  ResBlock block;
  block.norm_0 = GroupNorm::Build(builder, name + ".GroupNorm_0", options.in);
  block.conv_0 = Conv::Build(builder, name + ".Conv_0", options.in, options.out, 3);
  block.time_projection = Linear::Build(builder, name + ".Dense_0", options.embedding, options.out);
  block.norm_1 = GroupNorm::Build(builder, name + ".GroupNorm_1", options.out);
  block.conv_1 = Conv::Build(builder, name + ".Conv_1", options.out, options.out, 3, 0.0);
  block.has_shortcut = options.in != options.out || options.resample != Resample::kNone;
  if (block.has_shortcut) block.shortcut = Conv::Build(builder, name + ".Conv_2", options.in, options.out, 1);
  block.resample = options.resample;
  block.fir = options.fir;
  block.skip_rescale = options.skip_rescale;
  return block;
}

at::Tensor ResBlock::operator()(const ParameterStore& store, const at::Tensor& x, const at::Tensor& activated_embedding) const {
  at::Tensor h = ApplyResample(norm_0.Activated(store, x), resample, fir);
  at::Tensor skip = ApplyResample(x, resample, fir);
  h = norm_1.Activated(store, conv_0(store, h), time_projection(store, activated_embedding));
  h = conv_1(store, h);
  if (has_shortcut) skip = shortcut(store, skip);
  return AddResidual(skip, h, skip_rescale);
}

}  // namespace boss
