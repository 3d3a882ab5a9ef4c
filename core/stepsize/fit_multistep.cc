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

// Strengths of the pull towards the plain coefficients, relative to the features' squared norms.
constexpr double kRidges[] = {1e-12, 1e-8, 1e-6, 1e-4, 1e-2};
// Of a squared error that is a difference of Gram entries, relative to these.
constexpr double kResolution = 1e-13;
// The features of a step are the state, then the velocities, the newest first.
constexpr int kStateFeature = 0;
// Elements of each feature that are copied to float64 at a time.
constexpr int64_t kChunk = int64_t{1} << 20;

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

// What least squares needs to know of some samples: products of the features and of what the plain coefficients leave
// over, summed over samples and elements.
struct Products {
  at::Tensor gram;      // [F, F] float64
  at::Tensor right;     // [F]: <feature, residual>
  double residual = 0;  // || residual ||^2
};

Products ProductsOf(const std::vector<at::Tensor>& features, const at::Tensor& residual, int64_t begin, int64_t end) {
  std::vector<at::Tensor> rows;
  for (const at::Tensor& feature : features) rows.push_back(feature.slice(0, begin, end).reshape({-1}));
  rows.push_back(residual.slice(0, begin, end).reshape({-1}));
  const int64_t count = static_cast<int64_t>(features.size()), elements = rows.back().size(0);
  at::Tensor products = at::zeros({count + 1, count + 1}, at::kDouble);
  for (int64_t first = 0; first < elements; first += kChunk) {
    std::vector<at::Tensor> parts;
    for (const at::Tensor& row : rows) parts.push_back(row.slice(0, first, std::min(first + kChunk, elements)));
    const at::Tensor all = at::stack(parts).to(at::kDouble);
    products += at::matmul(all, all.t());
  }
  return {products.slice(0, 0, count).slice(1, 0, count), products[count].slice(0, 0, count),
          products[count][count].item<double>()};
}

// || residual - sum_f change_f feature_f ||^2 over the features in `chosen`.
double SquaredError(const Products& products, const at::Tensor& chosen, const at::Tensor& change) {
  const at::Tensor gram = products.gram.index_select(0, chosen).index_select(1, chosen),
                   right = products.right.index_select(0, chosen);
  return products.residual - 2 * change.dot(right).item<double>() + change.dot(at::mv(gram, change)).item<double>();
}

// What is added to the plain coefficients of the features in `chosen`; nothing if the system cannot be solved.
std::optional<at::Tensor> Solve(const Products& products, const at::Tensor& chosen, double ridge) {
  at::Tensor gram = products.gram.index_select(0, chosen).index_select(1, chosen).clone();
  gram.diagonal().mul_(1 + ridge);
  const auto [change, info] = at::linalg_solve_ex(gram, products.right.index_select(0, chosen));
  if (info.item<int>() != 0 || !at::isfinite(change).all().item<bool>()) return std::nullopt;
  return change;
}

// The best step from x to x_target: coefficients of the state and of `velocities`, the newest first. The last samples,
// from `split` on, are held out. Euler's where no error is finite.
StepCoefficients FitStep(const at::Tensor& x, const std::vector<at::Tensor>& velocities, const at::Tensor& x_target,
                         const std::vector<StepCoefficients>& plain_by_order, int64_t split) {
  StepCoefficients best = plain_by_order.front();
  double least = std::numeric_limits<double>::infinity();
  std::vector<at::Tensor> features{x};
  features.insert(features.end(), velocities.begin(), velocities.end());
  for (size_t order = 1; order <= velocities.size(); ++order) {
    const StepCoefficients& plain = plain_by_order[order - 1];
    const at::Tensor residual = x_target - MultistepUpdate(x, velocities, plain);
    const Products fit = ProductsOf(features, residual, 0, split),
                   held_out = ProductsOf(features, residual, split, x.size(0));
    if (held_out.residual < least) {
      least = held_out.residual;
      best = plain;
    }
    for (const bool free_state : {false, true}) {
      std::vector<int64_t> chosen;
      if (free_state) chosen.push_back(kStateFeature);
      for (size_t k = 1; k <= order; ++k) chosen.push_back(static_cast<int64_t>(k));
      const at::Tensor indices = at::tensor(chosen, at::kLong);
      for (const double ridge : kRidges) {
        const std::optional<at::Tensor> change = Solve(fit, indices, ridge);
        if (!change) continue;
        const double error = SquaredError(held_out, indices, *change);
        // What rounding makes of the sums does not choose between fits that are all but exact.
        if (!(error < least - kResolution * held_out.residual)) continue;
        least = error;
        best = plain;
        for (size_t f = 0; f < chosen.size(); ++f) {
          const double value = (*change)[static_cast<int64_t>(f)].item<double>();
          (chosen[f] == kStateFeature ? best.state : best.velocities[chosen[f] - 1]) += value;
        }
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
