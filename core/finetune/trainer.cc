#include "core/finetune/trainer.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numbers>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/base/torch_guard.h"

namespace boss {
namespace {

constexpr char kGenerator[] = "generator", kStep[] = "step";

double LearningRate(const TrainerOptions& options, int64_t step) {
  if (step < options.warmup_steps) return options.learning_rate * static_cast<double>(step) / static_cast<double>(options.warmup_steps);
  if (options.decay_steps <= options.warmup_steps) return options.learning_rate;
  const double progress = std::min(
      1.0, static_cast<double>(step - options.warmup_steps) / static_cast<double>(options.decay_steps - options.warmup_steps));
  return options.learning_rate * 0.5 * (1 + std::cos(std::numbers::pi * progress));
}

}  // namespace

Trainer::Trainer(std::unique_ptr<VelocityModel> model, TrainerOptions options)
    : model_(std::move(model)),
      options_(options),
      parameters_(model_->Parameters()),
      generator_(at::detail::createCPUGenerator(options.seed)) {
  for (const auto& [name, parameter] : parameters_) {
    ema_.push_back(parameter.detach().clone());
    first_moment_.push_back(at::zeros_like(parameter));
    second_moment_.push_back(at::zeros_like(parameter));
    adam_steps_.push_back(at::zeros({}, parameter.options().dtype(at::kFloat).requires_grad(false)));
  }
}

absl::StatusOr<TrainStepMetrics> Trainer::Step(TrainingObjective& objective) {
  using Result = absl::StatusOr<TrainStepMetrics>;
  return GuardTorch("train step", [&]() -> Result {
    std::vector<at::Tensor> weights, gradients;
    for (auto& [name, parameter] : parameters_) {
      parameter.mutable_grad().reset();
      weights.push_back(parameter);
    }
    TrainStepMetrics metrics;
    metrics.learning_rate = LearningRate(options_, step_);
    // A batch that fails leaves the generator where it was, like everything else.
    const at::Tensor generator_state = generator_.get_state();
    for (int64_t i = 0; i < options_.accumulation_steps; ++i) {
      const at::Tensor loss = objective.Loss(*model_, generator_) / static_cast<double>(options_.accumulation_steps);
      loss.backward();
      metrics.loss += loss.item<double>();
    }
    const c10::NoGradGuard no_grad;
    for (at::Tensor& weight : weights) {
      gradients.push_back(weight.grad().defined() ? weight.grad() : at::zeros_like(weight));
    }
    metrics.gradient_norm = at::linalg_vector_norm(at::stack(at::_foreach_norm(gradients))).item<double>();
    if (!std::isfinite(metrics.loss) || !std::isfinite(metrics.gradient_norm)) {
      generator_.set_state(generator_state);
      return absl::FailedPreconditionError(absl::StrFormat("train step %d: the loss is %g and the gradient norm %g, expected finite numbers",
                                                           step_, metrics.loss, metrics.gradient_norm));
    }
    if (options_.gradient_clip > 0 && metrics.gradient_norm > options_.gradient_clip) {
      at::_foreach_mul_(gradients, options_.gradient_clip / (metrics.gradient_norm + 1e-6));
    }
    for (at::Tensor& adam_step : adam_steps_) adam_step.add_(1);
    at::_fused_adam_(weights, gradients, first_moment_, second_moment_, /*max_exp_avg_sqs=*/{}, adam_steps_, metrics.learning_rate,
                     options_.beta1, options_.beta2, /*weight_decay=*/0.0, options_.adam_epsilon, /*amsgrad=*/false, /*maximize=*/false);
    for (at::Tensor& weight : weights) weight.mutable_grad().reset();
    ++step_;
    const double decay =
        std::min(options_.ema_rate, (1.0 + static_cast<double>(step_)) / (10.0 + static_cast<double>(step_)));
    at::_foreach_lerp_(ema_, weights, 1.0 - decay);
    return metrics;
  });
}

std::unique_ptr<VelocityModel> Trainer::EmaModel() const {
  std::unique_ptr<VelocityModel> copy = model_->Clone();
  const auto parameters = copy->Parameters();
  for (size_t i = 0; i < parameters.size(); ++i) parameters[i].second.detach().copy_(ema_[i]);
  return copy;
}

TrainerState Trainer::SaveState() const {
  TrainerState state;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const std::string& name = parameters_[i].first;
    state.emplace_back("weight." + name, parameters_[i].second.detach().clone());
    state.emplace_back("ema." + name, ema_[i].clone());
    state.emplace_back("first_moment." + name, first_moment_[i].clone());
    state.emplace_back("second_moment." + name, second_moment_[i].clone());
  }
  state.emplace_back(kGenerator, generator_.get_state());
  state.emplace_back(kStep, at::scalar_tensor(step_, at::kLong));
  return state;
}

absl::Status Trainer::RestoreState(const TrainerState& state) {
  std::map<std::string, at::Tensor> by_name(state.begin(), state.end());
  const TrainerState expected = SaveState();
  for (const auto& [name, tensor] : expected) {
    const auto found = by_name.find(name);
    if (found == by_name.end()) return absl::InvalidArgumentError(absl::StrCat("training state: ", name, " is missing"));
    if (found->second.sizes() != tensor.sizes() || found->second.dtype() != tensor.dtype()) {
      return absl::InvalidArgumentError(absl::StrCat("training state: ", name, " has shape [", absl::StrJoin(found->second.sizes(), ", "),
                                                     "], expected [", absl::StrJoin(tensor.sizes(), ", "), "] of ",
                                                     std::string(tensor.dtype().name())));
    }
  }
  if (by_name.size() != expected.size()) {
    for (const auto& [name, tensor] : expected) by_name.erase(name);
    return absl::InvalidArgumentError(absl::StrCat("training state: ", by_name.begin()->first, " is unknown"));
  }
  return GuardTorch("restoring training state", [&]() -> absl::Status {
    generator_.set_state(by_name.at(kGenerator));
    step_ = by_name.at(kStep).item<int64_t>();
    for (size_t i = 0; i < parameters_.size(); ++i) {
      const std::string& name = parameters_[i].first;
      parameters_[i].second.detach().copy_(by_name.at("weight." + name));
      ema_[i].copy_(by_name.at("ema." + name));
      first_moment_[i].copy_(by_name.at("first_moment." + name));
      second_moment_[i].copy_(by_name.at("second_moment." + name));
      adam_steps_[i].fill_(static_cast<double>(step_));
    }
    return absl::OkStatus();
  });
}

}  // namespace boss
