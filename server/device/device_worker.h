// Who runs next on a device: sampling before training, each kind of work on a thread of its own or both on one.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "core/base/clock.h"
#include "core/base/step_executor.h"
#include "server/device/device_backend.h"

namespace boss::server {

struct DeviceWorkerOptions {
  at::Device device = at::kCPU;
  // LibTorch's threads inside one operator, for the worker's threads; 0 keeps LibTorch's own choice (one a core).
  int num_threads = 0;
  // The share of device time, in (0, 1], that waiting training is sure of while sampling keeps the device busy.
  double training_share = 0.1;
  // Of `device`.
  std::shared_ptr<const DeviceBackend> backend = std::make_shared<CpuBackend>();
};

// What a device has been busy with since the start. Where sampling and training run side by side, the sum may exceed
// the time that has passed.
struct DeviceTimes {
  absl::Duration sampling;
  absl::Duration training;
  int64_t sampling_units = 0;
  int64_t training_units = 0;
};

// Runs units of device work. A unit is short: one solver step of a batch, one train step.
//
// Order on a device without concurrent streams (the CPU): one unit at a time, on one thread, the oldest sampling unit
// first. Waiting training runs when no sampling unit waits, or when it is due: since its last unit, which took d,
// sampling has had the device for d (1 / training_share - 1). So a waiting job moves on under any load, and a sampling
// unit waits for at most one training unit.
//
// With concurrent streams (CUDA) sampling has a thread with a stream of high priority, training one with a stream of
// low priority, and the device fills with training what sampling leaves. When training is due, sampling pauses until
// the training unit that waits or runs is over: d is then the time that the last unit had for itself, at least
// training_share of all that it took. So the share holds there too, and a sampling unit waits for at most the rest of
// one training unit.
//
// Hand-over between streams: what the caller of RunTraining has queued on the device is done before the unit starts,
// and what a training unit has queued is done before RunTraining returns. A sampling unit calls Synchronize() before
// its results leave it.
//
// Thread-safe. Units of PostSampling must not throw; what others throw becomes their status, as of GuardTorch.
class DeviceWorker {
 public:
  // `clock` must outlive the worker. Throws what the backend does if the device cannot be used.
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

  // Runs `unit` as a sampling unit, beside which no training unit runs: for recording graphs. As RunTraining otherwise.
  absl::Status RunAlone(absl::FunctionRef<absl::Status()> unit) ABSL_LOCKS_EXCLUDED(mutex_);

  // RunTraining as an executor for core's long computations, and RunAlone. Live as long as the worker.
  StepExecutor& training_executor() { return training_executor_; }
  StepExecutor& exclusive_executor() { return exclusive_executor_; }

  // In a sampling unit: waits for what it has queued on the device. \error what LibTorch reports of any of it.
  absl::Status Synchronize() const;

  at::Device device() const { return options_.device; }
  const std::shared_ptr<const DeviceBackend>& backend() const { return options_.backend; }
  DeviceTimes times() const ABSL_LOCKS_EXCLUDED(mutex_);

  // Refuses new units, fails the training units that wait, runs the sampling units that wait, and joins the threads.
  // Idempotent.
  void Shutdown() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  class Executor final : public StepExecutor {
   public:
    using Method = absl::Status (DeviceWorker::*)(absl::FunctionRef<absl::Status()>);
    Executor(DeviceWorker& worker, Method method) : worker_(worker), method_(method) {}
    absl::Status Run(absl::FunctionRef<absl::Status()> step) override { return (worker_.*method_)(step); }

   private:
    DeviceWorker& worker_;
    const Method method_;
  };

  struct SamplingUnit {
    std::function<void()> run;
    bool* done = nullptr;  // of a unit that runs alone: set when it has run, under the mutex
  };

  // A caller of RunTraining; lives on that caller's stack until `done`.
  struct TrainingUnit {
    absl::FunctionRef<absl::Status()> run;
    absl::Status status;
    bool done = false;
  };

  // The thread that runs `loop`, set up for LibTorch.
  std::thread StartThread(const DeviceStream& stream, void (DeviceWorker::*loop)());
  void OneThreadLoop();
  void SamplingLoop();
  void TrainingLoop();

  bool HasWork() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return stopping_ || !sampling_.empty() || !training_.empty();
  }
  bool SamplingMayRun() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    const bool training_waits = training_runs_ || !training_.empty();
    return stopping_ || (!sampling_.empty() && !(training_waits && TrainingIsDue()));
  }
  bool TrainingMayRun() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return stopping_ || (!training_.empty() && !sampling_alone_);
  }
  bool TrainingRests() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return !training_runs_; }
  bool TrainingIsDue() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  // Both release the mutex while the unit runs.
  void RunSamplingUnit() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RunTrainingUnit() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const DeviceWorkerOptions options_;
  const Clock& clock_;
  const std::unique_ptr<DeviceStream> sampling_stream_;
  const std::unique_ptr<DeviceStream> training_stream_;  // null where training shares the sampling thread
  Executor training_executor_{*this, &DeviceWorker::RunTraining};
  Executor exclusive_executor_{*this, &DeviceWorker::RunAlone};

  mutable absl::Mutex mutex_;
  std::deque<SamplingUnit> sampling_ ABSL_GUARDED_BY(mutex_);
  std::deque<TrainingUnit*> training_ ABSL_GUARDED_BY(mutex_);
  bool sampling_alone_ ABSL_GUARDED_BY(mutex_) = false;  // a unit that runs alone runs, or waits for training to rest
  bool training_runs_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  DeviceTimes times_ ABSL_GUARDED_BY(mutex_);
  absl::Duration last_training_unit_ ABSL_GUARDED_BY(mutex_);  // d above
  // Device time that sampling has had since the last training unit.
  absl::Duration sampling_since_training_ ABSL_GUARDED_BY(mutex_);

  absl::Mutex join_mutex_;
  std::thread sampling_thread_ ABSL_GUARDED_BY(join_mutex_);
  std::thread training_thread_ ABSL_GUARDED_BY(join_mutex_);
};

}  // namespace boss::server
