// From a network's description to a VelocityModel.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/flow/velocity_model.h"

namespace boss {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

// `architecture_json`: an object {"model": {...}, "time": {"eps": .., "scale": ..}}. "model" carries "architecture": "ncsnpp" (with the
// reference's configuration keys, and the optional "num_classes" and "patch_size"; see ncsnpp.h), "dit" (see dit.h) or "mlp" (see mlp.h); a TorchScript module (torch_script_model.h) is not built from its description. "time" is the map
// t_net = (t (1 - eps) + eps) scale that the network expects; absent means t_net = t. Weights are initialised from `seed`; without one their values are undefined and take no memory before they are
// written, for who loads them or asks for their shapes alone. Who knows how many weights there are to load names them in `max_weights`, so that a short
// text does not ask for a huge network.
// \error INVALID_ARGUMENT naming the key that is missing, of the wrong type, or has a value that the network does not know; or if the network
// has more weights than `max_weights`.
absl::StatusOr<std::unique_ptr<VelocityModel>> CreateModel(std::string_view architecture_json, std::optional<uint64_t> seed,
                                                           int64_t max_weights = std::numeric_limits<int64_t>::max());

// Elements of all tensors together.
int64_t WeightCount(const NamedTensors& weights);
// What to let a network have that is to be loaded with these weights: somewhat more than there are, so that CheckWeights can say what is
// missing.
int64_t MaxWeightsFor(const NamedTensors& weights);

// Whether the weights are those of the model's State(), by name, in number and shape. \error DATA_LOSS naming what is missing, left over, or has
// another shape (got, expected) or no floating-point type: the first few of each kind, and how many there are.
absl::Status CheckWeights(const VelocityModel& model, const NamedTensors& weights);

// Copies weights into the model's State() by name. \error as CheckWeights; then nothing has changed.
absl::Status LoadWeights(VelocityModel& model, const NamedTensors& weights);

int64_t ParameterCount(const VelocityModel& model);

}  // namespace boss
