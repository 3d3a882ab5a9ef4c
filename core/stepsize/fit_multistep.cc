#include "core/stepsize/fit_multistep.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/root_mean_square.h"
#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"

namespace boss {
namespace {

// Strengths of the pull towards the plain coefficients, relative to the squared norms of states and velocities.
constexpr double kRidges[] = {1e-12, 1e-8, 1e-6, 1e-4, 1e-2};
// Of the squared norm of what a step adds: what rounding may make of squared errors, which are sums of Gram entries. It
// does not choose between steps that are all but exact.
constexpr double kResolution = 1e-13;
// Elements of each row that are copied to float64 at a time.
constexpr int64_t kChunk = int64_t{1} << 20;

absl::Status CheckBatchSize(int64_t batch_size) {
  if (batch_size >= 1) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat("batch_size: got %d, expected at least 1", batch_size));
}

absl::StatusOr<at::Tensor> Velocity(const VelocityModel& model, const at::Tensor& x, double t,
                                    const Condition& condition, int64_t batch_size, StepExecutor& executor) {
  const int64_t count = x.size(0);
  at::Tensor velocity;
  for (int64_t begin = 0; begin < count; begin += batch_size) {
    const int64_t end = std::min(begin + batch_size, count);
    BOSS_RETURN_IF_ERROR(executor.Run([&] {
      return GuardTorch("multistep sampling", [&]() -> absl::Status {
        const c10::NoGradGuard no_grad;
        const at::Tensor batch = x.slice(0, begin, end).to(model.device());
        const at::Tensor v = GuidedVelocity(model, batch, at::full({end - begin}, t, batch.options()),
                                            condition.Slice(begin, end).To(model.device()));
        if (!velocity.defined()) velocity = at::empty_like(x);
        velocity.slice(0, begin, end).copy_(v);
        return absl::OkStatus();
      });
    }));
  }
  return velocity;
}

// Products of all rows, summed over elements and the samples in [begin, end): [R, R] float64.
at::Tensor GramOf(const std::vector<at::Tensor>& rows, int64_t begin, int64_t end) {
  std::vector<at::Tensor> flat;
  for (const at::Tensor& row : rows) flat.push_back(row.slice(0, begin, end).reshape({-1}));
  const int64_t count = static_cast<int64_t>(rows.size()), elements = flat.back().size(0);
  at::Tensor gram = at::zeros({count, count}, at::kDouble);
  for (int64_t first = 0; first < elements; first += kChunk) {
    std::vector<at::Tensor> parts;
    for (const at::Tensor& row : flat) parts.push_back(row.slice(0, first, std::min(first + kChunk, elements)));
    const at::Tensor all = at::stack(parts).to(at::kDouble);
    gram += at::matmul(all, all.t());
  }
  return gram;
}

// The least-squares solution with a pull towards 0; nothing if the system cannot be solved.
std::optional<at::Tensor> Solve(const at::Tensor& gram, const at::Tensor& right, double ridge) {
  at::Tensor regularised = gram.clone();
  regularised.diagonal().mul_(1 + ridge);
  const auto [solution, info] = at::linalg_solve_ex(regularised, right);
  if (info.item<int>() != 0 || !at::isfinite(solution).all().item<bool>()) return std::nullopt;
  return solution;
}

// The best step from x to x_target: coefficients of the state and of `velocities`, the newest first. The last samples,
// from `split` on, are held out. Euler's where no error is finite.
StepCoefficients FitStep(const at::Tensor& x, const std::vector<at::Tensor>& velocities, const at::Tensor& x_target,
                         const std::vector<StepCoefficients>& plain_by_order, int64_t split) {
  std::vector<at::Tensor> rows{x};  // the velocities follow, then what the step is to add to x
  rows.insert(rows.end(), velocities.begin(), velocities.end());
  rows.push_back(x_target - x);
  const at::Tensor fit_gram = GramOf(rows, 0, split), held_out_gram = GramOf(rows, split, x.size(0));
  const double resolution = kResolution * held_out_gram[-1][-1].item<double>();
  StepCoefficients best = plain_by_order.front();
  double least = std::numeric_limits<double>::infinity();
  // `weights` of the rows make what a step leaves over: 1 for the last, and less what the step adds of the others.
  const auto consider = [&](const at::Tensor& weights, int64_t order) {
    const double error = weights.dot(at::mv(held_out_gram, weights)).item<double>();
    if (!(error < least - resolution)) return;
    least = error;
    best = {1 - weights[0].item<double>(), {}};
    for (int64_t k = 1; k <= order; ++k) best.velocities.push_back(-weights[k].item<double>());
  };
  for (int64_t order = 1; order <= static_cast<int64_t>(velocities.size()); ++order) {
    const std::vector<double>& plain = plain_by_order[static_cast<size_t>(order) - 1].velocities;
    at::Tensor plain_weights = at::zeros({fit_gram.size(0)}, at::kDouble);
    plain_weights.slice(0, 1, order + 1).sub_(at::tensor(plain, at::kDouble));
    plain_weights[-1] = 1;
    consider(plain_weights, order);
    const at::Tensor right = at::mv(fit_gram, plain_weights);
    for (const int64_t first : {1, 0}) {  // 0: the state's coefficient is free, too
      const auto chosen = [&](const at::Tensor& tensor, int64_t dim) { return tensor.slice(dim, first, order + 1); };
      for (const double ridge : kRidges) {
        const std::optional<at::Tensor> change = Solve(chosen(chosen(fit_gram, 0), 1), chosen(right, 0), ridge);
        if (!change) continue;
        at::Tensor weights = plain_weights.clone();
        chosen(weights, 0).sub_(*change);
        consider(weights, order);
      }
    }
  }
  return best;
}

}  // namespace

int64_t FittedNoises(int64_t count, const MultistepFitOptions& options) {
  const auto held_out = static_cast<int64_t>(std::llround(static_cast<double>(count) * options.held_out_share));
  return count - std::clamp<int64_t>(held_out, 1, count - 1);
}

absl::StatusOr<MultistepFit> FitMultistep(const VelocityModel& model, const at::Tensor& fine_states,
                                          const Condition& condition, const TimeGrid& time_grid,
                                          const MultistepFitOptions& options, StepExecutor& executor) {
  if (fine_states.dim() < 2 || fine_states.size(0) != time_grid.steps() + 1 || fine_states.size(1) < 2) {
    return absl::InvalidArgumentError(
        absl::StrFormat("fine states: got %d dimensions, %d times, expected %d times of at least 2 samples",
                        fine_states.dim(), fine_states.dim() > 0 ? fine_states.size(0) : 0, time_grid.steps() + 1));
  }
  if (options.max_order < 1 || !(options.held_out_share > 0 && options.held_out_share < 1))
    return absl::InvalidArgumentError("multistep fit: expected max_order of at least 1 and held_out_share in (0, 1)");
  BOSS_RETURN_IF_ERROR(CheckBatchSize(options.batch_size));
  const int64_t count = fine_states.size(1);
  const int64_t split = FittedNoises(count, options);
  std::vector<std::vector<StepCoefficients>> plain;
  for (int order = 1; order <= options.max_order; ++order) plain.push_back(AdamsBashforth(time_grid, order));

  MultistepFit result;
  at::Tensor x = fine_states[0];
  std::vector<at::Tensor> velocities;
  for (int step = 0; step < time_grid.steps(); ++step) {
    BOSS_ASSIGN_OR_RETURN(at::Tensor velocity,
                          Velocity(model, x, time_grid[step], condition, options.batch_size, executor));
    velocities.insert(velocities.begin(), std::move(velocity));
    if (static_cast<int>(velocities.size()) > options.max_order) velocities.pop_back();
    BOSS_RETURN_IF_ERROR(GuardTorch("multistep fit", [&]() -> absl::Status {
      const c10::NoGradGuard no_grad;
      std::vector<StepCoefficients> plain_by_order;
      for (size_t order = 0; order < velocities.size(); ++order) plain_by_order.push_back(plain[order][step]);
      result.coefficients.push_back(FitStep(x, velocities, fine_states[step + 1], plain_by_order, split));
      x = MultistepUpdate(x, velocities, result.coefficients.back());
      return absl::OkStatus();
    }));
  }
  BOSS_RETURN_IF_ERROR(GuardTorch("multistep fit", [&]() -> absl::Status {
    const at::Tensor target = fine_states[time_grid.steps()];
    result.fit_error = RootMeanSquare(x.slice(0, 0, split), target.slice(0, 0, split));
    result.held_out_error = RootMeanSquare(x.slice(0, split), target.slice(0, split));
    return absl::OkStatus();
  }));
  return result;
}

absl::StatusOr<at::Tensor> SolveMultistep(const VelocityModel& model, const at::Tensor& noise,
                                          const Condition& condition, const TimeGrid& time_grid,
                                          absl::Span<const StepCoefficients> coefficients, int64_t batch_size,
                                          StepExecutor& executor) {
  BOSS_RETURN_IF_ERROR(CheckBatchSize(batch_size));
  at::Tensor x = noise;
  std::vector<at::Tensor> velocities;
  const int most = MostVelocities(coefficients);
  for (int step = 0; step < time_grid.steps(); ++step) {
    BOSS_ASSIGN_OR_RETURN(at::Tensor velocity, Velocity(model, x, time_grid[step], condition, batch_size, executor));
    velocities.insert(velocities.begin(), std::move(velocity));
    if (static_cast<int>(velocities.size()) > most) velocities.pop_back();
    BOSS_RETURN_IF_ERROR(GuardTorch("multistep sampling", [&]() -> absl::Status {
      x = MultistepUpdate(x, velocities, coefficients[step]);
      return absl::OkStatus();
    }));
  }
  return x;
}

}  // namespace boss
