#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "server/jobs/job_manager.h"

namespace boss::server {

absl::StatusOr<std::unique_ptr<JobWatch>> JobManager::Watch(absl::string_view id, int64_t from_sequence,
                                                            std::function<void()> notify) {
  absl::MutexLock lock(&mutex_);
  BOSS_ASSIGN_OR_RETURN(const Entry* entry, Find(id));
  const int64_t next = entry->job.last_sequence + 1;
  if (from_sequence > next) {
    return absl::OutOfRangeError(
        absl::StrCat("from_sequence: got ", from_sequence, ", the next event of job ", id, " is ", next));
  }
  absl::MutexLock observer_lock(&observer_mutex_);
  const int64_t observer = next_observer_++;
  observers_[observer] = {std::string(id), std::move(notify)};
  return std::unique_ptr<JobWatch>(new JobWatch(*this, std::string(id), std::max<int64_t>(from_sequence, 1), observer));
}

JobWatch::~JobWatch() {
  absl::MutexLock lock(&manager_.observer_mutex_);
  manager_.observers_.erase(observer_);
}

absl::StatusOr<JobWatch::Batch> JobWatch::Next(int64_t limit) {
  bool final = false;
  int64_t last_sequence = 0;
  {
    // Before the events are read: a job that is final by then gets no more of them.
    absl::MutexLock lock(&manager_.mutex_);
    BOSS_ASSIGN_OR_RETURN(const JobManager::Entry* entry, manager_.Find(job_id_));
    final = IsFinal(entry->job.state);
    last_sequence = entry->job.last_sequence;
  }
  Batch batch;
  if (next_sequence_ <= last_sequence) {
    BOSS_ASSIGN_OR_RETURN(
        const std::vector<EventRecord> records,
        manager_.journal_.Events(job_id_, next_sequence_, std::min(limit, last_sequence - next_sequence_ + 1)));
    for (const EventRecord& record : records) {
      BOSS_ASSIGN_OR_RETURN(JobEvent event, EventFromRecord(record));
      batch.events.push_back(std::move(event));
    }
    next_sequence_ += static_cast<int64_t>(batch.events.size());
  }
  batch.end = final && next_sequence_ > last_sequence;
  return batch;
}

void JobManager::Notify(const std::string& id) {
  absl::MutexLock lock(&observer_mutex_);
  for (const auto& [number, observer] : observers_) {
    if (observer.job_id == id) observer.notify();
  }
}

}  // namespace boss::server
