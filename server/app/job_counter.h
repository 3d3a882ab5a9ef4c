// Jobs by kind and state, for metrics.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/jobs/job.h"
#include "server/metrics/metrics.h"

namespace boss::server {

// Thread-safe.
class JobCounter {
 public:
  // Every kind and state is there from the beginning: a first failure is a step from 0.
  JobCounter();

  // As JobStateListener (server/jobs/job_manager.h).
  void OnChange(JobKind kind, std::optional<JobState> from, JobState to) ABSL_LOCKS_EXCLUDED(mutex_);

  // boss_jobs: those that have not finished. boss_jobs_finished_total: since the start.
  std::vector<CollectedFamily> Collect() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  using Key = std::pair<JobKind, JobState>;
  mutable absl::Mutex mutex_;
  std::map<Key, int64_t> unfinished_ ABSL_GUARDED_BY(mutex_);
  std::map<Key, int64_t> finished_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace boss::server
