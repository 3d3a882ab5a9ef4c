// Whether calls are let in to the services.
#pragma once

#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

namespace boss::server {

// Thread-safe.
class Gate {
 public:
  // Closed at first. \pre !why.ok().
  explicit Gate(absl::Status why) : refusal_(std::move(why)) {}

  void Open() { Set(absl::OkStatus()); }
  // Calls that are in already stay. \pre !why.ok().
  void Close(absl::Status why) { Set(std::move(why)); }

  // Of a call that begins. \error why the gate is closed.
  absl::Status Enter() const ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::ReaderMutexLock lock(&mutex_);
    return refusal_;
  }

 private:
  void Set(absl::Status refusal) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    refusal_ = std::move(refusal);
  }

  mutable absl::Mutex mutex_;
  absl::Status refusal_ ABSL_GUARDED_BY(mutex_);  // OK: open
};

}  // namespace boss::server
