#include "core/nets/ncsnpp.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace boss {
namespace {

using Kind = ParameterStore::Kind;

// The number of an entry of all_modules, as a name.
class ModuleNames {
 public:
  std::string Next() { return absl::StrCat("all_modules.", next_++); }

 private:
  int next_ = 0;
};

// Channels of the skips that the way down leaves, in order.
std::vector<int64_t> SkipChannels(const NcsnppConfig& config) {
  std::vector<int64_t> skips{config.nf};
  for (size_t level = 0; level < config.ch_mult.size(); ++level) {
    const int64_t channels = config.nf * config.ch_mult[level];
    skips.insert(skips.end(), config.num_res_blocks, channels);
    if (level + 1 < config.ch_mult.size()) skips.push_back(channels);
  }
  return skips;
}

// GroupNorm needs a number of groups that divides the channels, concatenated skips included.
absl::Status CheckGroups(const NcsnppConfig& config) {
  std::vector<int64_t> widths = SkipChannels(config), skips = widths;
  int64_t channels = config.nf * config.ch_mult.back();
  for (int level = static_cast<int>(config.ch_mult.size()) - 1; level >= 0; --level) {
    for (int64_t block = 0; block <= config.num_res_blocks; ++block) {
      widths.push_back(channels + skips.back());
      skips.pop_back();
      channels = config.nf * config.ch_mult[level];
    }
  }
  for (int64_t width : widths) {
    if (width % NumGroups(width) != 0) {
      return absl::InvalidArgumentError(absl::StrCat("model.nf, model.ch_mult: a GroupNorm would have ", width, " channels in ", NumGroups(width),
                                                     " groups, expected a multiple (take nf 32, 64 or 128)"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<NcsnppConfig> NcsnppConfig::FromJson(const JsonObject& json) {
  NcsnppConfig config;
  BOSS_RETURN_IF_ERROR(json.ChoiceOr("architecture", {"ncsnpp"}).status());
  BOSS_ASSIGN_OR_RETURN(config.image_size, json.Integer("image_size", 1, 1024));
  BOSS_ASSIGN_OR_RETURN(config.channels, json.Integer("channels", 1, 64));
  BOSS_ASSIGN_OR_RETURN(config.nf, json.Integer("nf", 4, 1024));
  BOSS_ASSIGN_OR_RETURN(config.ch_mult, json.Integers("ch_mult", 1, 64));
  BOSS_ASSIGN_OR_RETURN(config.num_res_blocks, json.Integer("num_res_blocks", 1, 16));
  BOSS_ASSIGN_OR_RETURN(config.attn_resolutions, json.Integers("attn_resolutions", 1, 1024));
  BOSS_ASSIGN_OR_RETURN(const std::string embedding, json.ChoiceOr("embedding_type", {"positional", "fourier"}));
  config.fourier_embedding = embedding == "fourier";
  BOSS_ASSIGN_OR_RETURN(config.fourier_scale, json.NumberOr("fourier_scale", config.fourier_scale));
  BOSS_ASSIGN_OR_RETURN(config.fir, json.BooleanOr("fir", config.fir));
  BOSS_ASSIGN_OR_RETURN(const std::string progressive, json.ChoiceOr("progressive", {"none", "output_skip"}));
  config.output_skip = progressive == "output_skip";
  BOSS_ASSIGN_OR_RETURN(const std::string progressive_input, json.ChoiceOr("progressive_input", {"none", "input_skip"}));
  config.input_skip = progressive_input == "input_skip";
  BOSS_ASSIGN_OR_RETURN(config.skip_rescale, json.BooleanOr("skip_rescale", config.skip_rescale));
  BOSS_ASSIGN_OR_RETURN(config.scale_by_sigma, json.BooleanOr("scale_by_sigma", config.scale_by_sigma));
  BOSS_ASSIGN_OR_RETURN(config.centered, json.BooleanOr("centered", config.centered));
  BOSS_ASSIGN_OR_RETURN(config.num_classes, json.IntegerOr("num_classes", 0, 0, 1'000'000));
  BOSS_ASSIGN_OR_RETURN(config.patch_size, json.IntegerOr("patch_size", 1, 1, 64));

  // Only one value of these is known.
  BOSS_RETURN_IF_ERROR(json.ChoiceOr("resblock_type", {"biggan"}).status());
  BOSS_RETURN_IF_ERROR(json.ChoiceOr("progressive_combine", {"sum"}).status());
  BOSS_RETURN_IF_ERROR(json.ChoiceOr("nonlinearity", {"swish"}).status());
  BOSS_RETURN_IF_ERROR(json.ChoiceOr("attention_type", {"ddpm"}).status());
  BOSS_ASSIGN_OR_RETURN(const double dropout, json.NumberOr("dropout", 0));
  if (!(dropout >= 0 && dropout < 1)) return absl::InvalidArgumentError("model.dropout: expected a number in [0, 1)");
  BOSS_ASSIGN_OR_RETURN(const bool conditional, json.BooleanOr("conditional", true));
  if (!conditional) return absl::InvalidArgumentError("model.conditional: got false, expected true: a velocity depends on the time");
  // Resampling inside residual blocks has no convolution of its own, whatever this says.
  BOSS_RETURN_IF_ERROR(json.BooleanOr("resamp_with_conv", true).status());
  if (json.Has("fir_kernel")) {
    BOSS_ASSIGN_OR_RETURN(const std::vector<int64_t> kernel, json.Integers("fir_kernel", 0, 1024));
    if (kernel != std::vector<int64_t>{1, 3, 3, 1}) return absl::InvalidArgumentError("model.fir_kernel: expected [1, 3, 3, 1]");
  }
  BOSS_RETURN_IF_ERROR(json.CheckAllRead());

  if (config.ch_mult.empty() || config.ch_mult.size() > 10) {
    return absl::InvalidArgumentError(absl::StrCat("model.ch_mult: got ", config.ch_mult.size(), " levels, expected 1 to 10"));
  }
  const int64_t divisor = config.patch_size << (config.ch_mult.size() - 1);
  if (config.image_size % divisor != 0) {
    return absl::InvalidArgumentError(absl::StrCat("model.image_size: got ", config.image_size, ", expected a multiple of ", divisor,
                                                   " (patch_size and one halving a level)"));
  }
  BOSS_RETURN_IF_ERROR(CheckGroups(config));
  return config;
}

Ncsnpp::Ncsnpp(NcsnppConfig config, TimeMap time_map, std::optional<uint64_t> seed, int64_t max_weights)
    : config_(std::move(config)), time_map_(time_map) {
  Build(seed, max_weights);
}

void Ncsnpp::Build(std::optional<uint64_t> seed, int64_t max_weights) {
  LayerBuilder builder(parameters_, seed, max_weights);
  ModuleNames names;
  const NcsnppConfig& c = config_;
  const int64_t image_channels = c.channels * c.patch_size * c.patch_size;
  const int64_t embedding = 4 * c.nf;
  const int levels = static_cast<int>(c.ch_mult.size());
  const auto has_attention = [&](int level) {
    const int64_t side = (c.image_size / c.patch_size) >> level;
    return std::find(c.attn_resolutions.begin(), c.attn_resolutions.end(), side) != c.attn_resolutions.end();
  };
  const auto res_block = [&](int64_t in, int64_t out, Resample resample) {
    return ResBlock::Build(builder, names.Next(), {in, out, embedding, resample, c.fir, c.skip_rescale});
  };
  const auto attention = [&](int64_t channels) { return Attention::Build(builder, names.Next(), channels, c.skip_rescale); };

  if (c.fourier_embedding) {
    fourier_ = parameters_.Add(names.Next() + ".W", builder.Normal({c.nf}, c.fourier_scale), Kind::kBuffer);
  }
  embed_0_ = Linear::Build(builder, names.Next(), c.fourier_embedding ? 2 * c.nf : c.nf, embedding);
  embed_1_ = Linear::Build(builder, names.Next(), embedding, embedding);
  input_conv_ = Conv::Build(builder, names.Next(), image_channels, c.nf, 3);

  int64_t channels = c.nf;
  for (int level = 0; level < levels; ++level) {
    DownLevel& down = down_.emplace_back();
    const int64_t out = c.nf * c.ch_mult[level];
    for (int64_t block = 0; block < c.num_res_blocks; ++block) {
      down.blocks.push_back(res_block(channels, out, Resample::kNone));
      channels = out;
      if (has_attention(level)) down.attentions.push_back(attention(channels));
    }
    if (level + 1 < levels) {
      down.down = res_block(channels, channels, Resample::kDown);
      if (c.input_skip) down.combine = Conv::Build(builder, names.Next() + ".Conv_0", image_channels, channels, 1);
    }
  }

  middle_.push_back(res_block(channels, channels, Resample::kNone));
  middle_attention_.push_back(attention(channels));
  middle_.push_back(res_block(channels, channels, Resample::kNone));

  std::vector<int64_t> skips = SkipChannels(c);
  for (int level = levels - 1; level >= 0; --level) {
    UpLevel& up = up_.emplace_back();
    const int64_t out = c.nf * c.ch_mult[level];
    for (int64_t block = 0; block <= c.num_res_blocks; ++block) {
      up.blocks.push_back(res_block(channels + skips.back(), out, Resample::kNone));
      skips.pop_back();
      channels = out;
    }
    if (has_attention(level)) up.attention = attention(channels);
    if (c.output_skip) {
      up.pyramid_norm = GroupNorm::Build(builder, names.Next(), channels);
      up.pyramid_conv = Conv::Build(builder, names.Next(), channels, image_channels, 3, 0.0);
    }
    if (level > 0) up.up = res_block(channels, channels, Resample::kUp);
  }
  if (!c.output_skip) {
    output_norm_ = GroupNorm::Build(builder, names.Next(), channels);
    output_conv_ = Conv::Build(builder, names.Next(), channels, image_channels, 3, 0.0);
  }
  if (c.num_classes > 0) {
    class_embedding_ =
        parameters_.Add("class_embedding.weight", builder.Normal({c.num_classes + 1, embedding}, 0.1), Kind::kParameter);
  }
}

at::Tensor Ncsnpp::ActivatedEmbedding(const at::Tensor& t_net, const at::Tensor& class_labels) const {
  at::Tensor phase;
  if (config_.fourier_embedding) {
    phase = at::outer(t_net.log(), parameters_.Weight(fourier_)) * (2 * std::numbers::pi);
  } else {
    const int64_t half = config_.nf / 2;
    const at::Tensor frequencies = at::exp(at::arange(half, t_net.options()) * (-std::log(10000.0) / static_cast<double>(half - 1)));
    phase = at::outer(t_net, frequencies);
  }
  at::Tensor embedding = at::cat({phase.sin(), phase.cos()}, 1);
  embedding = embed_1_(parameters_, at::silu(embed_0_(parameters_, embedding)));
  if (class_embedding_ >= 0) {
    const at::Tensor labels =
        class_labels.defined() ? class_labels : at::full({t_net.size(0)}, config_.num_classes, t_net.options().dtype(at::kLong));
    embedding = embedding + at::embedding(parameters_.Weight(class_embedding_), labels);
  }
  return at::silu(embedding);
}

at::Tensor Ncsnpp::Velocity(const at::Tensor& x_t, const at::Tensor& t, const Condition& condition) const {
  const ParameterStore& store = parameters_;
  const at::Tensor t_net = time_map_.Apply(t);
  const at::Tensor embedding = ActivatedEmbedding(t_net, condition.class_labels);

  at::Tensor x = config_.patch_size > 1 ? at::pixel_unshuffle(x_t, config_.patch_size) : x_t;
  if (!config_.centered) x = 2 * x - 1;
  if (store.UsesPrepared()) x = x.to(store.prepared_dtype()).contiguous(at::MemoryFormat::ChannelsLast);

  at::Tensor input_pyramid = x;
  at::Tensor h = input_conv_(store, x);
  std::vector<at::Tensor> skips{h};
  for (const DownLevel& down : down_) {
    for (size_t block = 0; block < down.blocks.size(); ++block) {
      h = down.blocks[block](store, h, embedding);
      if (!down.attentions.empty()) h = down.attentions[block](store, h);
      skips.push_back(h);
    }
    if (down.down) {
      h = (*down.down)(store, h, embedding);
      if (down.combine) {
        input_pyramid = ApplyResample(input_pyramid, Resample::kDown, config_.fir);
        h = (*down.combine)(store, input_pyramid) + h;
      }
      skips.push_back(h);
    }
  }

  h = middle_[0](store, h, embedding);
  h = middle_attention_[0](store, h);
  h = middle_[1](store, h, embedding);

  at::Tensor output;
  for (const UpLevel& up : up_) {
    for (const ResBlock& block : up.blocks) {
      h = block(store, at::cat({h, skips.back()}, 1), embedding);
      skips.pop_back();
    }
    if (up.attention) h = (*up.attention)(store, h);
    if (up.pyramid_conv) {
      const at::Tensor level_output = (*up.pyramid_conv)(store, up.pyramid_norm->Activated(store, h));
      output = output.defined() ? ApplyResample(output, Resample::kUp, config_.fir) + level_output : level_output;
    }
    if (up.up) h = (*up.up)(store, h, embedding);
  }
  if (!config_.output_skip) output = output_conv_(store, output_norm_.Activated(store, h));
  output = output.to(x_t.scalar_type(), /*non_blocking=*/false, /*copy=*/false, at::MemoryFormat::Contiguous);
  if (config_.scale_by_sigma) output = output / t_net.view({-1, 1, 1, 1});
  return config_.patch_size > 1 ? at::pixel_shuffle(output, config_.patch_size) : output;
}

}  // namespace boss
