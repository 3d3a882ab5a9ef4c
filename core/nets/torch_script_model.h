// Networks that come with their own code, as TorchScript archives.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/flow/velocity_model.h"

namespace boss {

// What the description says of a TorchScript module: "model" has the keys
//   "architecture": "torchscript"
//   "sample_shape": [4, 32, 32]
//   "num_classes": n > 0 for a network that takes labels in [0, n], n meaning 'no label'
//   "conditioning": see conditioning.h
//   "inputs": what forward() takes. Either an array, the order of the positional arguments, or an object from these to
//     the names of the arguments: "x" (float32 [B, sample_shape...]), "t" (float32 or int64 [B]), "class_labels"
//     (int64 [B]) and the names of the conditioning tensors. By default the array of all of them in this order.
//   "parameterisation", "process", "time_direction", "velocity_sign": see diffusion.h
//   "trainable": false for a network that must not be finetuned
// forward() returns a tensor of x's shape.
struct TorchScriptShape {
  std::vector<int64_t> sample_shape;
  int64_t num_classes = 0;
  std::vector<ConditioningSpec> conditioning;
  bool trainable = true;
};

// Runs nothing. \error INVALID_ARGUMENT naming the key.
absl::StatusOr<TorchScriptShape> DescribeTorchScript(std::string_view architecture_json);

// Loads the archive, which may run code of its author's with all rights of this process. The model's Parameters() are
// the module's floating-point parameters, its State() these and its floating-point buffers; it computes in evaluation
// mode, also while it is trained. \error INVALID_ARGUMENT naming the key, or for a module without forward(); DATA_LOSS
// for bytes that are no TorchScript archive.
absl::StatusOr<std::unique_ptr<VelocityModel>> LoadTorchScriptModel(std::string_view architecture_json,
                                                                    std::shared_ptr<const std::string> archive);

}  // namespace boss
