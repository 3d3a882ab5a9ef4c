#include "core/nets/mlp.h"

#include <ATen/ATen.h>

#include <numbers>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace boss {

absl::StatusOr<MlpConfig> MlpConfig::FromJson(const JsonObject& json) {
  MlpConfig config;
  BOSS_RETURN_IF_ERROR(json.ChoiceOr("architecture", {"mlp"}).status());
  BOSS_ASSIGN_OR_RETURN(config.dim, json.IntegerOr("dim", config.dim, 1, 1 << 20));
  BOSS_ASSIGN_OR_RETURN(config.hidden, json.IntegerOr("hidden", config.hidden, 1, 1 << 16));
  BOSS_ASSIGN_OR_RETURN(config.layers, json.IntegerOr("layers", config.layers, 1, 64));
  BOSS_ASSIGN_OR_RETURN(config.num_classes, json.IntegerOr("num_classes", 0, 0, 1'000'000));
  BOSS_ASSIGN_OR_RETURN(config.conditioning, ConditioningFromJson(json));
  for (const ConditioningSpec& spec : config.conditioning) {
    if (spec.dtype != at::kFloat || spec.shape.size() != 1)
      return absl::InvalidArgumentError(absl::StrCat("conditioning \"", spec.name, "\": an mlp takes float32 vectors"));
  }
  BOSS_RETURN_IF_ERROR(json.CheckAllRead());
  return config;
}

Mlp::Mlp(MlpConfig config, TimeMap time_map, std::optional<uint64_t> seed, int64_t max_weights) : config_(std::move(config)), time_map_(time_map) {
  LayerBuilder builder(parameters_, seed, max_weights);
  int64_t in = config_.dim + 2;
  for (const ConditioningSpec& spec : config_.conditioning) in += spec.shape[0];
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    layers_.push_back(Linear::Build(builder, absl::StrCat("layers.", layer), in, config_.hidden));
    in = config_.hidden;
  }
  layers_.push_back(Linear::Build(builder, absl::StrCat("layers.", config_.layers), in, config_.dim));
  if (config_.num_classes > 0) {
    class_embedding_ = parameters_.Add("class_embedding.weight", builder.Normal({config_.num_classes + 1, config_.hidden}, 0.1),
                                       ParameterStore::Kind::kParameter);
  }
}

at::Tensor Mlp::Velocity(const at::Tensor& x_t, const at::Tensor& t, const Condition& condition) const {
  const at::Tensor phase = (time_map_.Apply(t) * std::numbers::pi).unsqueeze(1);
  std::vector<at::Tensor> inputs = {x_t, phase.sin(), phase.cos()};
  for (const ConditioningSpec& spec : config_.conditioning) inputs.push_back(TensorOrNone(condition, spec, x_t));
  at::Tensor h = at::cat(inputs, 1);
  for (size_t layer = 0; layer + 1 < layers_.size(); ++layer) {
    h = layers_[layer](parameters_, h);
    if (layer == 0 && class_embedding_ >= 0) {
      const at::Tensor labels = condition.class_labels.defined()
                                    ? condition.class_labels
                                    : at::full({t.size(0)}, config_.num_classes, t.options().dtype(at::kLong));
      h = h + at::embedding(parameters_.Weight(class_embedding_), labels);
    }
    h = at::silu(h);
  }
  return layers_.back()(parameters_, h);
}

}  // namespace boss
