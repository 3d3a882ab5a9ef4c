// The open streams of one kind, for the server's shutdown.
#pragma once

#include <memory>
#include <set>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

namespace boss::server {

// Reactor has End(absl::Status). Thread-safe.
template <typename Reactor>
class ReactorList {
 public:
  void Add(const std::shared_ptr<Reactor>& reactor) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::Status ended;
    {
      absl::MutexLock lock(&mutex_);
      reactors_.insert(reactor);
      ended = ended_;
    }
    if (!ended.ok()) reactor->End(ended);
  }
  void Remove(const std::shared_ptr<Reactor>& reactor) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    reactors_.erase(reactor);
  }
  // Ends all of them, and those that are added later, with `status`. \pre !status.ok().
  void EndAll(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_) {
    std::set<std::shared_ptr<Reactor>> reactors;
    {
      absl::MutexLock lock(&mutex_);
      ended_ = status;
      reactors = reactors_;
    }
    for (const std::shared_ptr<Reactor>& reactor : reactors) reactor->End(status);
  }

 private:
  absl::Mutex mutex_;
  absl::Status ended_ ABSL_GUARDED_BY(mutex_);
  std::set<std::shared_ptr<Reactor>> reactors_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace boss::server
