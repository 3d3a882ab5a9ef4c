// What a soak run has seen.
#pragma once

#include <cstdint>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace boss::testing {

// Thread-safe.
class Ledger {
 public:
  // A request of `kind` ended with `status`, which is OK or not what a client may expect unless `expected`.
  void Count(absl::string_view kind, const absl::Status& status, bool expected) ABSL_LOCKS_EXCLUDED(mutex_);
  // Of a good client's small request that nothing disturbed.
  void AddLatency(absl::Duration latency) ABSL_LOCKS_EXCLUDED(mutex_);
  // The server has broken its word, or ended otherwise than it was told to.
  void AddFinding(std::string finding) ABSL_LOCKS_EXCLUDED(mutex_);
  void AddJob() ABSL_LOCKS_EXCLUDED(mutex_);
  void AddLostJob(const std::string& name) ABSL_LOCKS_EXCLUDED(mutex_);
  // Of the process that has run for `uptime`. A process's samples come in order, those of the next one after them.
  void AddMemory(absl::Duration uptime, int64_t bytes) ABSL_LOCKS_EXCLUDED(mutex_);
  void CountEvent(const std::string& event) ABSL_LOCKS_EXCLUDED(mutex_);

  // Whether there is nothing to complain about.
  bool is_clean() const ABSL_LOCKS_EXCLUDED(mutex_);
  void Print(std::FILE* out) const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Memory {
    double hours, mebibytes;
  };

  // MiB per hour by least squares, with one slope for all processes and a level for each; of each process the second
  // half, when it has all that it needs. Nothing before any process has ten samples there.
  std::string Slope() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);

  mutable absl::Mutex mutex_;
  std::map<std::string, std::map<std::string, int64_t>> codes_ ABSL_GUARDED_BY(mutex_);  // by kind
  std::map<std::string, int64_t> expected_ ABSL_GUARDED_BY(mutex_);                      // errors by code
  std::map<std::string, int64_t> unexpected_ ABSL_GUARDED_BY(mutex_);                    // by kind and message
  std::map<std::string, int64_t> events_ ABSL_GUARDED_BY(mutex_);
  std::vector<absl::Duration> latencies_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> findings_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::vector<Memory>> memory_ ABSL_GUARDED_BY(mutex_);  // by process
  int64_t jobs_ ABSL_GUARDED_BY(mutex_) = 0, lost_jobs_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace boss::testing
