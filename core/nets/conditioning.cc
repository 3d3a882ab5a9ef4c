#include "core/nets/conditioning.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace boss {
namespace {

constexpr size_t kMaxTensors = 16;
constexpr size_t kMaxNameSize = 63;
constexpr size_t kMaxDimensions = 8;
constexpr int64_t kMaxElements = int64_t{1} << 22;

}  // namespace

absl::StatusOr<std::vector<ConditioningSpec>> ConditioningFromJson(const JsonObject& model) {
  std::vector<ConditioningSpec> specs;
  if (!model.Has("conditioning")) return specs;
  BOSS_ASSIGN_OR_RETURN(const std::vector<JsonObject> objects, model.Objects("conditioning", kMaxTensors));
  for (const JsonObject& json : objects) {
    ConditioningSpec& spec = specs.emplace_back();
    BOSS_ASSIGN_OR_RETURN(spec.name, json.String("name", kMaxNameSize));
    BOSS_ASSIGN_OR_RETURN(spec.shape, json.Integers("shape", 1, kMaxElements));
    BOSS_ASSIGN_OR_RETURN(const std::string dtype, json.ChoiceOr("dtype", {"float32", "int64"}));
    BOSS_RETURN_IF_ERROR(json.CheckAllRead());
    spec.dtype = dtype == "int64" ? at::kLong : at::kFloat;
    const double elements = std::accumulate(spec.shape.begin(), spec.shape.end(), 1.0, std::multiplies<>());
    if (spec.shape.size() > kMaxDimensions || elements > static_cast<double>(kMaxElements)) {
      return absl::InvalidArgumentError(absl::StrCat("conditioning \"", spec.name, "\": expected a shape of at most ",
                                                     kMaxDimensions, " dimensions and ", kMaxElements, " elements"));
    }
    const auto same_name = [&](const ConditioningSpec& other) { return other.name == spec.name; };
    if (std::count_if(specs.begin(), specs.end(), same_name) > 1) {
      return absl::InvalidArgumentError(absl::StrCat("conditioning: the name \"", spec.name, "\" occurs twice"));
    }
  }
  return specs;
}

at::Tensor TensorOrNone(const Condition& condition, const ConditioningSpec& spec, const at::Tensor& x_t) {
  const at::Tensor given = FindTensor(condition.tensors, spec.name);
  if (given.defined()) return given;
  std::vector<int64_t> shape = spec.shape;
  shape.insert(shape.begin(), x_t.size(0));
  return NoCondition(spec).to(x_t.device()).expand(shape);
}

}  // namespace boss
