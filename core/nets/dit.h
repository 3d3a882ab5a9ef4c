// DiT and SiT: transformers over patches of images or latents, conditioned on time and class (Peebles and Xie, ICCV
// 2023; Ma et al., ECCV 2024).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "core/nets/json_object.h"
#include "core/nets/layers.h"
#include "core/nets/network.h"

namespace boss {

// Keys as in the constructor of the reference's network.
struct DitConfig {
  int64_t input_size = 0;  // side of the sample
  int64_t channels = 4;
  int64_t patch_size = 2;
  int64_t hidden_size = 0;  // a multiple of 4 and of num_heads
  int64_t depth = 0;        // blocks
  int64_t num_heads = 0;
  double mlp_ratio = 4;
  int64_t num_classes = 0;  // 0: no labels. Else there are num_classes + 1 embeddings; the last one is 'no label'
  bool learn_sigma = true;  // the last layer has twice as many channels, of which the second half is dropped

  // All but "input_size", "hidden_size", "depth" and "num_heads" are optional. \error INVALID_ARGUMENT naming the key.
  static absl::StatusOr<DitConfig> FromJson(const JsonObject& json);
};

// Samples are channels x input_size x input_size. Weights have the names of the public SiT checkpoints:
// x_embedder.proj, t_embedder.mlp.0, t_embedder.mlp.2, y_embedder.embedding_table, blocks.N.attn.qkv,
// blocks.N.attn.proj, blocks.N.mlp.fc1, blocks.N.mlp.fc2, blocks.N.adaLN_modulation.1, final_layer.linear,
// final_layer.adaLN_modulation.1; pos_embed is fixed, and in those files too.
//
// SiT's time is ours: its linear path is t data + (1 - t) noise, its velocity data - noise, and the network is fed t as
// it is, so no "time" map is needed. Guidance (GuidedVelocity) is over all channels, as SiT's paper has it; its
// sampling script guides only the first three of four latent channels unless told otherwise.
class Dit final : public Network<Dit> {
 public:
  // Without a seed only pos_embed has values.
  Dit(const DitConfig& config, TimeMap time_map, std::optional<uint64_t> seed, int64_t max_weights = kUnlimitedWeights);

  at::Tensor Velocity(const at::Tensor& x_t, const at::Tensor& t, const Condition& condition) const override;
  std::vector<int64_t> SampleShape() const override {
    return {config_.channels, config_.input_size, config_.input_size};
  }
  int64_t NumClasses() const override { return config_.num_classes; }

 private:
  struct Block {
    Linear qkv, projection, mlp_0, mlp_1, modulation;
  };

  int64_t OutputChannels() const { return config_.learn_sigma ? 2 * config_.channels : config_.channels; }
  // [B, hidden_size], after the swish that every modulation begins with.
  at::Tensor ActivatedCondition(const at::Tensor& t_net, const at::Tensor& class_labels) const;
  at::Tensor Attention(const Block& block, const at::Tensor& tokens) const;
  at::Tensor Mlp(const Block& block, const at::Tensor& tokens) const;

  DitConfig config_;
  TimeMap time_map_;
  int position_ = -1;  // [1, tokens, hidden_size]
  Linear patches_;     // its weight is that of a convolution, [hidden_size, channels, patch_size, patch_size]
  Linear time_0_, time_1_;
  int class_embedding_ = -1;
  std::vector<Block> blocks_;
  Linear output_modulation_, output_;
};

}  // namespace boss
