#include "core/solver/solver.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"
#include "core/flow/multistep.h"

namespace boss {
namespace {

// Dormand and Prince, "A family of embedded Runge-Kutta formulae" (1980). Row s holds the weights of the velocities 0 .. s in stage s + 1.
constexpr std::array<std::array<double, 6>, 6> kStageWeights = {{
    {1.0 / 5, 0, 0, 0, 0, 0},
    {3.0 / 40, 9.0 / 40, 0, 0, 0, 0},
    {44.0 / 45, -56.0 / 15, 32.0 / 9, 0, 0, 0},
    {19372.0 / 6561, -25360.0 / 2187, 64448.0 / 6561, -212.0 / 729, 0, 0},
    {9017.0 / 3168, -355.0 / 33, 46732.0 / 5247, 49.0 / 176, -5103.0 / 18656, 0},
    {35.0 / 384, 0, 500.0 / 1113, 125.0 / 192, -2187.0 / 6784, 11.0 / 84},
}};
constexpr std::array<double, 6> kStageTimes = {1.0 / 5, 3.0 / 10, 4.0 / 5, 8.0 / 9, 1.0, 1.0};
// Difference of the weights of order 5 and 4.
constexpr std::array<double, 7> kErrorWeights = {-71.0 / 57600, 0, 71.0 / 16695, -71.0 / 1920, 17253.0 / 339200, -22.0 / 525, 1.0 / 40};

constexpr double kSafety = 0.9, kMinFactor = 0.2, kMaxFactor = 10.0;
constexpr double kMinStep = 1e-9;

double RootMeanSquare(const at::Tensor& x) { return x.square().mean().sqrt().item<double>(); }

}  // namespace

SolverRun::SolverRun(const VelocityModel& model, at::Tensor x_0, Condition condition, SolverOptions options)
    : model_(model), condition_(std::move(condition)), options_(std::move(options)), x_(std::move(x_0)) {}

at::Tensor SolverRun::Evaluate(const at::Tensor& x, double t) {
  evaluations_ += EvaluationsPerCall(condition_);
  return GuidedVelocity(model_, x, at::full({x.size(0)}, t, x.options()), condition_);
}

absl::Status SolverRun::Step() {
  return GuardTorch("solver step", [&]() -> absl::Status {
    switch (options_.solver) {
      case SolverKind::kEuler:
        EulerStep();
        return absl::OkStatus();
      case SolverKind::kHeun:
        HeunStep();
        return absl::OkStatus();
      case SolverKind::kMultistep:
        MultistepStep();
        return absl::OkStatus();
      case SolverKind::kRk45:
        return Rk45Step();
    }
    return absl::InternalError("unknown solver");
  });
}

void SolverRun::EulerStep() {
  const double h = options_.time_grid.StepSize(steps_done_);
  x_ = at::add(x_, Evaluate(x_, t_), h);
  t_ = options_.time_grid[++steps_done_];
}

void SolverRun::HeunStep() {
  const double h = options_.time_grid.StepSize(steps_done_), t_next = options_.time_grid[steps_done_ + 1];
  const at::Tensor v = Evaluate(x_, t_);
  const at::Tensor v_next = Evaluate(at::add(x_, v, h), t_next);
  x_ = at::add(x_, v + v_next, h / 2);
  t_ = t_next;
  ++steps_done_;
}

void SolverRun::MultistepStep() {
  velocities_.insert(velocities_.begin(), Evaluate(x_, t_));
  if (static_cast<int>(velocities_.size()) > MostVelocities(options_.coefficients)) velocities_.pop_back();
  x_ = MultistepUpdate(x_, velocities_, options_.coefficients[static_cast<size_t>(steps_done_)]);
  t_ = options_.time_grid[++steps_done_];
}

absl::Status SolverRun::Rk45Step() {
  const auto scale = [&](const at::Tensor& a, const at::Tensor& b) { return at::maximum(a.abs(), b.abs()) * options_.rtol + options_.atol; };
  if (!rk45_velocity_.defined()) {
    // The starting step of Hairer, Norsett and Wanner, "Solving Ordinary Differential Equations I", II.4.
    rk45_velocity_ = Evaluate(x_, t_);
    const at::Tensor first_scale = scale(x_, x_);
    const double d0 = RootMeanSquare(x_ / first_scale), d1 = RootMeanSquare(rk45_velocity_ / first_scale);
    const double h0 = std::min(d0 < 1e-5 || d1 < 1e-5 ? 1e-6 : 0.01 * d0 / d1, 1.0);
    const at::Tensor probe = Evaluate(at::add(x_, rk45_velocity_, h0), h0);
    const double d2 = RootMeanSquare((probe - rk45_velocity_) / first_scale) / h0;
    const double largest = std::max(d1, d2);
    const double h1 = largest <= 1e-15 ? std::max(1e-6, h0 * 1e-3) : std::pow(0.01 / largest, 1.0 / 5);
    rk45_step_ = std::min({100 * h0, h1, 1.0});
  }
  if (!(rk45_step_ > kMinStep)) return absl::InternalError(absl::StrFormat("rk45: step size underflow at t = %g", t_));

  const bool last = t_ + rk45_step_ >= 1.0 - 1e-12;
  const double h = last ? 1.0 - t_ : rk45_step_;
  std::vector<at::Tensor> velocities{rk45_velocity_};
  at::Tensor x_new;
  for (size_t stage = 0; stage < kStageWeights.size(); ++stage) {
    x_new = x_;
    for (size_t i = 0; i <= stage; ++i) {
      if (kStageWeights[stage][i] != 0) x_new = at::add(x_new, velocities[i], h * kStageWeights[stage][i]);
    }
    velocities.push_back(Evaluate(x_new, t_ + kStageTimes[stage] * h));
  }
  at::Tensor error = velocities[0] * (h * kErrorWeights[0]);
  for (size_t i = 1; i < velocities.size(); ++i) error = at::add(error, velocities[i], h * kErrorWeights[i]);
  const double norm = RootMeanSquare(error / scale(x_, x_new));
  if (!std::isfinite(norm)) return absl::InternalError(absl::StrFormat("rk45: the velocity is not finite near t = %g", t_));

  const double factor = norm == 0 ? kMaxFactor : std::clamp(kSafety * std::pow(norm, -1.0 / 5), kMinFactor, kMaxFactor);
  if (norm <= 1) {
    x_ = x_new;
    t_ = last ? 1.0 : t_ + h;
    rk45_velocity_ = velocities.back();
    ++steps_done_;
    rk45_step_ = h * factor;
  } else {
    rk45_step_ = h * std::min(factor, 1.0);
  }
  return absl::OkStatus();
}

absl::StatusOr<at::Tensor> Solve(const VelocityModel& model, const at::Tensor& x_0, const Condition& condition, const SolverOptions& options,
                                 int64_t batch_size, StepExecutor& executor) {
  if (batch_size < 1) return absl::InvalidArgumentError(absl::StrFormat("batch_size: got %d, expected at least 1", batch_size));
  return GuardTorch("sampling", [&]() -> absl::StatusOr<at::Tensor> {
    std::vector<at::Tensor> results;
    for (int64_t begin = 0; begin < x_0.size(0); begin += batch_size) {
      const int64_t end = std::min(begin + batch_size, x_0.size(0));
      SolverRun run(model, x_0.slice(0, begin, end).to(model.device()), condition.Slice(begin, end).To(model.device()), options);
      while (!run.done()) BOSS_RETURN_IF_ERROR(executor.Run([&] {
        const c10::NoGradGuard no_grad;
        return run.Step();
      }));
      results.push_back(run.x().to(x_0.device()));
    }
    return results.size() == 1 ? results.front() : at::cat(results);
  });
}

}  // namespace boss
