// What was found to be wrong.
#pragma once

#include <cstdio>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace boss::testing {

// Thread-safe.
class Findings {
 public:
  // Also prints it, so that it stands among what else happened at that moment.
  void Add(std::string what) {
    std::fprintf(stderr, "FOUND: %s\n", what.c_str());
    absl::MutexLock lock(&mutex_);
    all_.push_back(std::move(what));
  }
  std::vector<std::string> all() const {
    absl::MutexLock lock(&mutex_);
    return all_;
  }

 private:
  mutable absl::Mutex mutex_;
  std::vector<std::string> all_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace boss::testing
