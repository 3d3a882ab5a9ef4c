#include "client/schedule_export.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/format.h"

namespace boss::client {
namespace {

// Keys in the order in which they are read.
using Json = nlohmann::ordered_json;

constexpr std::pair<const char*, ExportFormat> kFormats[] = {{"json", ExportFormat::kJson},
                                                             {"diffusers", ExportFormat::kDiffusers},
                                                             {"comfyui", ExportFormat::kComfyUi},
                                                             {"sd-cpp", ExportFormat::kSdCpp},
                                                             {"flow-matching", ExportFormat::kFlowMatching}};

const char* NameOf(ExportFormat format) {
  for (const auto& [name, known] : kFormats) {
    if (known == format) return name;
  }
  return "unknown";
}

std::vector<double> Times(const ExportedSchedule& exported) {
  return {exported.schedule.time_grid().begin(), exported.schedule.time_grid().end()};
}

std::vector<double> Sigmas(const ExportedSchedule& exported) {
  std::vector<double> sigmas;
  for (const double t : exported.schedule.time_grid()) sigmas.push_back(1 - t);
  return sigmas;
}

int64_t Evaluations(const ExportedSchedule& exported) {
  return int64_t{exported.schedule.steps()} * (exported.solver == boss::v1::SOLVER_HEUN ? 2 : 1) *
         (exported.guidance_scale == 1 ? 1 : 2);
}

// Never with an exponent, which ComfyUI reads as two numbers.
std::string FixedNotation(double value) {
  std::string text = absl::StrFormat("%.15f", value);
  const size_t last = text.find_last_not_of('0');
  text.resize(last + (text[last] == '.' ? 2 : 1));
  return text;
}

std::string SigmaList(const ExportedSchedule& exported, const char* separator) {
  return absl::StrCat(absl::StrJoin(Sigmas(exported), separator,
                                    [](std::string* out, double sigma) { absl::StrAppend(out, FixedNotation(sigma)); }),
                      "\n");
}

std::string JsonText(const Json& json) { return absl::StrCat(json.dump(1), "\n"); }

Json Origin(const ExportedSchedule& exported) {
  return {{"model", exported.model},
          {"schedule_set", exported.schedule_set},
          {"solver", SolverName(exported.solver)},
          {"steps", exported.schedule.steps()},
          {"nfe", Evaluations(exported)},
          {"guidance_scale", exported.guidance_scale}};
}

std::string FullJson(const ExportedSchedule& exported) {
  Json json = Origin(exported);
  json["t"] = Times(exported);
  json["sigmas"] = Sigmas(exported);
  for (const boss::v1::StepCoefficients& step : exported.schedule.coefficients()) {
    json["coefficients"].push_back(
        {{"state", step.state()},
         {"velocities", std::vector<double>(step.velocities().begin(), step.velocities().end())}});
  }
  const boss::v1::Schedule& schedule = exported.schedule;
  const bool is_multistep = exported.solver == boss::v1::SOLVER_MULTISTEP;
  const auto or_null = [](bool is_known, auto value) { return is_known ? Json(value) : Json(); };
  json["k_max"] = or_null(exported.k_max > 0, exported.k_max);
  json["num_samples"] = or_null(exported.num_samples > 0, exported.num_samples);
  if (is_multistep) {
    json["num_held_out"] = or_null(exported.num_held_out > 0, exported.num_held_out);
    json["fit_error"] = schedule.fit_error();
    json["held_out_error"] = schedule.held_out_error();
  }
  // A version's own times have none where they were not searched by their costs.
  const bool has_cost =
      exported.k_max > 0 && !is_multistep && (!exported.schedule_set.empty() || schedule.total_cost() > 0);
  json["cost"] = or_null(has_cost, schedule.total_cost());
  json["resolution"] =
      std::vector<int64_t>(exported.network.sample_shape().begin(), exported.network.sample_shape().end());
  json["time_map"] = {{"eps", exported.network.time_map().eps()}, {"scale", exported.network.time_map().scale()}};
  json["weights_sha256"] = exported.weights_sha256;
  return JsonText(json);
}

std::string Diffusers(const ExportedSchedule& exported, const ExportOptions& options) {
  const std::vector<double> reached = Sigmas(exported);
  std::vector<double> given(reached.begin(), reached.end() - 1);  // the scheduler appends the 0 itself
  for (double& sigma : given) {
    if (options.shift) sigma = InvertShift(sigma, *options.shift);
    if (options.mu) sigma = InvertExponentialShift(sigma, *options.mu);
  }
  Json json = {{"_class_name", "FlowMatchEulerDiscreteScheduler"},
               {"scheduler_config",
                {{"num_train_timesteps", 1000},
                 {"shift", options.shift.value_or(1.0)},
                 {"use_dynamic_shifting", options.mu.has_value()},
                 {"time_shift_type", "exponential"},
                 {"shift_terminal", nullptr},
                 {"use_karras_sigmas", false},
                 {"use_exponential_sigmas", false},
                 {"use_beta_sigmas", false},
                 {"invert_sigmas", false},
                 {"stochastic_sampling", false}}},
               {"sigmas", given},
               {"set_timesteps", Json::object()},
               {"resulting_sigmas", reached},
               {"usage",
                "scheduler = FlowMatchEulerDiscreteScheduler.from_config(d['scheduler_config']); "
                "scheduler.set_timesteps(sigmas=d['sigmas'], **d['set_timesteps'])"},
               {"origin", Origin(exported)}};
  if (options.mu) json["set_timesteps"]["mu"] = *options.mu;
  return JsonText(json);
}

std::string FlowMatching(const ExportedSchedule& exported) {
  return absl::StrCat("# ", exported.model, ": ", exported.schedule.steps(), " steps of ", SolverName(exported.solver),
                      ", guidance scale ", FormatReal(exported.guidance_scale), "\n", "time_grid = torch.tensor(",
                      Json(Times(exported)).dump(), ")\n", "method = \"",
                      exported.solver == boss::v1::SOLVER_HEUN ? "heun2" : "euler", "\"\n",
                      "# ODESolver(velocity_model).sample(x_init=x_0, step_size=None, method=method, "
                      "time_grid=time_grid)\n");
}

absl::Status CheckShift(const ExportOptions& options) {
  if (!options.shift && !options.mu) return absl::OkStatus();
  if (options.format != ExportFormat::kDiffusers) {
    return absl::InvalidArgumentError(
        absl::StrCat("a shift is for the format diffusers: ", NameOf(options.format), " takes the sigmas as they are"));
  }
  if (options.shift && options.mu)
    return absl::InvalidArgumentError("a scheduler shifts either statically or by mu, got both");
  if (options.shift && !(*options.shift > 0 && std::isfinite(*options.shift)))
    return absl::InvalidArgumentError(absl::StrCat("shift: got ", *options.shift, ", expected a number above 0"));
  if (options.mu && !std::isfinite(*options.mu))
    return absl::InvalidArgumentError(absl::StrCat("mu: got ", *options.mu, ", expected a finite number"));
  return absl::OkStatus();
}

absl::Status CheckSolver(boss::v1::Solver solver, ExportFormat format) {
  if (solver == boss::v1::SOLVER_EULER || format == ExportFormat::kJson) return absl::OkStatus();
  if (solver == boss::v1::SOLVER_HEUN && format == ExportFormat::kFlowMatching) return absl::OkStatus();
  if (solver == boss::v1::SOLVER_MULTISTEP) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the format ", NameOf(format),
        " has no place for the coefficients of the solver multistep: ", NameOf(ExportFormat::kJson), " has"));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("the format ", NameOf(format), " cannot express the solver ", SolverName(solver), ": ",
                   format == ExportFormat::kDiffusers      ? "FlowMatchEulerDiscreteScheduler takes Euler steps"
                   : format == ExportFormat::kFlowMatching ? "expected euler or heun"
                                                           : "its sampler of that name takes the last step by Euler"));
}

}  // namespace

absl::StatusOr<ExportFormat> ParseExportFormat(absl::string_view name) {
  for (const auto& [known, format] : kFormats) {
    if (known == name) return format;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("got '", name, "', expected json, diffusers, comfyui, sd-cpp or flow-matching"));
}

double InvertShift(double sigma, double shift) { return sigma / (shift - (shift - 1) * sigma); }

double InvertExponentialShift(double sigma, double mu) { return sigma / (sigma + std::exp(mu) * (1 - sigma)); }

absl::StatusOr<std::string> ExportSchedule(const ExportedSchedule& exported, const ExportOptions& options) {
  for (const absl::Status& status : {CheckShift(options), CheckSolver(exported.solver, options.format)}) {
    if (!status.ok()) return status;
  }
  switch (options.format) {
    case ExportFormat::kJson:
      return FullJson(exported);
    case ExportFormat::kDiffusers:
      return Diffusers(exported, options);
    case ExportFormat::kComfyUi:
      return SigmaList(exported, ", ");
    case ExportFormat::kSdCpp:
      return SigmaList(exported, ",");
    case ExportFormat::kFlowMatching:
      return FlowMatching(exported);
  }
  return absl::InternalError("unknown format");
}

}  // namespace boss::client
