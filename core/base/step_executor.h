// Who runs next on the device is decided outside of the numerics.
#pragma once

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

namespace boss {

// Long computations (trajectories, training, evaluation) hand every unit of device work - one evaluation of a batch, one train step - to an
// executor and return to it between units. A server's executor lets sampling go first there, and refuses further units of a computation that
// was cancelled; then the computation returns that status at once.
class StepExecutor {
 public:
  virtual ~StepExecutor() = default;
  // Runs `step` to its end, on this thread or another, and returns its status; or returns an error without running it.
  virtual absl::Status Run(absl::FunctionRef<absl::Status()> step) = 0;
};

// Runs every step at once on the calling thread.
class InlineExecutor final : public StepExecutor {
 public:
  absl::Status Run(absl::FunctionRef<absl::Status()> step) override { return step(); }
};

}  // namespace boss
