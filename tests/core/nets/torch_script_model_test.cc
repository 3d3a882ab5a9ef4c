#include "core/nets/torch_script_model.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "core/base/torch_guard.h"
#include "core/flow/noise.h"
#include "core/nets/architecture.h"
#include "core/nets/decoder.h"
#include "core/nets/factory.h"
#include "core/solver/solver.h"
#include "tests/support/script_modules.h"

namespace boss {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;
using testing::ScriptArchive;

// Of the Gaussian data N(0, kSpread^2 I), for which every posterior mean is linear in the state.
constexpr double kSpread = 0.5;

Json Architecture(Json keys) {
  keys["architecture"] = "torchscript";
  keys["sample_shape"] = {2};
  return {{"model", std::move(keys)}};
}

std::unique_ptr<VelocityModel> Load(const Json& architecture, const std::shared_ptr<const std::string>& archive) {
  auto model = LoadTorchScriptModel(architecture.dump(), archive);
  EXPECT_TRUE(model.ok()) << model.status();
  return model.ok() ? *std::move(model) : nullptr;
}

struct Family {
  std::string name;
  Json keys, time;
  std::string code;
  testing::ScriptTensors buffers;
};

class GaussianTest : public ::testing::TestWithParam<Family> {};

TEST_P(GaussianTest, TheFlowIsTheExactOne) {
  const Family& family = GetParam();
  Json architecture = Architecture(family.keys);
  if (!family.time.is_null()) architecture["time"] = family.time;
  const auto model = Load(architecture, ScriptArchive(family.code, {}, family.buffers));
  ASSERT_NE(model, nullptr);
  // x_t = x_0 sqrt(t^2 s^2 + (1 - t)^2).
  const at::Tensor noise = SampleNoise(3, 0, 64, {2});
  InlineExecutor executor;
  const auto samples =
      Solve(*model, noise, {}, {.solver = SolverKind::kHeun, .time_grid = TimeGrid::Uniform(200)}, 64, executor);
  ASSERT_TRUE(samples.ok()) << samples.status();
  EXPECT_LE((*samples - noise * kSpread).abs().max().item<double>(), 4e-3);
  for (const double t : {0.1, 0.5, 0.9}) {
    const double variance = t * t * kSpread * kSpread + (1 - t) * (1 - t);
    const at::Tensor expected = noise * ((t * kSpread * kSpread - (1 - t)) / variance);
    const at::Tensor velocity = model->Velocity(noise, at::full({64}, t), {});
    EXPECT_LE((velocity - expected).abs().max().item<double>(), 2e-2) << t;
  }
  for (const double t : {0.0, 1.0})
    EXPECT_TRUE(at::isfinite(model->Velocity(noise, at::full({64}, t), {})).all().item<bool>());
}

at::Tensor AlphaBars() { return (1 - at::linspace(1e-4, 0.02, 1000, at::kDouble)).cumprod(0); }

INSTANTIATE_TEST_SUITE_P(
    Families, GaussianTest,
    ::testing::Values(
        Family{"Velocity", {}, {}, R"(
def forward(self, x, t):
    return x * ((t * 0.25 - (1 - t)) / (t * t * 0.25 + (1 - t) * (1 - t))).unsqueeze(1)
)"},
        // Noise minus data, asked at the noise level in thousandths.
        Family{"BackwardVelocity", {{"velocity_sign", -1}, {"time_direction", "data_to_noise"}}, {{"scale", 1000}}, R"(
def forward(self, x, t):
    s = t / 1000
    return x * ((s - (1 - s) * 0.25) / ((1 - s) * (1 - s) * 0.25 + s * s)).unsqueeze(1)
)"},
        Family{"FlowNoise", {{"parameterisation", "noise"}}, {}, R"(
def forward(self, x, t):
    return x * ((1 - t) / (t * t * 0.25 + (1 - t) * (1 - t))).unsqueeze(1)
)"},
        Family{"FlowDenoised", {{"parameterisation", "denoised"}, {"time_direction", "data_to_noise"}}, {}, R"(
def forward(self, x, s):
    return x * ((1 - s) * 0.25 / ((1 - s) * (1 - s) * 0.25 + s * s)).unsqueeze(1)
)"},
        Family{"VpNoise",
               {{"parameterisation", "noise"}, {"process", {{"type", "vp"}, {"time_min", 1e-5}}}},
               {{"scale", 999}},
               R"(
def forward(self, x, t):
    s = t / 999
    a = torch.exp(-(19.9 * s * s / 2 + 0.1 * s))
    return x * (torch.sqrt(1 - a) / (a * 0.25 + 1 - a)).unsqueeze(1)
)"},
        Family{"DiscreteVpNoise",
               {{"parameterisation", "noise"},
                {"process", {{"type", "vp"}, {"schedule", "linear"}, {"integer_time", true}}}},
               {},
               R"(
def forward(self, x, k):
    a = self.alpha_bars[k]
    return (x * (torch.sqrt(1 - a) / (a * 0.25 + 1 - a)).unsqueeze(1)).float()
)",
               {{"alpha_bars", AlphaBars()}}},
        Family{"DiscreteVpV",
               {{"parameterisation", "v"}, {"process", {{"type", "vp"}, {"schedule", "linear"}}}},
               {},
               R"(
def forward(self, x, k):
    low = torch.floor(k).long()
    high = torch.clamp(low + 1, 0, 999)
    log_ratios = torch.log((1 - self.alpha_bars) / self.alpha_bars)
    a = torch.sigmoid(-torch.lerp(log_ratios[low], log_ratios[high], (k - low).double()))
    eps = x * (torch.sqrt(1 - a) / (a * 0.25 + 1 - a)).unsqueeze(1)
    data = x * (torch.sqrt(a) * 0.25 / (a * 0.25 + 1 - a)).unsqueeze(1)
    return (torch.sqrt(a).unsqueeze(1) * eps - torch.sqrt(1 - a).unsqueeze(1) * data).float()
)",
               {{"alpha_bars", AlphaBars()}}},
        Family{"EdmDenoised", {{"parameterisation", "denoised"}, {"process", {{"type", "edm"}}}}, {}, R"(
def forward(self, x, sigma):
    return x * (0.25 / (0.25 + sigma * sigma)).unsqueeze(1)
)"},
        Family{"EdmNoise",
               {{"parameterisation", "noise"}, {"process", {{"type", "edm"}, {"time_input", "c_noise"}}}},
               {},
               R"(
def forward(self, x, c):
    sigma = torch.exp(4 * c)
    return x * (sigma / (0.25 + sigma * sigma)).unsqueeze(1)
)"}),
    [](const auto& info) { return info.param.name; });

TEST(TorchScriptModelTest, InputsComeInTheirOrderOrByTheirNames) {
  const std::string code = R"(
def forward(self, y, embedding, sample, time):
    return sample + 10 * time.unsqueeze(1) + 100 * y.unsqueeze(1) + 1000 * embedding.sum(1, True)
)";
  Json keys = {{"num_classes", 7},
               {"conditioning", {{{"name", "text"}, {"shape", {3}}}}},
               {"inputs", {"class_labels", "text", "x", "t"}}};
  Condition condition;
  condition.class_labels = at::tensor({int64_t{1}, int64_t{2}});
  condition.tensors = {{"text", at::ones({2, 3})}};
  const at::Tensor x = at::ones({2, 2}), t = at::tensor({0.25F, 0.5F});
  const at::Tensor expected = at::tensor({3103.5F, 3206.0F}).unsqueeze(1).expand({2, 2});
  EXPECT_TRUE(at::allclose(Load(Architecture(keys), ScriptArchive(code))->Velocity(x, t, condition), expected));
  keys["inputs"] = {{"class_labels", "y"}, {"text", "embedding"}, {"x", "sample"}, {"t", "time"}};
  const auto named = Load(Architecture(keys), ScriptArchive(code));
  EXPECT_TRUE(at::allclose(named->Velocity(x, t, condition), expected));
  EXPECT_EQ(named->NumClasses(), 7);
  ASSERT_EQ(named->ConditioningSpecs().size(), 1u);
  // No condition: the label after the last, and zeros.
  EXPECT_TRUE(at::allclose(named->Velocity(x, t, {}), at::tensor({703.5F, 706.0F}).unsqueeze(1).expand({2, 2})));
}

TEST(TorchScriptModelTest, ParametersAreTrainedAndSaved) {
  const auto archive = testing::ScriptVectorArchive();
  const auto model = Load(Architecture({}), archive);
  ASSERT_EQ(model->Parameters().size(), 4u);
  const at::Tensor x = at::ones({3, 2}), t = at::full({3}, 0.5F);
  const at::Tensor before = model->Velocity(x, t, {}).detach();
  const auto copy = model->Clone();
  copy->Velocity(x, t, {}).square().sum().backward();
  for (const auto& [name, tensor] : copy->Parameters()) {
    ASSERT_TRUE(tensor.grad().defined()) << name;
    tensor.detach().sub_(tensor.grad());
  }
  EXPECT_FALSE(model->Parameters()[0].second.grad().defined());
  const at::Tensor after = copy->Velocity(x, t, {}).detach();
  EXPECT_FALSE(at::allclose(before, after));
  EXPECT_TRUE(at::equal(model->Velocity(x, t, {}).detach(), before));
  const auto reloaded = Load(Architecture({}), std::make_shared<const std::string>(copy->Archive()));
  EXPECT_TRUE(at::equal(reloaded->Velocity(x, t, {}).detach(), after));
  EXPECT_TRUE(absl::IsUnimplemented(reloaded->AttachLora({}, 0)));
  EXPECT_TRUE(Load(Architecture({{"trainable", false}}), archive)->Parameters().empty());
}

TEST(TorchScriptModelTest, WhatTheModuleThrowsIsAnError) {
  const auto evaluate = [](const std::string& code) {
    const auto model = Load(Architecture({}), ScriptArchive(code));
    return GuardTorch("evaluating", [&] { return model->Velocity(at::ones({2, 2}), at::ones({2}), {}); }).status();
  };
  const absl::Status status =
      evaluate("def forward(self, x, t):\n  assert x.size(0) > 99, 'the gears are stuck'\n  return x\n");
  EXPECT_TRUE(absl::IsInternal(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("the gears are stuck"));
  EXPECT_LE(status.message().size(), 1200u);
  EXPECT_TRUE(absl::IsInvalidArgument(evaluate("def forward(self, x, t):\n  return x[0]\n")));
  EXPECT_TRUE(absl::IsInvalidArgument(evaluate("def forward(self, x, t):\n  return (x, t)\n")));
  EXPECT_TRUE(absl::IsInternal(evaluate("def forward(self, x):\n  return x\n")));
}

TEST(TorchScriptModelTest, ArchivesAndDescriptionsAreChecked) {
  const auto archive = ScriptArchive("def forward(self, x, t):\n  return x\n");
  const auto load = [&](const Json& keys, const std::shared_ptr<const std::string>& bytes) {
    return LoadTorchScriptModel(Architecture(keys).dump(), bytes).status();
  };
  EXPECT_TRUE(absl::IsDataLoss(load({}, std::make_shared<const std::string>("PK no archive"))));
  EXPECT_TRUE(absl::IsDataLoss(load({}, std::make_shared<const std::string>(archive->substr(0, archive->size() / 2)))));
  EXPECT_TRUE(absl::IsInvalidArgument(load({}, ScriptArchive("def backward(self, x):\n  return x\n"))));
  const std::vector<std::pair<Json, std::string>> cases = {
      {{{"sample_form", 1}}, "sample_form"},
      {{{"inputs", {"x"}}}, "expected x, t"},
      {{{"inputs", {"x", "t", "t"}}}, "model.inputs"},
      {{{"parameterisation", "score"}}, "parameterisation"},
      {{{"parameterisation", "v"}}, "vp process"},
      {{{"process", {{"type", "edm"}}}}, "got \"velocity\""},
      {{{"parameterisation", "noise"}, {"process", {{"type", "edm"}, {"sigma_min", 90}}}}, "sigma_min"},
      {{{"parameterisation", "noise"}, {"process", {{"type", "vp"}, {"beta_start", 0.1}}}}, "beta_start"},
      {{{"parameterisation", "noise"}, {"process", {{"type", "vp"}, {"beta_max", -1}}}}, "beta_max"},
      {{{"velocity_sign", 0.5}}, "velocity_sign"},
      {{{"conditioning", {{{"name", "x"}, {"shape", {1}}}}}}, "another input"},
      {{{"conditioning", {{{"name", "a"}, {"shape", {1}}}, {{"name", "a"}, {"shape", {1}}}}}}, "twice"},
  };
  for (const auto& [keys, part] : cases) {
    const absl::Status status = load(keys, archive);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << keys << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(part));
    EXPECT_EQ(DescribeTorchScript(Architecture(keys).dump()).status(), status);
  }
  EXPECT_TRUE(IsTorchScript(Architecture({}).dump()));
  EXPECT_FALSE(IsTorchScript("{}"));
  EXPECT_TRUE(absl::IsInvalidArgument(CreateModel(Architecture({}).dump(), 0).status()));
}

TEST(DecoderTest, TakesLatentsOffTheirScale) {
  Json architecture = Architecture({});
  EXPECT_TRUE(absl::IsNotFound(DecoderConfig::FromArchitecture(architecture.dump()).status()));
  architecture["decoder"] = {{"scale", 0.5}, {"shift", 1}, {"decoded_shape", {1, 4, 4}}};
  EXPECT_TRUE(HasDecoder(architecture.dump()));
  const auto config = DecoderConfig::FromArchitecture(architecture.dump());
  ASSERT_TRUE(config.ok()) << config.status();
  const auto decoder = Decoder::Load(*config, testing::ScriptDecoderArchive());
  ASSERT_TRUE(decoder.ok()) << decoder.status();
  const at::Tensor pixels = (*decoder)->Decode(at::tensor({0.25F, -0.5F, 1.0F, 1.0F}).view({2, 2}));
  EXPECT_TRUE(at::equal(pixels, at::tensor({1.5F, 6.0F}).view({2, 1, 1, 1}).expand({2, 1, 4, 4})));
  EXPECT_EQ((*decoder)->MemoryBytes(), 64);
  architecture["decoder"]["scale"] = 0;
  EXPECT_TRUE(absl::IsInvalidArgument(DecoderConfig::FromArchitecture(architecture.dump()).status()));
}

}  // namespace
}  // namespace boss
