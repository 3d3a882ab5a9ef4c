#include "server/device/device_worker.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <utility>

#include "absl/synchronization/notification.h"
#include "core/base/torch_guard.h"

namespace boss::server {
namespace {

absl::Status Stopped() { return absl::UnavailableError("the device worker has stopped"); }

}  // namespace

DeviceWorker::DeviceWorker(DeviceWorkerOptions options, const Clock& clock)
    : options_(std::move(options)),
      clock_(clock),
      sampling_stream_(options_.backend->NewStream(options_.device, StreamPriority::kHigh)),
      training_stream_(options_.backend->has_concurrent_streams()
                           ? options_.backend->NewStream(options_.device, StreamPriority::kLow)
                           : nullptr) {
  absl::MutexLock lock(&join_mutex_);
  if (training_stream_ == nullptr) {
    sampling_thread_ = StartThread(*sampling_stream_, &DeviceWorker::OneThreadLoop);
  } else {
    sampling_thread_ = StartThread(*sampling_stream_, &DeviceWorker::SamplingLoop);
    training_thread_ = StartThread(*training_stream_, &DeviceWorker::TrainingLoop);
  }
}

std::thread DeviceWorker::StartThread(const DeviceStream& stream, void (DeviceWorker::*loop)()) {
  absl::Notification started;
  std::thread thread([&, this, loop] {
    // LibTorch's thread count belongs to the calling thread, so it is set here and not by the owner. A thread that has
    // never asked for it would take the process's default at its first operator, whatever was set: so it asks first.
    static_cast<void>(at::get_num_threads());
    if (options_.num_threads > 0) at::set_num_threads(options_.num_threads);
    stream.MakeCurrent();
    started.Notify();
    (this->*loop)();
  });
  // The count is the default of threads that come later, too, until somebody sets another.
  started.WaitForNotification();
  return thread;
}

DeviceWorker::~DeviceWorker() { Shutdown(); }

bool DeviceWorker::PostSampling(std::function<void()> unit) {
  absl::MutexLock lock(&mutex_);
  if (stopping_) return false;
  sampling_.push_back({.run = std::move(unit)});
  return true;
}

absl::Status DeviceWorker::RunTraining(absl::FunctionRef<absl::Status()> unit) {
  if (training_stream_ != nullptr) {
    const absl::Status status = GuardTorch("waiting for the device", [&]() -> absl::Status {
      options_.backend->SynchronizeCaller(options_.device);
      return absl::OkStatus();
    });
    if (!status.ok()) return status;
  }
  TrainingUnit waiting{unit};
  absl::MutexLock lock(&mutex_);
  if (stopping_) return Stopped();
  training_.push_back(&waiting);
  mutex_.Await(absl::Condition(&waiting.done));
  return waiting.status;
}

absl::Status DeviceWorker::RunAlone(absl::FunctionRef<absl::Status()> unit) {
  absl::Status status;
  bool done = false;
  absl::MutexLock lock(&mutex_);
  if (stopping_) return Stopped();
  sampling_.push_back({.run = [&status, unit] { status = GuardTorch("on the device", unit); }, .done = &done});
  mutex_.Await(absl::Condition(&done));
  return status;
}

absl::Status DeviceWorker::Synchronize() const {
  return GuardTorch("waiting for the device", [&]() -> absl::Status {
    sampling_stream_->Synchronize();
    return absl::OkStatus();
  });
}

DeviceTimes DeviceWorker::times() const {
  absl::MutexLock lock(&mutex_);
  return times_;
}

void DeviceWorker::Shutdown() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    for (TrainingUnit* unit : training_) {
      unit->status = Stopped();
      unit->done = true;
    }
    training_.clear();
  }
  absl::MutexLock lock(&join_mutex_);
  if (sampling_thread_.joinable()) sampling_thread_.join();
  if (training_thread_.joinable()) training_thread_.join();
}

void DeviceWorker::OneThreadLoop() {
  absl::MutexLock lock(&mutex_);
  while (true) {
    mutex_.Await(absl::Condition(this, &DeviceWorker::HasWork));
    if (!training_.empty() && (sampling_.empty() || TrainingIsDue())) {
      RunTrainingUnit();
    } else if (!sampling_.empty()) {
      RunSamplingUnit();
    } else {
      return;
    }
  }
}

void DeviceWorker::SamplingLoop() {
  absl::MutexLock lock(&mutex_);
  while (true) {
    mutex_.Await(absl::Condition(this, &DeviceWorker::SamplingMayRun));
    if (sampling_.empty()) return;
    RunSamplingUnit();
  }
}

void DeviceWorker::TrainingLoop() {
  absl::MutexLock lock(&mutex_);
  while (true) {
    mutex_.Await(absl::Condition(this, &DeviceWorker::TrainingMayRun));
    if (training_.empty()) return;
    RunTrainingUnit();
  }
}

bool DeviceWorker::TrainingIsDue() const {
  return sampling_since_training_ >= last_training_unit_ * (1.0 / options_.training_share - 1.0);
}

void DeviceWorker::RunSamplingUnit() {
  SamplingUnit unit = std::move(sampling_.front());
  sampling_.pop_front();
  if (unit.done != nullptr) {
    sampling_alone_ = true;
    mutex_.Await(absl::Condition(this, &DeviceWorker::TrainingRests));
  }
  mutex_.Unlock();
  const absl::Time start = clock_.Now();
  unit.run();
  unit.run = nullptr;  // what it owns is released outside the lock
  const absl::Duration busy = std::max(absl::ZeroDuration(), clock_.Now() - start);
  mutex_.Lock();
  times_.sampling += busy;
  ++times_.sampling_units;
  sampling_since_training_ += busy;
  if (unit.done != nullptr) {
    sampling_alone_ = false;
    *unit.done = true;
  }
}

void DeviceWorker::RunTrainingUnit() {
  TrainingUnit* unit = training_.front();
  training_.pop_front();
  training_runs_ = true;
  const absl::Duration sampling_before = times_.sampling;
  mutex_.Unlock();
  const absl::Time start = clock_.Now();
  absl::Status status = GuardTorch("training", unit->run);
  if (training_stream_ != nullptr) {
    status.Update(GuardTorch("training", [&]() -> absl::Status {
      training_stream_->Synchronize();
      return absl::OkStatus();
    }));
  }
  const absl::Duration busy = std::max(absl::ZeroDuration(), clock_.Now() - start);
  mutex_.Lock();
  training_runs_ = false;
  times_.training += busy;
  ++times_.training_units;
  const absl::Duration beside_sampling = times_.sampling - sampling_before;
  last_training_unit_ = std::max(busy - beside_sampling, busy * options_.training_share);
  sampling_since_training_ = absl::ZeroDuration();
  unit->status = std::move(status);
  unit->done = true;
}

}  // namespace boss::server
