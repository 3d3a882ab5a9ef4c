// A multilayer perceptron over vectors: two-dimensional toy densities, tests.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "core/nets/conditioning.h"
#include "core/nets/json_object.h"
#include "core/nets/layers.h"
#include "core/nets/network.h"

namespace boss {

struct MlpConfig {
  int64_t dim = 2;
  int64_t hidden = 64;
  int64_t layers = 3;       // hidden layers
  int64_t num_classes = 0;  // 0: no labels. Else [num_classes + 1, hidden] is added after the first layer; the last row is 'no label'

  // Vectors that are concatenated to the input.
  std::vector<ConditioningSpec> conditioning;

  // {"architecture": "mlp", "dim", "hidden", "layers", "num_classes", "conditioning" (see conditioning.h)}; all but the first are optional. \error INVALID_ARGUMENT naming the key.
  static absl::StatusOr<MlpConfig> FromJson(const JsonObject& json);
};

// Samples are vectors [dim]. Input: x, sin and cos of pi t, and the conditioning vectors; swish between linear layers.
class Mlp final : public Network<Mlp> {
 public:
  Mlp(MlpConfig config, TimeMap time_map, std::optional<uint64_t> seed, int64_t max_weights = kUnlimitedWeights);

  at::Tensor Velocity(const at::Tensor& x_t, const at::Tensor& t, const Condition& condition) const override;
  std::vector<int64_t> SampleShape() const override { return {config_.dim}; }
  int64_t NumClasses() const override { return config_.num_classes; }
  std::vector<ConditioningSpec> ConditioningSpecs() const override { return config_.conditioning; }

 private:
  MlpConfig config_;
  TimeMap time_map_;
  std::vector<Linear> layers_;
  int class_embedding_ = -1;
};

}  // namespace boss
