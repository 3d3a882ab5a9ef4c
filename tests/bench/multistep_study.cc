#include "tests/bench/multistep_study.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/root_mean_square.h"
#include "core/base/status_macros.h"
#include "core/flow/multistep.h"
#include "core/flow/noise.h"
#include "core/io/image_dataset.h"
#include "core/io/safetensors.h"
#include "core/solver/record_trajectory.h"
#include "core/stepsize/cost_matrix.h"
#include "tests/bench/embedded_model.h"

namespace boss {
namespace {

constexpr int64_t kBatch = 32, kFeatureBatch = 250;
constexpr uint64_t kFitSeed = 1;
constexpr char kReference[] = "fashion-mnist-test", kSamples[] = "samples";

}  // namespace

std::vector<std::vector<int>> EulerKnots(const Stage1& stage1) {
  std::vector<std::vector<int>> knots;
  for (size_t i = 0; i < Study::kMostSteps; ++i) knots.push_back(stage1.euler.schedules[i].knots);
  return knots;
}

absl::Status ParallelFor(int threads, int64_t count, const std::function<absl::Status(int64_t)>& function) {
  std::atomic<int64_t> next = 0;
  std::mutex mutex;
  absl::Status status;
  const auto work = [&] {
    at::set_num_threads(1);
    for (int64_t i = next++; i < count; i = next++) {
      const absl::Status result = function(i);
      if (result.ok()) continue;
      const std::lock_guard<std::mutex> lock(mutex);
      status.Update(result);
      next = count;
    }
  };
  std::vector<std::thread> workers;
  for (int i = 0; i < threads; ++i) workers.emplace_back(work);
  for (std::thread& worker : workers) worker.join();
  return status;
}

Study::Study(StudyOptions options, std::unique_ptr<VelocityModel> model)
    : options_(std::move(options)), model_(std::move(model)), fine_grid_(TimeGrid::Uniform(options_.k_max)) {}

absl::StatusOr<std::unique_ptr<Study>> Study::Create(const StudyOptions& options) {
  BOSS_ASSIGN_OR_RETURN(std::unique_ptr<VelocityModel> model, LoadEmbeddedModel());
  model->PrepareForInference(at::kFloat);
  std::unique_ptr<Study> study(new Study(options, std::move(model)));
  const int64_t batches = (options.fit + kBatch - 1) / kBatch;
  study->trajectories_.resize(static_cast<size_t>(batches));
  BOSS_RETURN_IF_ERROR(ParallelFor(options.threads, batches, [&](int64_t i) -> absl::Status {
    const int64_t begin = i * kBatch, end = std::min(begin + kBatch, options.fit);
    const at::Tensor noise = SampleNoise(kFitSeed, begin, end - begin, study->model_->SampleShape());
    InlineExecutor executor;
    BOSS_ASSIGN_OR_RETURN(
        study->trajectories_[static_cast<size_t>(i)],
        RecordTrajectory(*study->model_, noise, study->ConditionOf(begin, end), study->fine_grid_, executor));
    return absl::OkStatus();
  }));
  return study;
}

Condition Study::ConditionOf(int64_t begin, int64_t end) const {
  return {.class_labels = at::arange(begin, end, at::kLong).remainder(model_->NumClasses()),
          .guidance_scale = options_.guidance_scale};
}

absl::StatusOr<Stage1> Study::Search(int64_t fit) const {
  Stage1 stage1{.fit = fit, .gram = TrajectoryGram(options_.k_max, options_.k_max <= kMaxPairIntervals)};
  for (int64_t left = fit; const Trajectory& whole : trajectories_) {
    const int64_t count = std::min(left, whole.states.size(1));
    if (count == 0) break;
    const Trajectory trajectory{whole.time_grid, whole.states.slice(1, 0, count), whole.velocities.slice(1, 0, count)};
    BOSS_RETURN_IF_ERROR(stage1.gram.Add(trajectory));
    left -= count;
  }
  BOSS_ASSIGN_OR_RETURN(std::vector<double> matrix, CostMatrix(stage1.gram));
  BOSS_ASSIGN_OR_RETURN(
      stage1.euler, OptimizeSchedules(std::move(matrix), fine_grid_, static_cast<int>(fit), options_.guidance_scale));
  BOSS_ASSIGN_OR_RETURN(stage1.knots, MultistepKnots(stage1.gram, stage1.euler, kMostSteps));
  return stage1;
}

at::Tensor Study::StatesAt(absl::Span<const int> points, int64_t fit) const {
  const at::Tensor rows = at::tensor(std::vector<int64_t>(points.begin(), points.end()), at::kLong);
  std::vector<at::Tensor> parts;
  for (const Trajectory& trajectory : trajectories_) parts.push_back(trajectory.states.index_select(0, rows));
  return at::cat(parts, 1).slice(1, 0, fit);
}

absl::StatusOr<OptimizedMultistep> Study::Optimize(const Stage1& stage1, int steps, int max_order) const {
  InlineExecutor executor;
  const auto states = [&](absl::Span<const int> points) -> absl::StatusOr<at::Tensor> {
    return StatesAt(points, stage1.fit);
  };
  return OptimizeMultistep(*model_, fine_grid_, stage1.knots[static_cast<size_t>(steps) - 1], states,
                           ConditionOf(0, stage1.fit), {.max_order = max_order, .batch_size = kBatch}, executor);
}

absl::StatusOr<OptimizedMultistep> Study::Refine(const Stage1& stage1, OptimizedMultistep start,
                                                 int64_t max_evaluations) const {
  InlineExecutor executor;
  const auto states = [&](absl::Span<const int> points) -> absl::StatusOr<at::Tensor> {
    return StatesAt(points, stage1.fit);
  };
  return RefineMultistep(*model_, fine_grid_, std::move(start), states, ConditionOf(0, stage1.fit),
                         {.batch_size = kBatch}, max_evaluations, executor);
}

absl::Status Study::Sample(const VelocityModel& model, const TimeGrid& grid,
                           absl::Span<const StepCoefficients> coefficients, int64_t count,
                           absl::FunctionRef<absl::Status(int64_t begin, const at::Tensor& samples)> take) const {
  const c10::InferenceMode inference_mode;
  InlineExecutor executor;
  for (int64_t begin = 0; begin < count; begin += kBatch) {
    const int64_t end = std::min(begin + kBatch, count);
    const at::Tensor noise = SampleNoise(options_.judge_seed, begin, end - begin, model.SampleShape());
    BOSS_ASSIGN_OR_RETURN(const at::Tensor samples,
                          SolveMultistep(model, noise, ConditionOf(begin, end), grid, coefficients, kBatch, executor));
    BOSS_RETURN_IF_ERROR(take(begin, samples));
  }
  return absl::OkStatus();
}

absl::Status Study::PrepareErrors() {
  const std::string path = options_.results.empty()
                               ? ""
                               : absl::StrFormat("%s.fine-g%g-k%d-n%d-s%d.safetensors", options_.results,
                                                 options_.guidance_scale, options_.k_max, options_.judge,
                                                 options_.judge_seed);
  if (!path.empty()) {
    const absl::StatusOr<Safetensors> stored = ReadSafetensors(path);
    if (stored.ok()) {
      fine_samples_ = stored->Find(kSamples);
      return absl::OkStatus();
    }
    if (!absl::IsNotFound(stored.status())) return stored.status();
  }
  std::vector<int64_t> shape = model_->SampleShape();
  shape.insert(shape.begin(), options_.judge);
  fine_samples_ = at::empty(shape, at::kFloat);
  BOSS_RETURN_IF_ERROR(
      ParallelFor(options_.threads, (options_.judge + kBatch - 1) / kBatch, [&](int64_t i) -> absl::Status {
        const int64_t begin = i * kBatch, end = std::min(begin + kBatch, options_.judge);
        InlineExecutor executor;
        BOSS_ASSIGN_OR_RETURN(
            const at::Tensor samples,
            SolveMultistep(*model_, SampleNoise(options_.judge_seed, begin, end - begin, model_->SampleShape()),
                           ConditionOf(begin, end), fine_grid_, AdamsBashforth(fine_grid_, 1), kBatch, executor));
        fine_samples_.slice(0, begin, end).copy_(samples);
        return absl::OkStatus();
      }));
  return path.empty() ? absl::OkStatus() : WriteSafetensors(path, {{{kSamples, fine_samples_}}, {}});
}

absl::StatusOr<at::Tensor> Study::Samples(const VelocityModel& model, const TimeGrid& grid,
                                          absl::Span<const StepCoefficients> coefficients) const {
  std::vector<at::Tensor> parts;
  BOSS_RETURN_IF_ERROR(Sample(model, grid, coefficients, options_.judge,
                              [&](int64_t /*begin*/, const at::Tensor& samples) -> absl::Status {
                                parts.push_back(samples);
                                return absl::OkStatus();
                              }));
  return at::cat(parts);
}

absl::StatusOr<double> Study::TrajectoryError(const VelocityModel& model, const TimeGrid& grid,
                                              absl::Span<const StepCoefficients> coefficients) const {
  BOSS_ASSIGN_OR_RETURN(const at::Tensor samples, Samples(model, grid, coefficients));
  return RootMeanSquare(samples, fine_samples_);
}

absl::Status Study::PrepareDistances() {
  BOSS_ASSIGN_OR_RETURN(features_, LoadClassifierFeatures(EmbeddedModelFolder() + "/classifier.safetensors"));
  BOSS_ASSIGN_OR_RETURN(const ImageDataset data, OpenDataset(kReference));
  InlineExecutor executor;
  BOSS_ASSIGN_OR_RETURN(reference_, ComputeStatistics(*features_, ToModelRange(data.images), kFeatureBatch, executor));
  return absl::OkStatus();
}

absl::StatusOr<double> Study::Distance(const VelocityModel& model, const TimeGrid& grid,
                                       absl::Span<const StepCoefficients> coefficients) const {
  FeatureStatistics statistics;
  BOSS_RETURN_IF_ERROR(Sample(
      model, grid, coefficients, options_.samples,
      [&](int64_t /*begin*/, const at::Tensor& samples) { return statistics.Add(features_->Features(samples)); }));
  return FrechetDistance(statistics, *reference_);
}

}  // namespace boss
