// The runner's side of JobManager: which job runs, what becomes of it, and how that is recorded.
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"
#include "server/jobs/job_context.h"
#include "server/jobs/job_manager.h"
#include "server/jobs/run_job.h"
#include "server/log/log.h"

namespace boss::server {
namespace {

// How often deadlines, retention and the disk are looked at while no job runs, and a journal that fails is tried again.
constexpr absl::Duration kIdleInterval = absl::Seconds(1);

absl::Status RunJob(JobContext& context) {
  BOSS_RETURN_IF_ERROR(context.files().CreateFolders(context.folder()));
  struct Runner {
    JobContext& context;
    absl::Status operator()(const TrainSpec& spec) const { return RunTrainJob(context, spec); }
    absl::Status operator()(const OptimizeStepsizesSpec& spec) const { return RunOptimizeStepsizesJob(context, spec); }
    absl::Status operator()(const DistillSpec& spec) const { return RunDistillJob(context, spec); }
    absl::Status operator()(const EvaluateSpec& spec) const { return RunEvaluateJob(context, spec); }
  };
  return GuardTorch("job", [&] { return std::visit(Runner{context}, context.job().spec); });
}

// What went wrong while the job stopped: it loses what was done since the state before. OK if nothing did.
absl::Status ErrorBesideStop(const JobContext& context, const absl::Status& status) {
  const absl::Status& stop = context.stop_status();
  const bool is_stop = status.code() == stop.code() && absl::StrContains(status.message(), stop.message());
  return is_stop ? absl::OkStatus() : status;
}

}  // namespace

void JobManager::RunnerLoop() {
  while (true) {
    RemoveFolders();
    std::unique_ptr<JobContext> context;
    {
      absl::MutexLock lock(&mutex_);
      if (shutdown_) return;
      Upkeep();
      Entry* const next = NextQueued();
      // A job that the journal does not let start stays queued.
      if (next == nullptr || !HasRoom() || !Transition(*next, JobAction::kStart, "", absl::OkStatus()).ok()) {
        wake_.WaitWithTimeout(&mutex_, kIdleInterval);
        continue;
      }
      context = std::make_unique<JobContext>(*this, next->job);
    }
    const absl::Status status = RunJob(*context);
    context->LeaveStage();
    FinishRun(*context, status);
  }
}

JobManager::Entry* JobManager::NextQueued() {
  Entry* next = nullptr;
  const absl::Time now = clock_.Now();
  for (const auto& [order, entry] : unfinished_) {
    if (entry->job.state != JobState::kQueued || entry->job.not_before > now) continue;
    if (next == nullptr || entry->job.priority > next->job.priority) next = entry;
  }
  return next;
}

StopReason JobManager::RequestedStop(const std::string& id) {
  absl::MutexLock lock(&mutex_);
  const Job& job = jobs_.find(id)->second.job;
  if (job.state == JobState::kCancelling) return StopReason::kCancel;
  if (job.deadline <= clock_.Now()) return StopReason::kDeadline;
  if (shutdown_) return StopReason::kShutdown;
  return job.state == JobState::kPausing ? StopReason::kPause : StopReason::kNone;
}

void JobManager::FinishRun(const JobContext& context, const absl::Status& status) {
  const StopReason stop = context.stop();
  absl::MutexLock lock(&mutex_);
  Entry& entry = jobs_.find(context.job().id)->second;
  const bool interrupted = stop == StopReason::kCancel || stop == StopReason::kPause || stop == StopReason::kShutdown;
  const JobAction action = status.ok() ? JobAction::kSucceed : interrupted ? JobAction::kInterrupt : JobAction::kFail;
  std::string reason = action != JobAction::kInterrupt ? ""
                       : stop == StopReason::kShutdown ? "the server stops"
                                                       : "as a client asked";
  if (const absl::Status error = ErrorBesideStop(context, status); action == JobAction::kInterrupt && !error.ok()) {
    absl::StrAppend(&reason, "; what was done last is lost: ", error.message());
    // The change of state says it, too.
    RecordLocked(entry, entry.job, {JobMessage{Severity::kWarning, reason}}).IgnoreError();
  }
  while (!Transition(entry, action, reason, action == JobAction::kFail ? status : absl::OkStatus()).ok()) {
    // The journal does not take the outcome. The runner holds on to it, so that what clients see is never ahead of the
    // journal; when the server stops, the journal still says RUNNING and the job runs again at the next start.
    if (shutdown_) return;
    wake_.WaitWithTimeout(&mutex_, kIdleInterval);
  }
}

absl::Status JobManager::Transition(Entry& entry, JobAction action, std::string reason, absl::Status error) {
  const JobState from = entry.job.state;
  const std::optional<JobState> to = NextState(from, action);
  if (!to) {
    return absl::FailedPreconditionError(absl::StrCat("job ", entry.job.id, " is ", JobStateName(from),
                                                      ", which does not allow to ", JobActionName(action), " it"));
  }
  const absl::Time now = clock_.Now();
  Job changed = entry.job;
  changed.state = *to;
  if (action == JobAction::kStart) {
    ++changed.starts;
    if (changed.start_time == absl::InfinitePast()) changed.start_time = now;
  }
  if (action == JobAction::kCrash) {
    ++changed.crashes;
    changed.not_before = now + CrashBackoff(changed.crashes);
  } else {
    changed.not_before = absl::InfinitePast();
  }
  if (IsFinal(*to)) changed.end_time = now;
  changed.state_reason = reason;
  changed.error = error;
  if (*to == JobState::kSucceeded) changed.progress.fraction = 1;
  BOSS_RETURN_IF_ERROR(
      RecordLocked(entry, std::move(changed), {StateChange{from, *to, std::move(reason), std::move(error)}}));
  Log(*to == JobState::kFailed ? LogLevel::kWarn : LogLevel::kInfo, "job changed its state",
      {{"job", entry.job.id},
       {"kind", JobKindName(entry.job.kind())},
       {"from", JobStateName(from)},
       {"to", JobStateName(*to)},
       {"reason", entry.job.state_reason},
       {"error", entry.job.error.message()}},
      entry.job.call);
  listener_(entry.job.kind(), from, *to);
  if (!IsFinal(*to)) return absl::OkStatus();
  unfinished_.erase(entry.order);
  entry.inputs.clear();
  ScheduleExpiry(entry.job);
  if (*to != JobState::kFailed) {
    // Training states are of no more use; a failed job keeps its last good one.
    unneeded_folders_.push_back(JobFolder(entry.job.id));
  }
  return absl::OkStatus();
}

absl::Status JobManager::Record(const std::string& id, absl::FunctionRef<void(Job&)> change,
                                std::vector<JobEventPayload> payloads) {
  {
    absl::MutexLock lock(&mutex_);
    Entry& entry = jobs_.find(id)->second;
    Job changed = entry.job;
    change(changed);
    BOSS_RETURN_IF_ERROR(RecordLocked(entry, std::move(changed), std::move(payloads)));
    Upkeep();
  }
  RemoveFolders();
  return absl::OkStatus();
}

absl::Status JobManager::RecordLocked(Entry& entry, Job changed, std::vector<JobEventPayload> payloads) {
  changed.update_time = clock_.Now();
  std::vector<EventRecord> records;
  for (JobEventPayload& payload : payloads) {
    records.push_back(EventToRecord({++changed.last_sequence, changed.update_time, std::move(payload)}));
  }
  BOSS_RETURN_IF_ERROR(journal_.Update(changed.id, JobToJson(changed), records));
  entry.job = std::move(changed);
  if (!records.empty()) Notify(entry.job.id);
  return absl::OkStatus();
}

}  // namespace boss::server
