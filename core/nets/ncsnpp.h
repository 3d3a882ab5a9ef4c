// NCSN++ and DDPM++: the U-Nets of Song et al. (ICLR 2021) as the published rectified-flow checkpoints use them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/nets/json_object.h"
#include "core/nets/layers.h"
#include "core/nets/network.h"

namespace boss {

// Keys as in the reference's configuration; the last two are ours.
struct NcsnppConfig {
  int64_t image_size = 0;  // side of the sample
  int64_t channels = 0;
  int64_t nf = 0;
  std::vector<int64_t> ch_mult;
  int64_t num_res_blocks = 0;
  std::vector<int64_t> attn_resolutions;  // sides, after patching, at which there is attention
  bool fourier_embedding = false;         // embedding_type: "positional" or "fourier"
  double fourier_scale = 16;
  bool fir = false;
  bool output_skip = false;  // progressive: "none" or "output_skip"
  bool input_skip = false;   // progressive_input: "none" or "input_skip"
  bool skip_rescale = true;
  bool scale_by_sigma = false;
  bool centered = true;
  int64_t num_classes = 0;  // 0: no class embedding. Else [num_classes + 1, 4 nf] is added to the time embedding; the last row is 'no label'
  int64_t patch_size = 1;   // p: the network sees channels p^2 images of side image_size / p (pixel unshuffle)

  // Every value that the published checkpoints do not use is refused by name. "dropout" is read and checked but has no effect: distillation runs without.
  // \error INVALID_ARGUMENT naming the key.
  static absl::StatusOr<NcsnppConfig> FromJson(const JsonObject& json);
};

// Samples are [image_size] x [image_size] x channels. Parameters are named all_modules.N.<part>, N counting in the order of use, as in the
// reference; the class embedding is class_embedding.weight.
class Ncsnpp final : public Network<Ncsnpp> {
 public:
  Ncsnpp(NcsnppConfig config, TimeMap time_map, std::optional<uint64_t> seed, int64_t max_weights = kUnlimitedWeights);

  at::Tensor Velocity(const at::Tensor& x_t, const at::Tensor& t, const Condition& condition) const override;
  std::vector<int64_t> SampleShape() const override { return {config_.channels, config_.image_size, config_.image_size}; }
  int64_t NumClasses() const override { return config_.num_classes; }

 private:
  struct DownLevel {
    std::vector<ResBlock> blocks;
    std::vector<Attention> attentions;  // one a block, or none
    std::optional<ResBlock> down;
    std::optional<Conv> combine;
  };
  struct UpLevel {
    std::vector<ResBlock> blocks;
    std::optional<Attention> attention;
    std::optional<GroupNorm> pyramid_norm;
    std::optional<Conv> pyramid_conv;
    std::optional<ResBlock> up;
  };

  void Build(std::optional<uint64_t> seed, int64_t max_weights);
  at::Tensor ActivatedEmbedding(const at::Tensor& t_net, const at::Tensor& class_labels) const;

  NcsnppConfig config_;
  TimeMap time_map_;
  int fourier_ = -1;
  Linear embed_0_, embed_1_;
  int class_embedding_ = -1;
  Conv input_conv_;
  std::vector<DownLevel> down_;  // by level, from the full side
  std::vector<ResBlock> middle_;
  std::vector<Attention> middle_attention_;
  std::vector<UpLevel> up_;  // in the order of use: the smallest side first
  GroupNorm output_norm_;    // unless output_skip
  Conv output_conv_;
};

}  // namespace boss
