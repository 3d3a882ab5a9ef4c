#include "client/schedule_export.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace boss::client {
namespace {

using ::testing::HasSubstr;

ExportedSchedule Example() {
  ExportedSchedule exported;
  exported.model = "flow@3";
  exported.schedule_set = "bellman-euler-g1-k100";
  exported.schedule.set_steps(3);
  for (const double t : {0.0, 0.25, 0.9999, 1.0}) exported.schedule.add_time_grid(t);
  exported.schedule.set_total_cost(0.125);
  exported.k_max = 100;
  exported.num_samples = 50;
  exported.weights_sha256 = "ab12";
  for (const int size : {3, 16, 16}) exported.network.add_sample_shape(size);
  exported.network.mutable_time_map()->set_eps(0.001);
  exported.network.mutable_time_map()->set_scale(999);
  return exported;
}

std::string Export(ExportFormat format, const ExportedSchedule& exported = Example()) {
  const auto text = ExportSchedule(exported, {.format = format});
  EXPECT_TRUE(text.ok()) << text.status();
  return text.ok() ? *text : "";
}

nlohmann::json Diffusers(const ExportOptions& options) {
  const auto text = ExportSchedule(Example(), options);
  EXPECT_TRUE(text.ok()) << text.status();
  return nlohmann::json::parse(*text);
}

std::string Refusal(const ExportedSchedule& exported, const ExportOptions& options) {
  const auto text = ExportSchedule(exported, options);
  EXPECT_TRUE(absl::IsInvalidArgument(text.status())) << text.status();
  return std::string(text.status().message());
}

TEST(ScheduleExportTest, JsonSaysEverything) {
  const auto json = nlohmann::json::parse(Export(ExportFormat::kJson));
  EXPECT_EQ(json["t"], (std::vector<double>{0, 0.25, 0.9999, 1}));
  EXPECT_EQ(json["sigmas"], (std::vector<double>{1, 0.75, 1 - 0.9999, 0}));
  EXPECT_EQ(json["model"], "flow@3");
  EXPECT_EQ(json["schedule_set"], "bellman-euler-g1-k100");
  EXPECT_EQ(json["solver"], "euler");
  EXPECT_EQ(json["steps"], 3);
  EXPECT_EQ(json["nfe"], 3);
  EXPECT_EQ(json["guidance_scale"], 1);
  EXPECT_EQ(json["k_max"], 100);
  EXPECT_EQ(json["num_samples"], 50);
  EXPECT_EQ(json["cost"], 0.125);
  EXPECT_EQ(json["resolution"], (std::vector<int>{3, 16, 16}));
  EXPECT_EQ(json["time_map"], (nlohmann::json{{"eps", 0.001}, {"scale", 999}}));
  EXPECT_EQ(json["weights_sha256"], "ab12");
}

TEST(ScheduleExportTest, WhatWasNotSearchedHasNoCost) {
  ExportedSchedule imported = Example();
  imported.k_max = imported.num_samples = 0;
  imported.solver = boss::v1::SOLVER_HEUN;
  imported.guidance_scale = 2.5;
  const auto json = nlohmann::json::parse(Export(ExportFormat::kJson, imported));
  for (const char* key : {"k_max", "num_samples", "cost"}) EXPECT_TRUE(json[key].is_null()) << key;
  EXPECT_EQ(json["nfe"], 12);  // Heun evaluates twice, guidance again
}

TEST(ScheduleExportTest, JsonHasTheCoefficientsOfEachStep) {
  ExportedSchedule multistep = Example();
  multistep.solver = boss::v1::SOLVER_MULTISTEP;
  for (const double weight : {0.25, 0.5}) {
    auto& step = *multistep.schedule.add_coefficients();
    step.set_state(1);
    step.add_velocities(weight);
    step.add_velocities(-weight);
  }
  const auto json = nlohmann::json::parse(Export(ExportFormat::kJson, multistep));
  ASSERT_EQ(json["coefficients"].size(), 2);
  EXPECT_EQ(json["coefficients"][1], (nlohmann::json{{"state", 1}, {"velocities", {0.5, -0.5}}}));
  EXPECT_FALSE(nlohmann::json::parse(Export(ExportFormat::kJson)).contains("coefficients"));
}

TEST(ScheduleExportTest, JsonHasTheErrorsOfMultistepAndNoCost) {
  ExportedSchedule multistep = Example();
  multistep.solver = boss::v1::SOLVER_MULTISTEP;
  multistep.schedule.clear_total_cost();
  multistep.schedule.set_fit_error(0.25);
  multistep.schedule.set_held_out_error(0.375);
  multistep.num_held_out = 12;
  auto json = nlohmann::json::parse(Export(ExportFormat::kJson, multistep));
  EXPECT_EQ(json["fit_error"], 0.25);
  EXPECT_EQ(json["held_out_error"], 0.375);
  EXPECT_EQ(json["num_samples"], 50);
  EXPECT_EQ(json["num_held_out"], 12);
  EXPECT_TRUE(json["cost"].is_null());
  // Of coefficients that an earlier version stored.
  multistep.num_samples = multistep.num_held_out = 0;
  json = nlohmann::json::parse(Export(ExportFormat::kJson, multistep));
  for (const char* key : {"num_samples", "num_held_out"}) EXPECT_TRUE(json.contains(key) && json[key].is_null()) << key;
  EXPECT_EQ(json["held_out_error"], 0.375);
  const auto euler = nlohmann::json::parse(Export(ExportFormat::kJson));
  for (const char* key : {"fit_error", "held_out_error", "num_held_out"}) EXPECT_FALSE(euler.contains(key)) << key;
}

TEST(ScheduleExportTest, DiffusersGetsSigmasThatNothingShifts) {
  const auto json = Diffusers({.format = ExportFormat::kDiffusers});
  EXPECT_EQ(json["_class_name"], "FlowMatchEulerDiscreteScheduler");
  EXPECT_EQ(json["sigmas"], (std::vector<double>{1, 0.75, 1 - 0.9999}));  // the scheduler appends the 0
  EXPECT_EQ(json["set_timesteps"], nlohmann::json::object());
  const auto& config = json["scheduler_config"];
  EXPECT_EQ(config["shift"], 1);
  EXPECT_EQ(config["num_train_timesteps"], 1000);
  EXPECT_TRUE(config["shift_terminal"].is_null());
  for (const char* off : {"use_dynamic_shifting", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas",
                          "invert_sigmas", "stochastic_sampling"}) {
    EXPECT_EQ(config[off], false) << off;
  }
}

TEST(ScheduleExportTest, AStaticShiftIsUndoneBeforehand) {
  const double shift = 3;
  const auto json = Diffusers({.format = ExportFormat::kDiffusers, .shift = shift});
  EXPECT_EQ(json["scheduler_config"]["shift"], shift);
  EXPECT_EQ(json["scheduler_config"]["use_dynamic_shifting"], false);
  const std::vector<double> sigmas = json["sigmas"], expected = {1, 0.75, 1 - 0.9999};
  for (size_t i = 0; i < expected.size(); ++i) {
    // As the scheduler shifts.
    EXPECT_NEAR(shift * sigmas[i] / (1 + (shift - 1) * sigmas[i]), expected[i], 1e-15);
  }
  EXPECT_LT(sigmas[1], 0.6);
}

TEST(ScheduleExportTest, AnExponentialShiftIsUndoneBeforehand) {
  for (const double mu : {-0.7, 1.15}) {
    const auto json = Diffusers({.format = ExportFormat::kDiffusers, .mu = mu});
    EXPECT_EQ(json["scheduler_config"]["use_dynamic_shifting"], true);
    EXPECT_EQ(json["scheduler_config"]["time_shift_type"], "exponential");
    EXPECT_EQ(json["set_timesteps"]["mu"], mu);
    const std::vector<double> sigmas = json["sigmas"], expected = {1, 0.75, 1 - 0.9999};
    for (size_t i = 0; i < expected.size(); ++i)
      EXPECT_NEAR(std::exp(mu) / (std::exp(mu) + (1 / sigmas[i] - 1)), expected[i], 1e-15);
  }
}

TEST(ScheduleExportTest, InversionsKeepTheEnds) {
  for (const double end : {0.0, 1.0}) {
    EXPECT_EQ(InvertShift(end, 12), end);
    EXPECT_EQ(InvertExponentialShift(end, 1.15), end);
  }
}

TEST(ScheduleExportTest, TextFormsHaveAllSigmasWithoutExponents) {
  EXPECT_EQ(Export(ExportFormat::kComfyUi), "1.0, 0.75, 0.0001, 0.0\n");
  EXPECT_EQ(Export(ExportFormat::kSdCpp), "1.0,0.75,0.0001,0.0\n");
}

TEST(ScheduleExportTest, FlowMatchingGetsTimesAsPython) {
  EXPECT_THAT(Export(ExportFormat::kFlowMatching),
              HasSubstr("time_grid = torch.tensor([0.0,0.25,0.9999,1.0])\nmethod = \"euler\"\n"));
  ExportedSchedule heun = Example();
  heun.solver = boss::v1::SOLVER_HEUN;
  EXPECT_THAT(Export(ExportFormat::kFlowMatching, heun), HasSubstr("method = \"heun2\"\n"));
}

TEST(ScheduleExportTest, SolversThatAFormatCannotExpressAreRefused) {
  ExportedSchedule heun = Example();
  heun.solver = boss::v1::SOLVER_HEUN;
  EXPECT_THAT(Refusal(heun, {.format = ExportFormat::kDiffusers}),
              HasSubstr("diffusers cannot express the solver heun: FlowMatchEulerDiscreteScheduler"));
  EXPECT_THAT(Refusal(heun, {.format = ExportFormat::kComfyUi}), HasSubstr("comfyui cannot express the solver heun"));
  EXPECT_THAT(Refusal(heun, {.format = ExportFormat::kSdCpp}), HasSubstr("sd-cpp cannot express the solver heun"));
  ExportedSchedule multistep = Example();
  multistep.solver = boss::v1::SOLVER_MULTISTEP;
  for (const ExportFormat format : {ExportFormat::kFlowMatching, ExportFormat::kDiffusers, ExportFormat::kSdCpp}) {
    EXPECT_THAT(Refusal(multistep, {.format = format}), HasSubstr("coefficients of the solver multistep: json has"));
  }
}

TEST(ScheduleExportTest, ShiftsBelongToDiffusersAlone) {
  EXPECT_THAT(Refusal(Example(), {.format = ExportFormat::kComfyUi, .shift = 3}), HasSubstr("comfyui"));
  const ExportFormat diffusers = ExportFormat::kDiffusers;
  EXPECT_THAT(Refusal(Example(), {.format = diffusers, .shift = 3, .mu = 1}), HasSubstr("got both"));
  for (const double wrong : {0.0, -1.0, std::nan("")})
    EXPECT_THAT(Refusal(Example(), {.format = diffusers, .shift = wrong}), HasSubstr("above 0"));
  EXPECT_THAT(Refusal(Example(), {.format = diffusers, .mu = INFINITY}), HasSubstr("finite"));
}

TEST(ScheduleExportTest, FormatsHaveNames) {
  EXPECT_EQ(*ParseExportFormat("sd-cpp"), ExportFormat::kSdCpp);
  EXPECT_EQ(*ParseExportFormat("flow-matching"), ExportFormat::kFlowMatching);
  EXPECT_THAT(std::string(ParseExportFormat("onnx").status().message()), HasSubstr("got 'onnx', expected json"));
}

}  // namespace
}  // namespace boss::client
