// What stage 1 costs beside its network evaluations: (time of OptimizeStepsizes) / (time of N k_max bare evaluations), both sides in turn in one
// run, and the memory that it takes. Stage 1's goal is a ratio of at most 1.05.
//
//   stage1_bench [manifest.json]      the network whose "architecture" the manifest holds; the embedded model's by default
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "core/flow/noise.h"
#include "core/nets/factory.h"
#include "core/solver/record_trajectory.h"
#include "core/stepsize/cost_matrix.h"
#include "nlohmann/json.hpp"

namespace {

constexpr int kKMax = 100, kSamples = 100, kBatch = 50, kRounds = 3;

double PeakMebibytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

double Seconds(const std::function<absl::Status()>& work) {
  const auto start = std::chrono::steady_clock::now();
  const absl::Status status = work();
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", status.ToString().c_str());
    std::exit(1);
  }
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

absl::Status BareEvaluations(const boss::VelocityModel& model, const at::Tensor& noise) {
  const c10::NoGradGuard no_grad;
  for (int64_t begin = 0; begin < kSamples; begin += kBatch) {
    const at::Tensor x = noise.slice(0, begin, begin + kBatch);
    for (int i = 0; i < kKMax; ++i) model.Velocity(x, at::full({kBatch}, static_cast<double>(i) / kKMax), {});
  }
  return absl::OkStatus();
}

absl::Status OptimizeStepsizes(const boss::VelocityModel& model, const at::Tensor& noise) {
  boss::InlineExecutor executor;
  boss::TrajectoryGram gram(kKMax, /*has_pairs=*/false);
  for (int64_t begin = 0; begin < kSamples; begin += kBatch) {
    auto trajectory = boss::RecordTrajectory(model, noise.slice(0, begin, begin + kBatch), {}, boss::TimeGrid::Uniform(kKMax), executor);
    if (!trajectory.ok()) return trajectory.status();
    if (absl::Status status = gram.Add(*trajectory); !status.ok()) return status;
  }
  auto cost = boss::CostMatrix(gram);
  if (!cost.ok()) return cost.status();
  return boss::OptimizeSchedules(*std::move(cost), boss::TimeGrid::Uniform(kKMax), kSamples, 1.0).status();
}

}  // namespace

int main(int argc, char** argv) {
  const std::string path = argc > 1 ? argv[1] : BOSS_SOURCE_DIR "/deploy/models/fashion-mnist/manifest.json";
  std::ifstream file(path);
  const nlohmann::json manifest = nlohmann::json::parse(file, nullptr, /*allow_exceptions=*/false);
  if (!manifest.is_object() || !manifest.contains("architecture")) {
    std::fprintf(stderr, "%s: no manifest with an architecture\n", path.c_str());
    return 1;
  }
  const auto model = boss::CreateModel(manifest["architecture"].dump(), 1);
  if (!model.ok()) {
    std::fprintf(stderr, "%s\n", model.status().ToString().c_str());
    return 1;
  }
  (*model)->PrepareForInference(at::kFloat);
  const at::Tensor noise = boss::SampleNoise(1, 0, kSamples, (*model)->SampleShape());
  Seconds([&] { return BareEvaluations(**model, noise); });  // warm-up
  const double before = PeakMebibytes();
  std::vector<double> bare, stage1;
  for (int round = 0; round < kRounds; ++round) {
    bare.push_back(Seconds([&] { return BareEvaluations(**model, noise); }));
    stage1.push_back(Seconds([&] { return OptimizeStepsizes(**model, noise); }));
  }
  const double peak = PeakMebibytes();
  std::printf("k_max %d, N %d, batches of %d, %lld parameters, %d threads\n", kKMax, kSamples, kBatch,
              static_cast<long long>(boss::ParameterCount(**model)), at::get_num_threads());
  std::printf("%8s %12s %12s %8s\n", "round", "bare, s", "stage 1, s", "ratio");
  for (int round = 0; round < kRounds; ++round) {
    std::printf("%8d %12.3f %12.3f %8.3f\n", round + 1, bare[round], stage1[round], stage1[round] / bare[round]);
  }
  const double best_bare = *std::min_element(bare.begin(), bare.end()), best_stage1 = *std::min_element(stage1.begin(), stage1.end());
  std::printf("%8s %12.3f %12.3f %8.3f\n", "best", best_bare, best_stage1, best_stage1 / best_bare);
  std::printf("peak memory: %.0f MiB, %.0f MiB of them for stage 1\n", peak, peak - before);
  return 0;
}
