// What the embedded model's network costs by itself: bare evaluations of each batch size, a straightening train step,
// and stage 1 (fine trajectories and their cost matrix); and what the fast forms of it change in the results.
//
//   network_bench [--threads=N] [--rounds=N] [--batch=N] [--dtype=float32|bfloat16|unprepared] [evaluations] [accuracy]
//   [train] [stage1]
//
// All of them by default, with one thread a core; evaluations of 1 to 128 samples, or of --batch alone.
//
// Beside the table there is a line a number for other programs: "result NAME threads N batch N seconds S", the median
// over the rounds.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"
#include "core/base/status_macros.h"
#include "core/finetune/objectives.h"
#include "core/finetune/trainer.h"
#include "core/flow/noise.h"
#include "core/nets/factory.h"
#include "core/solver/record_trajectory.h"
#include "core/stepsize/cost_matrix.h"
#include "tests/bench/embedded_model.h"

namespace boss {
namespace {

constexpr int64_t kTrainBatch = 32, kPairs = 256;
constexpr int64_t kStage1Samples = 32;
constexpr int kKMax = 50;
constexpr int kTrainSteps = 8;  // of one round
constexpr int64_t kAccuracySamples = 64;
constexpr int kAccuracySteps = 8;
constexpr double kWindow = 1;  // seconds of one round of evaluations

struct Options {
  int threads = at::get_num_threads();
  int rounds = 3;
  int64_t batch = 0;  // of the evaluations; 0: several
  std::string dtype = "float32";
  std::set<std::string> wanted;
  bool Wants(const char* what) const { return wanted.empty() || wanted.contains(what); }
};

double Seconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Seconds of one call of `work`: the median over rounds of `calls` calls each, after one round that does not count.
double MedianSeconds(const Options& options, int calls, const std::function<void()>& work) {
  const auto round = [&] {
    return Seconds([&] {
             for (int i = 0; i < calls; ++i) work();
           }) /
           calls;
  };
  round();
  std::vector<double> seconds;
  for (int i = 0; i < options.rounds; ++i) seconds.push_back(round());
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

void Report(const Options& options, const char* name, int64_t batch, double seconds) {
  std::printf("%-14s batch %4ld %12.3f ms %12.1f a second\n", name, static_cast<long>(batch), seconds * 1e3,
              static_cast<double>(batch) / seconds);
  std::printf("result %s threads %d batch %ld seconds %.9f\n", name, options.threads, static_cast<long>(batch),
              seconds);
}

void Evaluations(const Options& options, const VelocityModel& model) {
  std::vector<int64_t> batches{1, 2, 4, 8, 16, 32, 64, 128};
  if (options.batch > 0) batches = {options.batch};
  for (const int64_t batch : batches) {
    const at::Tensor x = SampleNoise(1, 0, batch, model.SampleShape());
    const at::Tensor t = at::full({batch}, 0.5);
    const auto evaluate = [&] {
      const c10::InferenceMode inference_mode;
      model.Velocity(x, t, {});
    };
    evaluate();
    const int calls = std::max(1, static_cast<int>(kWindow / Seconds(evaluate)));
    Report(options, "evaluation", batch, MedianSeconds(options, calls, evaluate));
  }
}

// What preparing the weights and bfloat16 change: of one velocity, and of samples of kAccuracySteps uniform steps.
void Accuracy(const VelocityModel& unprepared) {
  const c10::InferenceMode inference_mode;
  const at::Tensor noise = SampleNoise(1, 0, kAccuracySamples, unprepared.SampleShape());
  const auto sample = [&](const VelocityModel& model) {
    at::Tensor x = noise;
    for (int step = 0; step < kAccuracySteps; ++step) {
      const double t = static_cast<double>(step) / kAccuracySteps;
      x = x + model.Velocity(x, at::full({kAccuracySamples}, t), {}) / kAccuracySteps;
    }
    return x;
  };
  const at::Tensor t = at::linspace(0, 1, kAccuracySamples);
  const at::Tensor velocity = unprepared.Velocity(noise, t, {}), samples = sample(unprepared);
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const std::unique_ptr<VelocityModel> model = unprepared.Clone();
    model->PrepareForInference(dtype);
    const double relative = ((model->Velocity(noise, t, {}) - velocity).norm() / velocity.norm()).item<double>();
    const double rmse = (sample(*model) - samples).square().mean().sqrt().item<double>();
    std::printf("accuracy %-9s relative error of a velocity %.1e   root mean square error of %d-step samples %.1e\n",
                c10::toString(dtype), relative, kAccuracySteps, rmse);
  }
}

absl::Status TrainSteps(const Options& options, const VelocityModel& model) {
  SegmentPairs pairs;
  pairs.x_start = SampleNoise(2, 0, kPairs, model.SampleShape());
  pairs.x_end = SampleNoise(3, 0, kPairs, model.SampleShape());
  pairs.t_start = at::rand({kPairs}) * 0.5;
  pairs.t_end = pairs.t_start + 0.25;
  pairs.segment = at::zeros({kPairs}, at::kLong);
  pairs.class_labels = at::randint(model.NumClasses(), {kPairs}, at::kLong);
  StraighteningObjective objective(std::move(pairs), kTrainBatch, /*guidance_scale=*/1.0);
  Trainer trainer(model.Clone(), {});
  absl::Status status;
  const double seconds = MedianSeconds(options, kTrainSteps, [&] { status.Update(trainer.Step(objective).status()); });
  if (status.ok()) Report(options, "train_step", kTrainBatch, seconds);
  return status;
}

absl::Status Stage1(const Options& options, const VelocityModel& model) {
  const at::Tensor noise = SampleNoise(1, 0, kStage1Samples, model.SampleShape());
  InlineExecutor executor;
  absl::StatusOr<Trajectory> trajectory;
  const double record = MedianSeconds(
      options, 1, [&] { trajectory = RecordTrajectory(model, noise, {}, TimeGrid::Uniform(kKMax), executor); });
  BOSS_RETURN_IF_ERROR(trajectory.status());
  absl::Status status;
  const double cost_matrix = MedianSeconds(options, 1, [&] {
    TrajectoryGram gram(kKMax, /*has_pairs=*/false);
    status.Update(gram.Add(*trajectory));
    status.Update(CostMatrix(gram).status());
  });
  BOSS_RETURN_IF_ERROR(status);
  Report(options, "trajectories", kStage1Samples, record);
  Report(options, "cost_matrix", kStage1Samples, cost_matrix);
  return absl::OkStatus();
}

absl::Status Run(const Options& options) {
  at::set_num_threads(options.threads);
  BOSS_ASSIGN_OR_RETURN(const std::unique_ptr<VelocityModel> model, LoadEmbeddedModel());
  std::printf("%lld parameters, %d threads\n", static_cast<long long>(ParameterCount(*model)), options.threads);
  if (options.Wants("train")) BOSS_RETURN_IF_ERROR(TrainSteps(options, *model));
  if (options.Wants("accuracy")) Accuracy(*model);
  if (options.dtype != "unprepared")
    model->PrepareForInference(options.dtype == "bfloat16" ? at::kBFloat16 : at::kFloat);
  if (options.Wants("evaluations")) Evaluations(options, *model);
  if (options.Wants("stage1")) BOSS_RETURN_IF_ERROR(Stage1(options, *model));
  return absl::OkStatus();
}

}  // namespace
}  // namespace boss

int main(int argc, char** argv) {
  boss::Options options;
  bool ok = true;
  for (int i = 1; i < argc; ++i) {
    absl::string_view argument = argv[i];
    if (absl::ConsumePrefix(&argument, "--threads=")) {
      ok = ok && absl::SimpleAtoi(argument, &options.threads) && options.threads > 0;
    } else if (absl::ConsumePrefix(&argument, "--rounds=")) {
      ok = ok && absl::SimpleAtoi(argument, &options.rounds) && options.rounds > 0;
    } else if (absl::ConsumePrefix(&argument, "--batch=")) {
      ok = ok && absl::SimpleAtoi(argument, &options.batch) && options.batch > 0;
    } else if (absl::ConsumePrefix(&argument, "--dtype=")) {
      options.dtype = std::string(argument);
      ok = ok && (argument == "float32" || argument == "bfloat16" || argument == "unprepared");
    } else {
      ok = ok && (argument == "evaluations" || argument == "accuracy" || argument == "train" || argument == "stage1");
      options.wanted.emplace(argument);
    }
  }
  if (!ok) {
    std::fprintf(stderr,
                 "usage: %s [--threads=N] [--rounds=N] [--batch=N] [--dtype=float32|bfloat16|unprepared] "
                 "[evaluations] [accuracy] [train] [stage1]\n",
                 argv[0]);
    return 2;
  }
  const absl::Status status = boss::Run(options);
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
