#include "core/nets/factory.h"

#include <ATen/ATen.h>

#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/parse_json.h"
#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"
#include "core/nets/json_object.h"
#include "core/nets/mlp.h"
#include "core/nets/ncsnpp.h"

namespace boss {
namespace {

// Far more than any; parsed JSON needs many times the memory of its text.
constexpr size_t kMaxArchitectureBytes = size_t{1} << 20;

std::string ShapeName(const at::Tensor& tensor) { return absl::StrCat("[", absl::StrJoin(tensor.sizes(), ", "), "]"); }

absl::StatusOr<TimeMap> ReadTimeMap(const JsonObject& json) {
  TimeMap map;
  if (!json.Has("time")) return map;
  BOSS_ASSIGN_OR_RETURN(const JsonObject time, json.Object("time"));
  BOSS_ASSIGN_OR_RETURN(map.eps, time.NumberOr("eps", map.eps));
  BOSS_ASSIGN_OR_RETURN(map.scale, time.NumberOr("scale", map.scale));
  BOSS_RETURN_IF_ERROR(time.CheckAllRead());
  if (!(map.eps >= 0 && map.eps < 1)) return absl::InvalidArgumentError("time.eps: expected a number in [0, 1)");
  if (!(map.scale > 0)) return absl::InvalidArgumentError("time.scale: expected a positive number");
  return map;
}

}  // namespace

at::Tensor TimeMap::Apply(const at::Tensor& t) const { return (t * (1 - eps) + eps) * scale; }

absl::StatusOr<std::unique_ptr<VelocityModel>> CreateModel(std::string_view architecture_json, uint64_t seed, int64_t max_weights) {
  if (architecture_json.size() > kMaxArchitectureBytes) {
    return absl::InvalidArgumentError(absl::StrCat("architecture: got ", architecture_json.size(), " bytes, expected at most ", kMaxArchitectureBytes));
  }
  absl::StatusOr<nlohmann::json> parsed = ParseJson({architecture_json.data(), architecture_json.size()});
  if (!parsed.ok()) return absl::InvalidArgumentError(absl::StrCat("architecture: got ", parsed.status().message(), ", expected an object"));
  BOSS_ASSIGN_OR_RETURN(const JsonObject root, JsonObject::Create(*std::move(parsed), "architecture"));
  BOSS_ASSIGN_OR_RETURN(const JsonObject model, root.Object("model"));
  BOSS_ASSIGN_OR_RETURN(const TimeMap time_map, ReadTimeMap(root));
  BOSS_RETURN_IF_ERROR(root.CheckAllRead());
  BOSS_ASSIGN_OR_RETURN(const std::string architecture, model.ChoiceOr("architecture", {"ncsnpp", "mlp"}));
  using Result = absl::StatusOr<std::unique_ptr<VelocityModel>>;
  return GuardTorch("building the network", [&]() -> Result {
    if (architecture == "mlp") {
      BOSS_ASSIGN_OR_RETURN(MlpConfig config, MlpConfig::FromJson(model));
      return std::make_unique<Mlp>(config, time_map, seed, max_weights);
    }
    BOSS_ASSIGN_OR_RETURN(NcsnppConfig config, NcsnppConfig::FromJson(model));
    return std::make_unique<Ncsnpp>(std::move(config), time_map, seed, max_weights);
  });
}

absl::Status LoadWeights(VelocityModel& model, const NamedTensors& weights) {
  std::map<std::string, at::Tensor> by_name(weights.begin(), weights.end());
  if (by_name.size() != weights.size()) return absl::DataLossError("weights: a name occurs twice");
  const NamedTensors state = model.State();
  std::vector<std::string> missing;
  for (const auto& [name, tensor] : state) {
    const auto found = by_name.find(name);
    if (found == by_name.end()) {
      missing.push_back(name);
    } else if (found->second.sizes() != tensor.sizes()) {
      return absl::DataLossError(
          absl::StrCat("weights: ", name, " has shape ", ShapeName(found->second), ", expected ", ShapeName(tensor)));
    } else if (!found->second.is_floating_point()) {
      return absl::DataLossError(absl::StrCat("weights: ", name, " has dtype ", std::string(found->second.dtype().name()), ", expected a floating-point type"));
    }
  }
  if (!missing.empty()) return absl::DataLossError(absl::StrCat("weights: missing: ", absl::StrJoin(missing, ", ")));
  if (by_name.size() != state.size()) {
    for (const auto& [name, tensor] : state) by_name.erase(name);
    std::vector<std::string> left_over;
    for (const auto& [name, tensor] : by_name) left_over.push_back(name);
    return absl::DataLossError(absl::StrCat("weights: left over: ", absl::StrJoin(left_over, ", ")));
  }
  return GuardTorch("copying weights", [&]() -> absl::Status {
    for (const auto& [name, tensor] : state) tensor.detach().copy_(by_name.at(name));
    return absl::OkStatus();
  });
}

int64_t WeightCount(const NamedTensors& weights) {
  int64_t count = 0;
  for (const auto& [name, tensor] : weights) count += tensor.numel();
  return count;
}

int64_t ParameterCount(const VelocityModel& model) { return WeightCount(model.Parameters()); }

}  // namespace boss
