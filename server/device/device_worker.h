// Who runs next on a device: one worker thread, sampling before training.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "core/base/clock.h"
#include "core/base/step_executor.h"

namespace boss::server {

struct DeviceWorkerOptions {
  at::Device device = at::kCPU;
  // LibTorch's threads inside one operator, for the worker thread; 0 keeps LibTorch's own choice (one a core).
  int num_threads = 0;
  // The share of device time, in (0, 1], that waiting training is sure of while sampling keeps the device busy.
  double training_share = 0.1;
};

// What a device has been busy with since the start.
struct DeviceTimes {
  absl::Duration sampling;
  absl::Duration training;
  int64_t sampling_units = 0;
  int64_t training_units = 0;
};

// Runs units of device work, one at a time, on one thread of its own. A unit is short: one solver step of a batch, one
// train step.
//
// Order: the oldest sampling unit first. Waiting training runs when no sampling unit waits, or when it is due: since
// its last unit, which took d, sampling has had the device for d (1 / training_share - 1). So a waiting job moves on
// under any load, and a sampling unit waits for at most one training unit.
//
// Thread-safe. Units must not throw.
class DeviceWorker {
 public:
  // `clock` must outlive the worker.
  DeviceWorker(DeviceWorkerOptions options, const Clock& clock);
  // As Shutdown().
  ~DeviceWorker();
  DeviceWorker(const DeviceWorker&) = delete;
  DeviceWorker& operator=(const DeviceWorker&) = delete;

  // Queues a sampling unit and returns at once. Whoever posts bounds the number of units. Returns false after
  // Shutdown(); then the unit is dropped.
  bool PostSampling(std::function<void()> unit) ABSL_LOCKS_EXCLUDED(mutex_);

  // Runs `unit` when its turn comes and returns its status. Blocks; not to be called from a unit.
  // \error UNAVAILABLE after Shutdown(); then the unit has not run.
  absl::Status RunTraining(absl::FunctionRef<absl::Status()> unit) ABSL_LOCKS_EXCLUDED(mutex_);

  // RunTraining as an executor for core's long computations. Lives as long as the worker.
  StepExecutor& training_executor() { return training_executor_; }

  at::Device device() const { return options_.device; }
  DeviceTimes times() const ABSL_LOCKS_EXCLUDED(mutex_);

  // Refuses new units, fails the training units that wait, runs the sampling units that wait, and joins the thread.
  // Idempotent.
  void Shutdown() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  class TrainingExecutor final : public StepExecutor {
   public:
    explicit TrainingExecutor(DeviceWorker& worker) : worker_(worker) {}
    absl::Status Run(absl::FunctionRef<absl::Status()> step) override { return worker_.RunTraining(step); }

   private:
    DeviceWorker& worker_;
  };

  // A caller of RunTraining; lives on that caller's stack until `done`.
  struct TrainingUnit {
    absl::FunctionRef<absl::Status()> run;
    absl::Status status;
    bool done = false;
  };

  void WorkerLoop();
  bool HasWork() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return stopping_ || !sampling_.empty() || !training_.empty();
  }
  bool TrainingIsDue() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Both release the mutex while the unit runs.
  void RunSamplingUnit() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RunTrainingUnit() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const DeviceWorkerOptions options_;
  const Clock& clock_;
  TrainingExecutor training_executor_{*this};

  mutable absl::Mutex mutex_;
  std::deque<std::function<void()>> sampling_ ABSL_GUARDED_BY(mutex_);
  std::deque<TrainingUnit*> training_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  DeviceTimes times_ ABSL_GUARDED_BY(mutex_);
  absl::Duration last_training_unit_ ABSL_GUARDED_BY(mutex_);
  // Device time that sampling has had since the last training unit.
  absl::Duration sampling_since_training_ ABSL_GUARDED_BY(mutex_);

  absl::Mutex join_mutex_;
  std::thread thread_ ABSL_GUARDED_BY(join_mutex_);
};

}  // namespace boss::server
