// One request on its way through the solver, batch by batch.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "core/solver/solver.h"
#include "server/engine/resolve_request.h"
#include "server/engine/sample_request.h"

namespace boss::server {

// States of consecutive samples.
struct SampleBatch {
  int64_t first_index = 0;  // in the request
  at::Tensor x;             // [count, ...] float32 on the CPU
  int solver_steps = 0;     // done
  double t = 0;
};

// What one solver step brought.
struct StepOutcome {
  absl::Status status;
  int64_t evaluations = 0;  // velocity evaluations, summed over the batch's samples
  std::optional<SampleBatch> preview;
  std::optional<SampleBatch> samples;  // a batch that has arrived at t = 1
};

// Cuts a request into batches of at most `max_batch` samples and runs one after another, one solver step a call. How it
// is cut changes no sample's noise. Not thread-safe: Step() belongs to the device's thread.
class SamplingTask {
 public:
  SamplingTask(const SampleRequest& request, ResolvedRequest resolved, int64_t max_batch);

  // \pre !done(). After an error the task must not go on.
  StepOutcome Step();

  bool done() const { return begin_ == num_samples_; }
  SampleProgress progress() const;
  // Velocity evaluations per sample, the mean over the batches that have finished.
  double nfe() const;

  const ResolvedRequest& resolved() const { return resolved_; }

 private:
  void StartBatch();

  const ResolvedRequest resolved_;
  const int64_t num_samples_;
  const uint64_t seed_;
  const int preview_interval_;
  const int64_t max_batch_;

  int64_t begin_ = 0;  // of the current or next batch
  int64_t end_ = 0;    // of the current batch
  std::unique_ptr<SolverRun> run_;
  int64_t solver_steps_ = 0;
  int64_t finished_evaluations_ = 0;  // summed over the samples that have finished
};

}  // namespace boss::server
