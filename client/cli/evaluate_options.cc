#include "client/cli/evaluate_options.h"

#include <vector>

#include "absl/strings/str_split.h"
#include "client/cli/parse.h"

namespace boss::client {

using boss::v1::EvaluateSpec;

void AddJudgingOptions(CLI::App& app, std::function<EvaluateSpec*()> spec, const std::string& prefix) {
  const std::string default_steps = prefix == "--" ? "2,4,6,8" : "those of --steps";
  AddParsed(
      app, prefix + "steps", ParseIntegers,
      [spec](const std::vector<int64_t>& steps) { spec()->mutable_steps()->Add(steps.begin(), steps.end()); },
      "Numbers of steps; default " + default_steps);
  Add<int64_t>(
      app, prefix + "num-samples", [spec](int64_t v) { spec()->set_num_samples(v); }, "Samples a row; default 1000");
  Add<std::string>(
      app, "--reference", [spec](const std::string& v) { spec()->set_reference_dataset(v == "none" ? "" : v); },
      "Data set for the Frechet distance; 'none' for no distance; default fashion-mnist-test where it fits");
  Add<std::string>(
      app, "--feature-network", [spec](const std::string& v) { spec()->set_feature_network(v); },
      "Default: the classifier that is stored with the model");
  AddParsed(
      app, "--other-solvers", ParseSolvers,
      [spec](const std::vector<boss::v1::Solver>& solvers) {
        for (const boss::v1::Solver solver : solvers) spec()->add_other_solvers(solver);
      },
      "Judged beside, of heun,multistep: heun with half as many steps, multistep where the version has such schedules");
  AddFlag(
      app, "--straightness", [spec] { spec()->set_measure_straightness(true); }, "Measure straightness too");
}

void AddSamplerOptions(CLI::App& app, std::function<EvaluateSpec*()> spec) {
  Add<std::string>(
      app, "--baseline", [spec](const std::string& v) { spec()->set_baseline(v); },
      "Whose fine samples are the measure; default: the version's parent");
  AddParsed(
      app, "--solver", ParseSolver, [spec](boss::v1::Solver v) { spec()->set_solver(v); }, "Default euler");
  Add<int64_t>(
      app, "--batch-size", [spec](int64_t v) { spec()->set_batch_size(v); }, "Default: the server's choice");
  Add<uint64_t>(
      app, "--seed", [spec](uint64_t v) { spec()->set_seed(v); }, "Of the noises");
  Add<double>(
      app, "-g,--guidance", [spec](double v) { spec()->set_guidance_scale(v); }, "Guidance scale; default 1");
  Add<int32_t>(
      app, "--k-max", [spec](int32_t v) { spec()->set_k_max(v); }, "Steps of the fine sampler; default 100");
  AddFineGrid(app, spec);
  AddFlag(
      app, "--include-fine", [spec] { spec()->set_include_fine(true); }, "Add a row for the fine sampler");
  AddFlag(
      app, "--unconditional", [spec] { spec()->set_unconditional(true); }, "Without class labels");
  Add<std::vector<std::string>>(
      app, "--times",
      [spec](const std::vector<std::string>& lists) {
        for (const std::string& list : lists) {
          const auto times = ParseTimes(list);
          if (!times.ok()) throw CLI::ValidationError("--times", std::string(times.status().message()));
          spec()->add_time_grids()->mutable_time_grid()->Assign(times->begin(), times->end());
        }
      },
      "Times from 0 to 1 to judge too, as a list or in a file; may be repeated")
      ->allow_extra_args(false);
}

}  // namespace boss::client
