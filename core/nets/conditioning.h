// Conditioning tensors in a network's description.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "core/flow/velocity_model.h"
#include "core/nets/json_object.h"

namespace boss {

// The optional key "conditioning" of "model": [{"name": "embedding", "shape": [77, 768], "dtype": "float32"}, ...],
// where the shape is one sample's and dtype is "float32" (the default) or "int64". \error INVALID_ARGUMENT naming the
// key: a name that occurs twice, or more than a server should hold.
absl::StatusOr<std::vector<ConditioningSpec>> ConditioningFromJson(const JsonObject& model);

// The tensor of that spec for a batch: the condition's, or 'no condition' if it is not there. On the device of the
// batch's samples.
at::Tensor TensorOrNone(const Condition& condition, const ConditioningSpec& spec, const at::Tensor& x_t);

}  // namespace boss
