#include "core/nets/dit.h"

#include <ATen/ATen.h>

#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace boss {
namespace {

using Kind = ParameterStore::Kind;

constexpr double kNormEps = 1e-6;
constexpr int64_t kFrequencies = 256;  // of the time embedding, cosines and sines together
constexpr double kMaxPeriod = 10000;
constexpr double kEmbeddingDeviation = 0.02;

// [positions, width]: sines, then cosines, of position * 10000^(-i / (width / 2)).
at::Tensor SinusoidalEmbedding(const at::Tensor& positions, int64_t width) {
  const at::Tensor exponents = at::arange(width / 2, positions.options()) / (width / 2.0);
  const at::Tensor phase = at::outer(positions, at::pow(kMaxPeriod, exponents).reciprocal());
  return at::cat({phase.sin(), phase.cos()}, 1);
}

// [1, side^2, width]: the first half of the channels tells the column, the second the row.
at::Tensor PositionEmbedding(int64_t side, int64_t width) {
  const at::Tensor line = SinusoidalEmbedding(at::arange(side, at::kDouble), width / 2);
  const at::Tensor columns = line.unsqueeze(0).expand({side, side, width / 2});
  const at::Tensor rows = line.unsqueeze(1).expand({side, side, width / 2});
  return at::cat({columns, rows}, 2).reshape({1, side * side, width}).to(at::kFloat);
}

// [B, kFrequencies]: cosines, then sines.
at::Tensor TimeEmbedding(const at::Tensor& t_net) {
  const int64_t half = kFrequencies / 2;
  const at::Tensor frequencies =
      at::exp(at::arange(half, t_net.options()) * (-std::log(kMaxPeriod) / static_cast<double>(half)));
  const at::Tensor phase = at::outer(t_net, frequencies);
  return at::cat({phase.cos(), phase.sin()}, 1);
}

// (norm of x) (1 + scale) + shift, as what the token layers take.
at::Tensor Modulated(const ParameterStore& store, const at::Tensor& x, const at::Tensor& shift,
                     const at::Tensor& scale) {
  const at::Tensor normalized = at::layer_norm(x, {x.size(-1)}, /*weight=*/{}, /*bias=*/{}, kNormEps);
  const at::Tensor modulated = at::addcmul(shift.unsqueeze(1), normalized, (scale + 1).unsqueeze(1));
  return store.UsesPrepared() ? modulated.to(store.prepared_dtype()) : modulated;
}

}  // namespace

absl::StatusOr<DitConfig> DitConfig::FromJson(const JsonObject& json) {
  DitConfig config;
  BOSS_RETURN_IF_ERROR(json.ChoiceOr("architecture", {"dit"}).status());
  BOSS_ASSIGN_OR_RETURN(config.input_size, json.Integer("input_size", 1, 1024));
  BOSS_ASSIGN_OR_RETURN(config.channels, json.IntegerOr("channels", config.channels, 1, 1024));
  BOSS_ASSIGN_OR_RETURN(config.patch_size, json.IntegerOr("patch_size", config.patch_size, 1, 64));
  BOSS_ASSIGN_OR_RETURN(config.hidden_size, json.Integer("hidden_size", 4, 1 << 16));
  BOSS_ASSIGN_OR_RETURN(config.depth, json.Integer("depth", 1, 1024));
  BOSS_ASSIGN_OR_RETURN(config.num_heads, json.Integer("num_heads", 1, 1024));
  BOSS_ASSIGN_OR_RETURN(config.mlp_ratio, json.NumberOr("mlp_ratio", config.mlp_ratio));
  BOSS_ASSIGN_OR_RETURN(config.num_classes, json.IntegerOr("num_classes", config.num_classes, 0, 1'000'000));
  BOSS_ASSIGN_OR_RETURN(config.learn_sigma, json.BooleanOr("learn_sigma", config.learn_sigma));
  BOSS_RETURN_IF_ERROR(json.CheckAllRead());
  if (config.input_size % config.patch_size != 0) {
    return absl::InvalidArgumentError(absl::StrCat("model.input_size: got ", config.input_size,
                                                   ", expected a multiple of patch_size, ", config.patch_size));
  }
  if (config.hidden_size % config.num_heads != 0 || config.hidden_size % 4 != 0) {
    return absl::InvalidArgumentError(absl::StrCat("model.hidden_size: got ", config.hidden_size,
                                                   ", expected a multiple of 4 and of num_heads, ", config.num_heads));
  }
  if (!(config.mlp_ratio * static_cast<double>(config.hidden_size) >= 1 && config.mlp_ratio <= 64))
    return absl::InvalidArgumentError("model.mlp_ratio: expected at most 64 and at least one hidden channel");
  return config;
}

Dit::Dit(const DitConfig& config, TimeMap time_map, std::optional<uint64_t> seed, int64_t max_weights)
    : config_(config), time_map_(time_map) {
  LayerBuilder builder(parameters_, seed, max_weights);
  const DitConfig& c = config_;
  const int64_t width = c.hidden_size, patch = c.channels * c.patch_size * c.patch_size;
  const auto mlp_width = static_cast<int64_t>(static_cast<double>(width) * c.mlp_ratio);
  // As the reference initialises them: what a block adds, and the output, are nothing at first.
  const auto zero = [&](const std::string& name, int64_t in, int64_t out) {
    const Linear linear = Linear::Build(builder, name, in, out);
    if (seed) parameters_.Weight(linear.weight).detach().zero_();
    return linear;
  };
  const auto normal = [&](const std::string& name, int64_t in, int64_t out) {
    const Linear linear = Linear::Build(builder, name, in, out);
    if (seed) parameters_.Weight(linear.weight).detach().normal_(0, kEmbeddingDeviation, builder.generator);
    return linear;
  };

  position_ = parameters_.Add("pos_embed", PositionEmbedding(c.input_size / c.patch_size, width), Kind::kBuffer);
  const double fan_in = static_cast<double>(patch), fan_out = static_cast<double>(width);
  patches_.weight = parameters_.Add(
      "x_embedder.proj.weight",
      builder.VarianceScaling({width, c.channels, c.patch_size, c.patch_size}, fan_in, fan_out, 1.0), Kind::kAdaptable);
  patches_.bias = parameters_.Add("x_embedder.proj.bias", at::zeros({width}), Kind::kParameter);
  time_0_ = normal("t_embedder.mlp.0", kFrequencies, width);
  time_1_ = normal("t_embedder.mlp.2", width, width);
  if (c.num_classes > 0) {
    class_embedding_ =
        parameters_.Add("y_embedder.embedding_table.weight",
                        builder.Normal({c.num_classes + 1, width}, kEmbeddingDeviation), Kind::kParameter);
  }
  for (int64_t i = 0; i < c.depth; ++i) {
    const std::string name = absl::StrCat("blocks.", i, ".");
    Block& block = blocks_.emplace_back();
    block.qkv = Linear::Build(builder, name + "attn.qkv", width, 3 * width);
    block.projection = Linear::Build(builder, name + "attn.proj", width, width);
    block.mlp_0 = Linear::Build(builder, name + "mlp.fc1", width, mlp_width);
    block.mlp_1 = Linear::Build(builder, name + "mlp.fc2", mlp_width, width);
    block.modulation = zero(name + "adaLN_modulation.1", width, 6 * width);
  }
  output_ = zero("final_layer.linear", width, c.patch_size * c.patch_size * OutputChannels());
  output_modulation_ = zero("final_layer.adaLN_modulation.1", width, 2 * width);
}

at::Tensor Dit::ActivatedCondition(const at::Tensor& t_net, const at::Tensor& class_labels) const {
  at::Tensor condition = time_1_(parameters_, at::silu(time_0_(parameters_, TimeEmbedding(t_net))));
  if (class_embedding_ >= 0) {
    const at::Tensor labels = class_labels.defined()
                                  ? class_labels
                                  : at::full({t_net.size(0)}, config_.num_classes, t_net.options().dtype(at::kLong));
    condition = condition + at::embedding(parameters_.Weight(class_embedding_), labels);
  }
  return at::silu(condition);
}

at::Tensor Dit::Attention(const Block& block, const at::Tensor& tokens) const {
  const int64_t batch = tokens.size(0), count = tokens.size(1), heads = config_.num_heads;
  const at::Tensor qkv = block.qkv.OnTokens(parameters_, tokens)
                             .view({batch, count, 3, heads, config_.hidden_size / heads})
                             .permute({2, 0, 3, 1, 4});
  const at::Tensor attended = at::scaled_dot_product_attention(qkv[0], qkv[1], qkv[2]);
  return block.projection.OnTokens(parameters_, attended.transpose(1, 2).reshape({batch, count, config_.hidden_size}));
}

at::Tensor Dit::Mlp(const Block& block, const at::Tensor& tokens) const {
  return block.mlp_1.OnTokens(parameters_, at::gelu(block.mlp_0.OnTokens(parameters_, tokens), "tanh"));
}

at::Tensor Dit::Velocity(const at::Tensor& x_t, const at::Tensor& t, const Condition& condition) const {
  const ParameterStore& store = parameters_;
  const at::Tensor activated = ActivatedCondition(time_map_.Apply(t), condition.class_labels);
  // The prepared form of a convolution's weight is one for stride 1.
  at::Tensor x = at::conv2d(x_t, store.Weight(patches_.weight), store.Weight(patches_.bias), config_.patch_size)
                     .flatten(2)
                     .transpose(1, 2);
  x = x + store.Weight(position_);
  for (const Block& block : blocks_) {
    const std::vector<at::Tensor> m = block.modulation(store, activated).chunk(6, 1);  // shift, scale, gate; twice
    x = at::addcmul(x, m[2].unsqueeze(1), Attention(block, Modulated(store, x, m[0], m[1])).to(x.scalar_type()));
    x = at::addcmul(x, m[5].unsqueeze(1), Mlp(block, Modulated(store, x, m[3], m[4])).to(x.scalar_type()));
  }
  const std::vector<at::Tensor> m = output_modulation_(store, activated).chunk(2, 1);
  const int64_t batch = x.size(0), side = config_.input_size / config_.patch_size, p = config_.patch_size;
  return output_.OnTokens(store, Modulated(store, x, m[0], m[1]))
      .to(x_t.scalar_type())
      .view({batch, side, side, p, p, OutputChannels()})
      .slice(5, 0, config_.channels)
      .permute({0, 5, 1, 3, 2, 4})
      .reshape({batch, config_.channels, config_.input_size, config_.input_size});
}

}  // namespace boss
