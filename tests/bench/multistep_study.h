// What the tables about multistep schedules have in common: the embedded model, noises to fit to, and others to judge
// by, which nothing has been fitted to.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/evaluate/features.h"
#include "core/evaluate/frechet.h"
#include "core/flow/schedule.h"
#include "core/flow/trajectory.h"
#include "core/flow/velocity_model.h"
#include "core/stepsize/optimize_multistep.h"
#include "core/stepsize/trajectory_gram.h"

namespace boss {

struct StudyOptions {
  int64_t fit = 100;                // noises behind costs and coefficients
  int64_t judge = 1000;             // noises of a trajectory error
  int64_t samples = 10000;          // of a Frechet distance
  uint64_t judge_seed = 1'000'000;  // of the first noise of both
  int k_max = 100;
  double guidance_scale = 1;
  int threads = 1;      // each evaluates batches of its own
  std::string results;  // CSV file; fine samples and straightened weights lie beside it
};

// What a search over the first `fit` noises yields.
struct Stage1 {
  int64_t fit = 0;
  ScheduleSet euler;
  TrajectoryGram gram;
  std::vector<std::vector<std::vector<int>>> knots;  // MultistepKnots
};

// Of the Euler schedules of 1 .. Study::kMostSteps steps.
std::vector<std::vector<int>> EulerKnots(const Stage1& stage1);

// Calls function(0) .. function(count - 1) on `threads` threads, which compute with one OpenMP thread each. Returns the
// first error, after which no further call begins.
absl::Status ParallelFor(int threads, int64_t count, const std::function<absl::Status(int64_t)>& function);

// Const methods are thread-safe.
class Study {
 public:
  static constexpr int kMostSteps = 10;

  // Records the trajectories of the noises to fit.
  static absl::StatusOr<std::unique_ptr<Study>> Create(const StudyOptions& options);

  const StudyOptions& options() const { return options_; }
  const VelocityModel& model() const { return *model_; }  // prepared for inference
  const TimeGrid& fine_grid() const { return fine_grid_; }
  // Of the noises [begin, end): labels in turn.
  Condition ConditionOf(int64_t begin, int64_t end) const;

  absl::StatusOr<Stage1> Search(int64_t fit) const;
  // [points, fit, ...]: the fine states of the first noises to fit.
  at::Tensor StatesAt(absl::Span<const int> points, int64_t fit) const;
  // As the product makes it, or with steps that may use another number of velocities.
  absl::StatusOr<OptimizedMultistep> Optimize(const Stage1& stage1, int steps,
                                              int max_order = kMaxMultistepOrder) const;
  // A search of single times from there.
  absl::StatusOr<OptimizedMultistep> Refine(const Stage1& stage1, OptimizedMultistep start,
                                            int64_t max_evaluations) const;

  // Draws the fine samples of the noises to judge by, or reads them from beside the results.
  absl::Status PrepareErrors();
  // \pre PrepareErrors(). [judge, ...]
  const at::Tensor& fine_samples() const { return fine_samples_; }
  // [judge, ...]: of the noises to judge by.
  absl::StatusOr<at::Tensor> Samples(const VelocityModel& model, const TimeGrid& grid,
                                     absl::Span<const StepCoefficients> coefficients) const;
  // \pre PrepareErrors().
  absl::StatusOr<double> TrajectoryError(const VelocityModel& model, const TimeGrid& grid,
                                         absl::Span<const StepCoefficients> coefficients) const;
  // Computes the features of the test images.
  absl::Status PrepareDistances();
  // \pre PrepareDistances().
  absl::StatusOr<double> Distance(const VelocityModel& model, const TimeGrid& grid,
                                  absl::Span<const StepCoefficients> coefficients) const;

 private:
  Study(StudyOptions options, std::unique_ptr<VelocityModel> model);
  // Calls `take` with the samples of each batch of the first `count` noises to judge by.
  absl::Status Sample(const VelocityModel& model, const TimeGrid& grid, absl::Span<const StepCoefficients> coefficients,
                      int64_t count,
                      absl::FunctionRef<absl::Status(int64_t begin, const at::Tensor& samples)> take) const;

  const StudyOptions options_;
  const std::unique_ptr<VelocityModel> model_;
  const TimeGrid fine_grid_;
  std::vector<Trajectory> trajectories_;  // of the noises to fit, in batches
  at::Tensor fine_samples_;
  std::unique_ptr<FeatureNetwork> features_;
  std::optional<FeatureStatistics> reference_;
};

}  // namespace boss
