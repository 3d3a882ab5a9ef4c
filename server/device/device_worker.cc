#include "server/device/device_worker.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <utility>

#include "absl/synchronization/notification.h"

namespace boss::server {

DeviceWorker::DeviceWorker(DeviceWorkerOptions options, const Clock& clock) : options_(options), clock_(clock) {
  absl::Notification started;
  absl::MutexLock lock(&join_mutex_);
  thread_ = std::thread([&] {
    // LibTorch's thread count belongs to the calling thread, so it is set here and not by the owner. A thread that has
    // never asked for it would take the process's default at its first operator, whatever was set: so it asks first.
    static_cast<void>(at::get_num_threads());
    if (options_.num_threads > 0) at::set_num_threads(options_.num_threads);
    started.Notify();
    WorkerLoop();
  });
  // It is the default of threads that come later, too, until somebody sets another.
  started.WaitForNotification();
}

DeviceWorker::~DeviceWorker() { Shutdown(); }

bool DeviceWorker::PostSampling(std::function<void()> unit) {
  absl::MutexLock lock(&mutex_);
  if (stopping_) return false;
  sampling_.push_back(std::move(unit));
  return true;
}

absl::Status DeviceWorker::RunTraining(absl::FunctionRef<absl::Status()> unit) {
  TrainingUnit waiting{unit};
  absl::MutexLock lock(&mutex_);
  if (stopping_) return absl::UnavailableError("the device worker has stopped");
  training_.push_back(&waiting);
  mutex_.Await(absl::Condition(&waiting.done));
  return waiting.status;
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
      unit->status = absl::UnavailableError("the device worker has stopped");
      unit->done = true;
    }
    training_.clear();
  }
  absl::MutexLock lock(&join_mutex_);
  if (thread_.joinable()) thread_.join();
}

void DeviceWorker::WorkerLoop() {
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

bool DeviceWorker::TrainingIsDue() const {
  return sampling_since_training_ >= last_training_unit_ * (1.0 / options_.training_share - 1.0);
}

void DeviceWorker::RunSamplingUnit() {
  std::function<void()> unit = std::move(sampling_.front());
  sampling_.pop_front();
  mutex_.Unlock();
  const absl::Time start = clock_.Now();
  unit();
  unit = nullptr;  // what it owns is released outside the lock
  const absl::Duration busy = std::max(absl::ZeroDuration(), clock_.Now() - start);
  mutex_.Lock();
  times_.sampling += busy;
  ++times_.sampling_units;
  sampling_since_training_ += busy;
}

void DeviceWorker::RunTrainingUnit() {
  TrainingUnit* unit = training_.front();
  training_.pop_front();
  mutex_.Unlock();
  const absl::Time start = clock_.Now();
  absl::Status status = unit->run();
  const absl::Duration busy = std::max(absl::ZeroDuration(), clock_.Now() - start);
  mutex_.Lock();
  times_.training += busy;
  ++times_.training_units;
  last_training_unit_ = busy;
  sampling_since_training_ = absl::ZeroDuration();
  unit->status = std::move(status);
  unit->done = true;
}

}  // namespace boss::server
