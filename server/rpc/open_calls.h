// The calls of some kind that are open, for a server's shutdown.
#pragma once

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace boss::server {

// Thread-safe.
class OpenCalls {
 public:
  void Add() ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    ++count_;
  }
  void Remove() ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    --count_;
  }
  // Waits until there is none, at most until `deadline` by the system's clock, or until StopWaiting().
  void WaitForNone(absl::Time deadline) const ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    mutex_.AwaitWithDeadline(absl::Condition(this, &OpenCalls::IsOver), deadline);
  }
  // The same, but for StopWaiting().
  void WaitPatientlyForNone(absl::Time deadline) const ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    mutex_.AwaitWithDeadline(absl::Condition(this, &OpenCalls::IsNone), deadline);
  }
  void StopWaiting() ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    stopped_ = true;
  }

 private:
  bool IsNone() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return count_ == 0; }
  bool IsOver() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return count_ == 0 || stopped_; }

  mutable absl::Mutex mutex_;
  int64_t count_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace boss::server
