#include "server/app/job_counter.h"

#include <string>

namespace boss::server {
namespace {

CollectedFamily Family(std::string name, std::string help, CollectedFamily::Kind type,
                       const std::map<std::pair<JobKind, JobState>, int64_t>& counts) {
  CollectedFamily family = {.name = std::move(name), .help = std::move(help), .kind = type};
  for (const auto& [key, count] : counts) {
    family.series.push_back(
        {.labels = {{"kind", std::string(JobKindName(key.first))}, {"state", std::string(JobStateName(key.second))}},
         .value = static_cast<double>(count)});
  }
  return family;
}

}  // namespace

JobCounter::JobCounter() {
  using enum JobState;
  for (const JobKind kind : {JobKind::kTrain, JobKind::kOptimizeStepsizes, JobKind::kDistill, JobKind::kEvaluate}) {
    for (const JobState state : {kQueued, kRunning, kPausing, kPaused, kCancelling}) unfinished_[{kind, state}] = 0;
    for (const JobState state : {kSucceeded, kFailed, kCancelled}) finished_[{kind, state}] = 0;
  }
}

void JobCounter::OnChange(JobKind kind, std::optional<JobState> from, JobState to) {
  absl::MutexLock lock(&mutex_);
  if (from) --unfinished_[{kind, *from}];
  if (!IsFinal(to)) {
    ++unfinished_[{kind, to}];
  } else if (from) {  // not one that had finished before the start
    ++finished_[{kind, to}];
  }
}

std::vector<CollectedFamily> JobCounter::Collect() const {
  absl::MutexLock lock(&mutex_);
  return {Family("boss_jobs", "Jobs that have not finished", CollectedFamily::Kind::kGauge, unfinished_),
          Family("boss_jobs_finished_total", "Jobs that have finished since the start", CollectedFamily::Kind::kCounter,
                 finished_)};
}

}  // namespace boss::server
