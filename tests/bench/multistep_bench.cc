// What steps that use earlier velocities gain on the embedded model: root mean square error of samples against the fine
// sampler's from the same noises, which no fit has seen, at equal numbers of velocity evaluations.
//
//   multistep_bench [--fit=N] [--judge=N] [--k-max=N] [--guidance=S]        100 noises to fit, 1000 to judge, 100 fine
//   steps, no guidance
#include <ATen/ATen.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"
#include "core/base/status_macros.h"
#include "core/flow/noise.h"
#include "core/io/safetensors.h"
#include "core/nets/factory.h"
#include "core/solver/record_trajectory.h"
#include "core/solver/solver.h"
#include "core/stepsize/cost_matrix.h"
#include "core/stepsize/fit_multistep.h"
#include "core/stepsize/pair_bellman.h"
#include "core/stepsize/step_costs.h"
#include "nlohmann/json.hpp"

namespace boss {
namespace {

constexpr char kModelFolder[] = BOSS_SOURCE_DIR "/deploy/models/fashion-mnist";
constexpr int64_t kBatch = 50;
constexpr int kMostSteps = 10;
constexpr uint64_t kFitSeed = 1, kJudgeSeed = 1'000'000;

struct Options {
  int64_t fit = 100, judge = 1000;
  int k_max = 100;
  double guidance_scale = 1;
};

absl::StatusOr<std::unique_ptr<VelocityModel>> LoadEmbeddedModel() {
  std::ifstream file(std::string(kModelFolder) + "/manifest.json");
  const nlohmann::json manifest = nlohmann::json::parse(file, nullptr, /*allow_exceptions=*/false);
  if (!manifest.is_object() || !manifest.contains("architecture"))
    return absl::NotFoundError(std::string(kModelFolder) + ": no manifest with an architecture");
  BOSS_ASSIGN_OR_RETURN(auto model, CreateModel(manifest["architecture"].dump(), 1));
  BOSS_ASSIGN_OR_RETURN(const Safetensors weights, ReadSafetensors(std::string(kModelFolder) + "/model.safetensors"));
  BOSS_RETURN_IF_ERROR(LoadWeights(*model, weights.tensors));
  model->PrepareForInference(at::kFloat);
  return model;
}

double Error(const at::Tensor& samples, const at::Tensor& fine) {
  return (samples - fine).to(at::kDouble).square().mean().sqrt().item<double>();
}

absl::Status Run(const Options& options) {
  BOSS_ASSIGN_OR_RETURN(const std::unique_ptr<VelocityModel> model, LoadEmbeddedModel());
  InlineExecutor executor;
  const TimeGrid fine_grid = TimeGrid::Uniform(options.k_max);
  const auto condition = [&](int64_t count) {
    return Condition{.class_labels = at::arange(count, at::kLong).remainder(model->NumClasses()),
                     .guidance_scale = options.guidance_scale};
  };

  // Stage 1: the costs of Euler's jumps and of pairs, from the same trajectories.
  CostMatrixAccumulator euler_costs(options.k_max);
  StepCosts step_costs(options.k_max);
  const Condition fit_condition = condition(options.fit);
  std::vector<at::Tensor> states;
  for (int64_t begin = 0; begin < options.fit; begin += kBatch) {
    const int64_t end = std::min(begin + kBatch, options.fit);
    BOSS_ASSIGN_OR_RETURN(const Trajectory trajectory,
                          RecordTrajectory(*model, SampleNoise(kFitSeed, begin, end - begin, model->SampleShape()),
                                           fit_condition.Slice(begin, end), fine_grid, executor));
    BOSS_RETURN_IF_ERROR(euler_costs.Add(trajectory));
    BOSS_RETURN_IF_ERROR(step_costs.Add(trajectory));
    states.push_back(trajectory.states);
  }
  const at::Tensor fine_states = at::cat(states, 1);
  BOSS_ASSIGN_OR_RETURN(std::vector<double> matrix, euler_costs.CostMatrix());
  BOSS_ASSIGN_OR_RETURN(
      const ScheduleSet euler,
      OptimizeSchedules(std::move(matrix), fine_grid, static_cast<int>(options.fit), options.guidance_scale));
  BOSS_ASSIGN_OR_RETURN(const std::vector<double> first, step_costs.FirstCosts());
  BOSS_ASSIGN_OR_RETURN(const std::vector<double> pair, step_costs.PairCosts());
  BOSS_ASSIGN_OR_RETURN(const PairBellmanTable pairs, PairBellmanTable::Solve(first, pair, options.k_max, kMostSteps));

  const at::Tensor noise = SampleNoise(kJudgeSeed, 0, options.judge, model->SampleShape());
  const Condition judge_condition = condition(options.judge);
  BOSS_ASSIGN_OR_RETURN(const at::Tensor fine,
                        Solve(*model, noise, judge_condition, {.time_grid = fine_grid}, kBatch, executor));
  const auto grid_of = [&](const std::vector<int>& knots) {
    std::vector<double> times;
    for (const int knot : knots) times.push_back(fine_grid[knot]);
    return TimeGrid::Create(std::move(times));
  };
  const auto judge = [&](const TimeGrid& grid,
                         const std::vector<StepCoefficients>& coefficients) -> absl::StatusOr<double> {
    BOSS_ASSIGN_OR_RETURN(const at::Tensor samples,
                          SolveMultistep(*model, noise, judge_condition, grid, coefficients, kBatch, executor));
    return Error(samples, fine);
  };
  // Fitted in sequence on the knots; the fit's own held-out error, and that on the noises to judge.
  const auto fit_and_judge = [&](const std::vector<int>& knots) -> absl::StatusOr<std::pair<double, double>> {
    BOSS_ASSIGN_OR_RETURN(const TimeGrid grid, grid_of(knots));
    std::vector<int64_t> indices(knots.begin(), knots.end());
    BOSS_ASSIGN_OR_RETURN(const MultistepFit fit,
                          FitMultistep(*model, fine_states.index_select(0, at::tensor(indices, at::kLong)),
                                       fit_condition, grid, {.batch_size = kBatch}, executor));
    BOSS_ASSIGN_OR_RETURN(const double error, judge(grid, fit.coefficients));
    return std::pair{fit.held_out_error, error};
  };

  std::printf("%ld noises to fit, %ld to judge, %d fine steps, guidance %g\n\n", static_cast<long>(options.fit),
              static_cast<long>(options.judge), options.k_max, options.guidance_scale);
  std::printf("%3s %15s %15s %15s %15s %18s %18s %12s\n", "K", "Euler, uniform", "Euler, Bellman", "AB2, uniform",
              "pairs, local fit", "pairs, fitted", "Bellman, fitted", "best/Bellman");
  for (int steps = 2; steps <= kMostSteps; ++steps) {
    const TimeGrid uniform = TimeGrid::Uniform(steps);
    const Schedule& bellman = euler.schedules[steps - 1];
    const std::vector<int> knots = pairs.Knots(steps);
    BOSS_ASSIGN_OR_RETURN(const TimeGrid pair_grid, grid_of(knots));
    std::vector<StepCoefficients> local{step_costs.FitFirst(knots[0], knots[1]).coefficients};
    for (int k = 1; k < steps; ++k)
      local.push_back(step_costs.FitPair(knots[k - 1], knots[k], knots[k + 1]).coefficients);
    BOSS_ASSIGN_OR_RETURN(const double euler_uniform, judge(uniform, AdamsBashforth(uniform, 1)));
    BOSS_ASSIGN_OR_RETURN(const double euler_bellman, judge(bellman.time_grid, AdamsBashforth(bellman.time_grid, 1)));
    BOSS_ASSIGN_OR_RETURN(const double ab2, judge(uniform, AdamsBashforth(uniform, 2)));
    BOSS_ASSIGN_OR_RETURN(const double pairs_local, judge(pair_grid, local));
    BOSS_ASSIGN_OR_RETURN(const auto pairs_fitted, fit_and_judge(knots));
    BOSS_ASSIGN_OR_RETURN(const auto bellman_fitted, fit_and_judge(bellman.knots));
    // As a product would choose: by the fits' own held-out error.
    const double chosen = pairs_fitted.first <= bellman_fitted.first ? pairs_fitted.second : bellman_fitted.second;
    std::printf("%3d %15.4f %15.4f %15.4f %15.4f %18.4f %18.4f %12.3f\n", steps, euler_uniform, euler_bellman, ab2,
                pairs_local, pairs_fitted.second, bellman_fitted.second, chosen / euler_bellman);
    std::fflush(stdout);
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace boss

int main(int argc, char** argv) {
  boss::Options options;
  bool ok = true;
  for (int i = 1; i < argc; ++i) {
    absl::string_view argument = argv[i];
    if (absl::ConsumePrefix(&argument, "--fit=")) {
      ok = ok && absl::SimpleAtoi(argument, &options.fit) && options.fit >= 2;
    } else if (absl::ConsumePrefix(&argument, "--judge=")) {
      ok = ok && absl::SimpleAtoi(argument, &options.judge) && options.judge >= 1;
    } else if (absl::ConsumePrefix(&argument, "--k-max=")) {
      ok = ok && absl::SimpleAtoi(argument, &options.k_max) && options.k_max >= 10;
    } else if (absl::ConsumePrefix(&argument, "--guidance=")) {
      ok = ok && absl::SimpleAtod(argument, &options.guidance_scale);
    } else {
      ok = false;
    }
  }
  if (!ok) {
    std::fprintf(stderr, "usage: %s [--fit=N] [--judge=N] [--k-max=N] [--guidance=S]\n", argv[0]);
    return 2;
  }
  const absl::Status status = boss::Run(options);
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
