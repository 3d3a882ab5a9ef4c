// Layers of the networks: each knows the indices of its weights in a ParameterStore and how to compute with them.
//
// Where the store's weights are prepared (ParameterStore::UsesPrepared), images are channels-last and of the prepared dtype, Nin's
// tokens too; what depends on the time alone (Linear) is float32 always, as 999 t has more digits than bfloat16.
//
// Every layer adds the delta of an adapter apart from its weight where the store asks for it (ParameterStore::HasDelta).
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <limits>
#include <optional>
#include <string>

#include "core/nets/parameter_store.h"

namespace boss {

inline constexpr int64_t kUnlimitedWeights = std::numeric_limits<int64_t>::max();

// Adds weights to a store while a network is built. Weights are initialised by variance scaling (fan average, uniform), as in the reference
// implementation of score-based models; scale 0 stands for 1e-10.
class LayerBuilder {
 public:
  // Without a seed nothing is drawn, and weights have undefined values: no memory is touched before they are loaded.
  // `max_weights`: how many weights there may be; c10::ValueError is thrown before there are more.
  LayerBuilder(ParameterStore& store, std::optional<uint64_t> seed, int64_t max_weights = kUnlimitedWeights);
  // Uniform with the variance scale / ((fan_in + fan_out) / 2).
  at::Tensor VarianceScaling(at::IntArrayRef shape, double fan_in, double fan_out, double scale);
  at::Tensor Normal(at::IntArrayRef shape, double standard_deviation);

  ParameterStore& store;
  at::Generator generator;

 private:
  void Reserve(at::IntArrayRef shape);

  const bool draws_;
  const int64_t max_weights_;
  int64_t weights_left_;
};

// y = W x + b over the last dimension; W [out, in].
struct Linear {
  int weight = -1, bias = -1;
  static Linear Build(LayerBuilder& builder, const std::string& name, int64_t in, int64_t out, double scale = 1.0);
  at::Tensor operator()(const ParameterStore& store, const at::Tensor& x) const;
  // For what is in the dtype of the prepared weights, where there are some.
  at::Tensor OnTokens(const ParameterStore& store, const at::Tensor& tokens) const;
};

// A square convolution with 'same' padding on [B, in, H, W].
struct Conv {
  int weight = -1, bias = -1;
  int64_t padding = 0;
  static Conv Build(LayerBuilder& builder, const std::string& name, int64_t in, int64_t out, int64_t kernel, double scale = 1.0);
  at::Tensor operator()(const ParameterStore& store, const at::Tensor& x) const;
};

// min(channels / 4, 32) groups, eps 1e-6.
struct GroupNorm {
  int weight = -1, bias = -1;
  int64_t groups = 1;
  static GroupNorm Build(LayerBuilder& builder, const std::string& name, int64_t channels);
  at::Tensor operator()(const ParameterStore& store, const at::Tensor& x) const;
  // The swish of the norm of x + offset; offset: float32 [B, channels] or undefined.
  at::Tensor Activated(const ParameterStore& store, const at::Tensor& x, const at::Tensor& offset = {}) const;
};

// Groups of GroupNorm for that many channels.
int64_t NumGroups(int64_t channels);

// A linear map of every pixel's channels ("network in network"): W [in, out], b [out].
struct Nin {
  int weight = -1, bias = -1;
  static Nin Build(LayerBuilder& builder, const std::string& name, int64_t in, int64_t out, double scale);
  // tokens: [B, H W, in] -> [B, H W, out].
  at::Tensor operator()(const ParameterStore& store, const at::Tensor& tokens) const;
};

// Single-head attention over all pixels, with a residual.
struct Attention {
  GroupNorm norm;
  Nin query, key, value, output;
  bool skip_rescale = true;
  static Attention Build(LayerBuilder& builder, const std::string& name, int64_t channels, bool skip_rescale);
  at::Tensor operator()(const ParameterStore& store, const at::Tensor& x) const;
};

enum class Resample { kNone, kUp, kDown };

// Doubles or halves the side. With FIR: the separable kernel [1, 3, 3, 1], normalised; else nearest neighbour and the 2x2 mean.
at::Tensor ApplyResample(const at::Tensor& x, Resample resample, bool fir);

// The residual block of BigGAN's type.
struct ResBlock {
  GroupNorm norm_0, norm_1;
  Conv conv_0, conv_1, shortcut;
  Linear time_projection;
  Resample resample = Resample::kNone;
  bool fir = false, skip_rescale = true, has_shortcut = false;

  struct Options {
    int64_t in, out, embedding;
    Resample resample;
    bool fir, skip_rescale;
  };
  static ResBlock Build(LayerBuilder& builder, const std::string& name, const Options& options);
  // activated_embedding: swish of the time embedding, [B, embedding].
  at::Tensor operator()(const ParameterStore& store, const at::Tensor& x, const at::Tensor& activated_embedding) const;
};

}  // namespace boss
