// Training of a velocity model, one train step a call.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/flow/velocity_model.h"

namespace boss {

// What is minimised. Draws everything random from the generator that it is given, so that the trainer's state decides all.
class TrainingObjective {
 public:
  virtual ~TrainingObjective() = default;
  // The scalar loss of a fresh batch, with its autograd graph.
  virtual at::Tensor Loss(const VelocityModel& model, at::Generator& generator) = 0;
  // Samples of one batch.
  virtual int64_t batch_size() const = 0;
};

struct TrainerOptions {
  double learning_rate = 2e-4;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double adam_epsilon = 1e-8;
  int64_t warmup_steps = 0;        // learning rate of step n (from 0): learning_rate min(n / warmup_steps, 1)
  int64_t decay_steps = 0;         // if set, a cosine from learning_rate after warmup to 0 at this step
  double gradient_clip = 1.0;      // bound on the gradient's L2 norm; 0 turns it off
  double ema_rate = 0.999;         // decay of update n (from 1): min(ema_rate, (1 + n) / (10 + n))
  int64_t accumulation_steps = 1;  // batches averaged into one train step
  uint64_t seed = 0;
};

struct TrainStepMetrics {
  double loss = 0;
  double gradient_norm = 0;  // before clipping
  double learning_rate = 0;
};

// Named tensors and nothing else, so that it goes into one safetensors file.
using TrainerState = std::vector<std::pair<std::string, at::Tensor>>;

// Adam (Kingma and Ba, 2015) with linear warmup, gradient clipping and an exponential moving average of the weights. Not thread-safe.
class Trainer {
 public:
  // Trains `model` in place; its parameters require gradients as they come from CreateModel or Clone.
  Trainer(std::unique_ptr<VelocityModel> model, TrainerOptions options);

  // One train step. \error FAILED_PRECONDITION if the loss or the gradient is NaN or infinite (weights, EMA and optimizer are left as they were); what LibTorch
  // reports.
  absl::StatusOr<TrainStepMetrics> Step(TrainingObjective& objective);

  int64_t step() const { return step_; }
  const TrainerOptions& options() const { return options_; }
  const VelocityModel& model() const { return *model_; }
  // A copy of the model with the averaged weights.
  std::unique_ptr<VelocityModel> EmaModel() const;

  // Weights, EMA, optimizer moments, generator and step: restoring them continues bit for bit on the CPU.
  TrainerState SaveState() const;
  // \error INVALID_ARGUMENT naming a tensor that is missing, unknown or of another shape; then nothing has changed.
  absl::Status RestoreState(const TrainerState& state);

 private:
  std::unique_ptr<VelocityModel> model_;
  const TrainerOptions options_;
  std::vector<std::pair<std::string, at::Tensor>> parameters_;
  std::vector<at::Tensor> ema_, first_moment_, second_moment_, adam_steps_;
  at::Generator generator_;
  int64_t step_ = 0;
};

}  // namespace boss
