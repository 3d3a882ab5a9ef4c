#include "core/nets/factory.h"

#include <ATen/ATen.h>

#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"
#include "core/nets/architecture.h"
#include "core/nets/decoder.h"
#include "core/nets/dit.h"
#include "core/nets/mlp.h"
#include "core/nets/ncsnpp.h"

namespace boss {
namespace {

constexpr int64_t kSlackWeights = int64_t{1} << 20;

std::string ShapeName(const at::Tensor& tensor) { return absl::StrCat("[", absl::StrJoin(tensor.sizes(), ", "), "]"); }

// A list that stays readable: the first few names, and how many there are.
class Names {
 public:
  void Add(std::string name) {
    if (++count_ <= kShown) shown_.push_back(std::move(name));
  }
  bool empty() const { return count_ == 0; }
  std::string Text(const char* title) const {
    std::string text = absl::StrCat(title, absl::StrJoin(shown_, ", "));
    if (count_ > kShown) absl::StrAppend(&text, ", ... (", count_, " in all)");
    return text;
  }

 private:
  static constexpr size_t kShown = 5;
  std::vector<std::string> shown_;
  size_t count_ = 0;
};

}  // namespace

at::Tensor TimeMap::Apply(const at::Tensor& t) const { return (t * (1 - eps) + eps) * scale; }

absl::StatusOr<std::unique_ptr<VelocityModel>> CreateModel(std::string_view architecture_json, std::optional<uint64_t> seed, int64_t max_weights) {
  BOSS_ASSIGN_OR_RETURN(const Architecture parsed, Architecture::Parse(architecture_json));
  const JsonObject& model = parsed.model;
  const TimeMap& time_map = parsed.time_map;
  if (parsed.decoder) BOSS_RETURN_IF_ERROR(DecoderConfig::FromJson(*parsed.decoder).status());
  BOSS_ASSIGN_OR_RETURN(const std::string architecture, model.ChoiceOr("architecture", {"ncsnpp", "mlp", "dit", "torchscript"}));
  if (architecture == "torchscript")
    return absl::InvalidArgumentError("architecture: a TorchScript module comes as an archive with its weights, and is not built from a description");
  using Result = absl::StatusOr<std::unique_ptr<VelocityModel>>;
  return GuardTorch("building the network", [&]() -> Result {
    if (architecture == "dit") {
      BOSS_ASSIGN_OR_RETURN(const DitConfig config, DitConfig::FromJson(model));
      return std::make_unique<Dit>(config, time_map, seed, max_weights);
    }
    if (architecture == "mlp") {
      BOSS_ASSIGN_OR_RETURN(MlpConfig config, MlpConfig::FromJson(model));
      return std::make_unique<Mlp>(config, time_map, seed, max_weights);
    }
    BOSS_ASSIGN_OR_RETURN(NcsnppConfig config, NcsnppConfig::FromJson(model));
    return std::make_unique<Ncsnpp>(std::move(config), time_map, seed, max_weights);
  });
}

absl::Status CheckWeights(const VelocityModel& model, const NamedTensors& weights) {
  std::map<std::string_view, const at::Tensor*> by_name;
  for (const auto& [name, tensor] : weights) by_name[name] = &tensor;
  if (by_name.size() != weights.size()) return absl::DataLossError("weights: a name occurs twice");
  Names missing, left_over, misshapen;
  for (const auto& [name, tensor] : model.State()) {
    const auto found = by_name.extract(name);
    if (!found) {
      missing.Add(name);
      continue;
    }
    const at::Tensor& weight = *found.mapped();
    if (weight.sizes() != tensor.sizes()) {
      misshapen.Add(absl::StrCat(name, " has shape ", ShapeName(weight), ", expected ", ShapeName(tensor)));
    } else if (!weight.is_floating_point()) {
      misshapen.Add(absl::StrCat(name, " has dtype ", std::string(weight.dtype().name()), ", expected a floating-point type"));
    }
  }
  for (const auto& [name, tensor] : by_name) left_over.Add(std::string(name));
  std::vector<std::string> faults;
  if (!missing.empty()) faults.push_back(missing.Text("missing: "));
  if (!left_over.empty()) faults.push_back(left_over.Text("left over: "));
  if (!misshapen.empty()) faults.push_back(misshapen.Text(""));
  return faults.empty() ? absl::OkStatus() : absl::DataLossError(absl::StrCat("weights: ", absl::StrJoin(faults, "; ")));
}

absl::Status LoadWeights(VelocityModel& model, const NamedTensors& weights) {
  BOSS_RETURN_IF_ERROR(CheckWeights(model, weights));
  const std::map<std::string, at::Tensor> by_name(weights.begin(), weights.end());
  return GuardTorch("copying weights", [&]() -> absl::Status {
    for (const auto& [name, tensor] : model.State()) tensor.detach().copy_(by_name.at(name));
    return absl::OkStatus();
  });
}

int64_t WeightCount(const NamedTensors& weights) {
  int64_t count = 0;
  for (const auto& [name, tensor] : weights) count += tensor.numel();
  return count;
}

int64_t MaxWeightsFor(const NamedTensors& weights) { return 2 * WeightCount(weights) + kSlackWeights; }

int64_t ParameterCount(const VelocityModel& model) { return WeightCount(model.Parameters()); }

}  // namespace boss
