#include "core/nets/torch_script_model.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/jit/api/module.h>

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>
#include <set>
#include <sstream>
#include <unordered_map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"
#include "core/nets/architecture.h"
#include "core/nets/conditioning.h"
#include "core/nets/diffusion.h"
#include "core/nets/torch_script_archive.h"

namespace boss {
namespace {

constexpr size_t kMaxDimensions = 8;
constexpr int64_t kMaxElements = int64_t{1} << 28;
constexpr char kX[] = "x", kT[] = "t", kLabels[] = "class_labels";

struct Config {
  TorchScriptShape shape;
  PredictionMap prediction;
  std::vector<std::string> positional;       // what forward() takes, in order
  std::map<std::string, std::string> named;  // or by the names of its arguments
};

absl::StatusOr<TorchScriptShape> ReadShape(const JsonObject& model) {
  TorchScriptShape shape;
  BOSS_ASSIGN_OR_RETURN(shape.sample_shape, model.Integers("sample_shape", 1, kMaxElements));
  const double elements =
      std::accumulate(shape.sample_shape.begin(), shape.sample_shape.end(), 1.0, std::multiplies<>());
  if (shape.sample_shape.empty() || shape.sample_shape.size() > kMaxDimensions ||
      elements > static_cast<double>(kMaxElements))
    return absl::InvalidArgumentError(absl::StrCat("model.sample_shape: expected 1 to ", kMaxDimensions,
                                                   " sizes and up to ", kMaxElements, " elements"));
  BOSS_ASSIGN_OR_RETURN(shape.num_classes, model.IntegerOr("num_classes", 0, 0, 1'000'000));
  BOSS_ASSIGN_OR_RETURN(shape.conditioning, ConditioningFromJson(model));
  for (const ConditioningSpec& spec : shape.conditioning) {
    if (spec.name == kX || spec.name == kT || spec.name == kLabels)
      return absl::InvalidArgumentError(absl::StrCat("conditioning: \"", spec.name, "\" is the name of another input"));
  }
  BOSS_ASSIGN_OR_RETURN(shape.trainable, model.BooleanOr("trainable", true));
  return shape;
}

// Fills in `positional` or `named`. \error INVALID_ARGUMENT if the inputs are not exactly those that the model has.
absl::Status ReadInputs(const JsonObject& model, Config& config) {
  std::vector<std::string> expected = {kX, kT};
  if (config.shape.num_classes > 0) expected.emplace_back(kLabels);
  for (const ConditioningSpec& spec : config.shape.conditioning) expected.push_back(spec.name);
  if (!model.Has("inputs")) {
    config.positional = expected;
    return absl::OkStatus();
  }
  std::vector<std::string> given;
  if (model.HasArray("inputs")) {
    BOSS_ASSIGN_OR_RETURN(config.positional, model.Strings("inputs", 64));
    given = config.positional;
  } else {
    BOSS_ASSIGN_OR_RETURN(const JsonObject inputs, model.Object("inputs"));
    given = inputs.Keys();
    for (const std::string& input : given) {
      BOSS_ASSIGN_OR_RETURN(config.named[input], inputs.String(input, 63));
    }
  }
  std::vector<std::string> sorted = expected;
  std::sort(sorted.begin(), sorted.end());
  std::sort(given.begin(), given.end());
  if (given == sorted) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("model.inputs: got ", absl::StrJoin(given, ", "), ", expected ",
                                                 absl::StrJoin(expected, ", "), " in some order"));
}

absl::StatusOr<Config> ReadConfig(std::string_view architecture_json) {
  BOSS_ASSIGN_OR_RETURN(const Architecture architecture, Architecture::Parse(architecture_json));
  const JsonObject& model = architecture.model;
  BOSS_RETURN_IF_ERROR(model.ChoiceOr("architecture", {"torchscript"}).status());
  BOSS_ASSIGN_OR_RETURN(TorchScriptShape shape, ReadShape(model));
  BOSS_ASSIGN_OR_RETURN(PredictionMap prediction, PredictionMap::FromJson(model, architecture.time_map));
  Config config = {std::move(shape), std::move(prediction), {}, {}};
  BOSS_RETURN_IF_ERROR(ReadInputs(model, config));
  BOSS_RETURN_IF_ERROR(model.CheckAllRead());
  return config;
}

class TorchScriptModel final : public VelocityModel {
 public:
  // `module` becomes the model's own.
  TorchScriptModel(Config config, torch::jit::Module module) : config_(std::move(config)), module_(std::move(module)) {
    MarkParameters();
  }

  at::Tensor Velocity(const at::Tensor& x_t, const at::Tensor& t, const Condition& condition) const override {
    const PredictionMap::Query query = config_.prediction.Ask(x_t, t);
    std::vector<c10::IValue> positional;
    std::unordered_map<std::string, c10::IValue> named;
    for (const std::string& input : config_.positional) positional.emplace_back(Input(input, query, x_t, condition));
    for (const auto& [input, argument] : config_.named) named.emplace(argument, Input(input, query, x_t, condition));
    return config_.prediction.Velocity(query,
                                       CallTorchScript(module_, std::move(positional), named, x_t.sizes().vec()));
  }

  std::vector<int64_t> SampleShape() const override { return config_.shape.sample_shape; }
  int64_t NumClasses() const override { return config_.shape.num_classes; }
  std::vector<ConditioningSpec> ConditioningSpecs() const override { return config_.shape.conditioning; }

  std::vector<std::pair<std::string, at::Tensor>> Parameters() const override {
    return config_.shape.trainable ? FloatParameters() : std::vector<std::pair<std::string, at::Tensor>>();
  }
  std::vector<std::pair<std::string, at::Tensor>> State() const override {
    std::vector<std::pair<std::string, at::Tensor>> state = FloatParameters();
    for (const auto& buffer : module_.named_buffers()) {
      if (buffer.value.is_floating_point()) state.emplace_back(buffer.name, buffer.value);
    }
    return state;
  }

  std::string Archive() const override {
    std::ostringstream out;
    (device().is_cpu() ? module_ : module_.deepcopy(at::kCPU)).save(out);
    return std::move(out).str();
  }
  std::unique_ptr<VelocityModel> Clone() const override {
    // So that the copies are leaves that can be trained.
    const c10::InferenceMode no_inference_mode(false);
    const c10::NoGradGuard no_grad;
    return std::make_unique<TorchScriptModel>(config_, module_.deepcopy());
  }
  void To(at::Device device) override {
    const c10::InferenceMode no_inference_mode(false);
    const c10::NoGradGuard no_grad;
    module_.to(device);
    config_.prediction.To(device);
    device_ = device;
  }
  at::Device device() const override { return device_; }

  absl::Status AttachLora(const LoraOptions& options, uint64_t seed) override {
    return absl::UnimplementedError(
        "a TorchScript module takes no LoRA adapter, because its layers are its own; train all of it instead");
  }
  void MergeLora() override {}

 private:
  // Weights that several layers share come once, under the first name.
  std::vector<std::pair<std::string, at::Tensor>> FloatParameters() const {
    std::vector<std::pair<std::string, at::Tensor>> parameters;
    std::set<const c10::TensorImpl*> seen;
    for (const auto& parameter : module_.named_parameters()) {
      if (parameter.value.is_floating_point() && seen.insert(parameter.value.unsafeGetTensorImpl()).second)
        parameters.emplace_back(parameter.name, parameter.value);
    }
    return parameters;
  }
  void MarkParameters() {
    for (const auto& [name, tensor] : FloatParameters()) tensor.set_requires_grad(config_.shape.trainable);
  }
  c10::IValue Input(const std::string& input, const PredictionMap::Query& query, const at::Tensor& x_t,
                    const Condition& condition) const {
    if (input == kX) return query.x;
    if (input == kT) return query.t;
    if (input == kLabels) {
      if (condition.class_labels.defined()) return condition.class_labels;
      return at::full({x_t.size(0)}, config_.shape.num_classes, x_t.options().dtype(at::kLong));
    }
    const auto& specs = config_.shape.conditioning;
    const auto spec =
        std::find_if(specs.begin(), specs.end(), [&](const ConditioningSpec& each) { return each.name == input; });
    return TensorOrNone(condition, *spec, x_t);
  }

  Config config_;
  torch::jit::Module module_;
  at::Device device_ = at::kCPU;
};

}  // namespace

absl::StatusOr<TorchScriptShape> DescribeTorchScript(std::string_view architecture_json) {
  return GuardTorch("reading a description", [&]() -> absl::StatusOr<TorchScriptShape> {
    BOSS_ASSIGN_OR_RETURN(Config config, ReadConfig(architecture_json));
    return std::move(config.shape);
  });
}

absl::StatusOr<std::unique_ptr<VelocityModel>> LoadTorchScriptModel(std::string_view architecture_json,
                                                                    std::shared_ptr<const std::string> archive) {
  return GuardTorch("loading a TorchScript module", [&]() -> absl::StatusOr<std::unique_ptr<VelocityModel>> {
    BOSS_ASSIGN_OR_RETURN(Config config, ReadConfig(architecture_json));
    BOSS_ASSIGN_OR_RETURN(const std::unique_ptr<torch::jit::Module> module, LoadTorchScript(archive));
    return std::make_unique<TorchScriptModel>(std::move(config), std::move(*module));
  });
}

}  // namespace boss
