// What crashes, time and the disk bring about in a JobManager.
#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "server/jobs/job_manager.h"

namespace boss::server {
namespace {

constexpr absl::Duration kMaxCrashBackoff = absl::Minutes(5);

}  // namespace

absl::Duration JobManager::CrashBackoff(int crashes) const {
  absl::Duration backoff = options_.crash_backoff;
  for (int i = 1; i < crashes && backoff < kMaxCrashBackoff; ++i) backoff *= 2;
  return std::min(backoff, kMaxCrashBackoff);
}

absl::Status JobManager::RecoverCrashed(Entry& entry) {
  const Job& job = entry.job;
  if (job.state != JobState::kRunning) {
    return Transition(entry, JobAction::kCrash, "the server ended before the job did as it was asked",
                      absl::OkStatus());
  }
  const int crashes = job.crashes + 1;
  if (crashes > job.max_crashes) {
    return Transition(entry, JobAction::kFail, "",
                      absl::AbortedError(absl::StrFormat(
                          "the server ended %d times in a row while the job ran, without progress in between; last in "
                          "stage %s at %d of %d",
                          crashes, JobStageName(job.progress.stage), job.progress.step, job.progress.total_steps)));
  }
  return Transition(
      entry, JobAction::kCrash,
      absl::StrFormat("the server ended while the job ran (%d of %d without progress): it runs again after %s", crashes,
                      job.max_crashes, absl::FormatDuration(CrashBackoff(crashes))),
      absl::OkStatus());
}

void JobManager::Upkeep() {
  const absl::Time now = clock_.Now();
  ExpireWaiting(now);
  DeleteExpired(now);
}

void JobManager::ExpireWaiting(absl::Time now) {
  std::vector<Entry*> expired;
  for (const auto& [order, entry] : unfinished_) {
    if (!IsActive(entry->job.state) && entry->job.deadline <= now) expired.push_back(entry);
  }
  for (Entry* entry : expired) {
    Transition(*entry, JobAction::kFail, "", absl::DeadlineExceededError("the deadline passed before the job was done"))
        .IgnoreError();
  }
}

void JobManager::ScheduleExpiry(const Job& job) {
  if (job.retention != absl::InfiniteDuration()) job_expiries_.emplace(job.expire_time(), job.id);
  if (job.state == JobState::kFailed && options_.data_retention != absl::InfiniteDuration()) {
    data_expiries_.emplace(job.end_time + options_.data_retention, job.id);
  }
}

void JobManager::DeleteExpired(absl::Time now) {
  while (!data_expiries_.empty() && data_expiries_.begin()->first <= now) {
    unneeded_folders_.push_back(JobFolder(data_expiries_.begin()->second));
    data_expiries_.erase(data_expiries_.begin());
  }
  while (!job_expiries_.empty() && job_expiries_.begin()->first <= now) {
    if (!DeleteEntry(std::string(job_expiries_.begin()->second)).ok()) break;
  }
}

absl::Status JobManager::DeleteEntry(const std::string& id) {
  BOSS_RETURN_IF_ERROR(journal_.Delete(id));
  const Entry& entry = jobs_.find(id)->second;
  by_order_.erase(entry.order);
  by_request_.erase({entry.job.owner, entry.job.request_id});
  job_expiries_.erase({entry.job.expire_time(), id});
  data_expiries_.erase({entry.job.end_time + options_.data_retention, id});
  jobs_.erase(id);
  Notify(id);
  unneeded_folders_.push_back(JobFolder(id));
  return absl::OkStatus();
}

void JobManager::RemoveFolders() {
  // Before the list is taken: whoever entered a folder waits for its removal, also where another thread removes it.
  absl::MutexLock removal_lock(&removal_mutex_);
  std::vector<std::string> folders;
  {
    absl::MutexLock lock(&mutex_);
    folders.swap(unneeded_folders_);
  }
  if (folders.empty()) return;
  std::erase_if(folders, [&](const std::string& folder) { return options_.files->RemoveAll(folder).ok(); });
  absl::MutexLock lock(&mutex_);
  unneeded_folders_.insert(unneeded_folders_.end(), folders.begin(), folders.end());
}

bool JobManager::HasRoom() {
  const absl::StatusOr<int64_t> free = options_.files->FreeBytes(options_.data_folder);
  std::string reason;
  if (!free.ok()) {
    reason = absl::StrCat("waiting: the free disk space is not known: ", free.status().message());
  } else if (*free < options_.min_free_bytes) {
    reason = absl::StrFormat("waiting: %d MiB of disk are free, the low-water mark is %d MiB", *free >> 20,
                             options_.min_free_bytes >> 20);
  }
  const bool news = reason.empty() != hold_reason_.empty();
  hold_reason_ = std::move(reason);
  if (news && !hold_reason_.empty()) {
    for (const auto& [order, entry] : unfinished_) {
      if (entry->job.state != JobState::kQueued) continue;
      // A disk that takes no event still lets GetJob show the reason.
      RecordLocked(*entry, entry->job, {JobMessage{Severity::kWarning, hold_reason_}}).IgnoreError();
    }
  }
  return hold_reason_.empty();
}

}  // namespace boss::server
