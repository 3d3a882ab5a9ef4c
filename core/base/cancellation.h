// Cooperative cancellation of long computations.
#pragma once

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

namespace boss {

// Shared between the side that asks to stop and the computation, which calls Check() between steps. Thread-safe. The first reason wins.
class CancellationToken {
 public:
  CancellationToken() = default;
  CancellationToken(const CancellationToken&) = delete;
  CancellationToken& operator=(const CancellationToken&) = delete;

  // `reason` must not be OK; it is what Check() returns from now on (CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE, ...).
  void Cancel(absl::Status reason) ABSL_LOCKS_EXCLUDED(mutex_);

  // OK, or the reason of the first Cancel().
  absl::Status Check() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  mutable absl::Mutex mutex_;
  absl::Status reason_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace boss
