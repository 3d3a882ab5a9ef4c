#include "server/jobs/job_context.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace boss::server {
namespace {

constexpr absl::Duration kMinEventInterval = absl::Milliseconds(200);
constexpr absl::Duration kMaxEventInterval = absl::Seconds(5);
// The interval grows with the run, so that a job of days does not leave millions of events.
constexpr int kEventsPerRunTime = 2000;

constexpr double kUnitTolerance = 1e-6;

bool IsTraining(JobStage stage) { return stage == JobStage::kTraining || stage == JobStage::kStraightening; }

}  // namespace

JobContext::JobContext(JobManager& manager, Job job)
    : manager_(manager),
      job_(std::move(job)),
      folder_(manager.JobFolder(job_.id)),
      train_step_(job_.progress.train_step),
      evaluations_(job_.result.velocity_evaluations),
      run_start_(manager.clock_.Now()),
      stage_start_(run_start_),
      last_progress_(absl::InfinitePast()),
      last_metrics_(absl::InfinitePast()) {}

absl::Status JobContext::CheckStop() {
  stop_ = manager_.RequestedStop(job_.id);
  stop_status_ = StopStatus();
  return stop_status_;
}

absl::Status JobContext::StopStatus() const {
  switch (stop_) {
    case StopReason::kNone:
      return absl::OkStatus();
    case StopReason::kCancel:
      return absl::CancelledError("the job was cancelled");
    case StopReason::kPause:
      return absl::CancelledError("the job was paused");
    case StopReason::kShutdown:
      return absl::UnavailableError("the server stops");
    case StopReason::kDeadline:
      return absl::DeadlineExceededError(
          absl::StrCat("the job's deadline, ", absl::FormatTime(job_.deadline, absl::UTCTimeZone()), ", has passed"));
  }
  return absl::InternalError("unknown reason to stop");
}

absl::Status JobContext::Run(absl::FunctionRef<absl::Status()> step) {
  BOSS_RETURN_IF_ERROR(CheckStop());
  return RunAlways(step);
}

absl::Status JobContext::EnterStage(JobStage stage, int64_t total_units, int64_t done) {
  BOSS_RETURN_IF_ERROR(CheckStop());
  const StageChange change{stage_, stage};
  LeaveStage();
  stage_ = stage;
  const auto planned =
      std::find_if(plan_.begin(), plan_.end(), [stage](const PlannedStage& other) { return other.stage == stage; });
  stage_index_ = static_cast<int>(planned - plan_.begin()) + 1;
  done_ = static_cast<double>(done);
  total_ = static_cast<double>(total_units);
  if (IsTraining(stage)) train_step_ = done;
  stage_evaluations_ = 0;
  end_reported_ = false;
  stage_start_ = manager_.clock_.Now();
  const JobProgress progress = Progress(stage_start_);
  if (!first_fraction_ && planned != plan_.end() && planned->weight > 0) first_fraction_ = progress.fraction;
  return manager_.Record(job_.id, [&](Job& job) { job.progress = progress; }, {change});
}

void JobContext::LeaveStage() {
  const JobStage left = std::exchange(stage_, JobStage::kNone);
  if (left == JobStage::kNone) return;
  options()
      .metrics.stage_seconds.With({JobKindName(job_.kind()), JobStageName(left)})
      .Observe(absl::ToDoubleSeconds(manager_.clock_.Now() - stage_start_));
}

absl::Status JobContext::Advance(double units, int64_t evaluations) {
  // Units may be fractions whose sum is not exact.
  done_ = total_ - (done_ + units) < kUnitTolerance ? total_ : done_ + units;
  if (IsTraining(stage_)) train_step_ = static_cast<int64_t>(done_);
  evaluations_ += evaluations;
  stage_evaluations_ += evaluations;
  const absl::Time now = manager_.clock_.Now();
  const bool ends = done_ >= total_ && !end_reported_;
  if (!ends && now - last_progress_ < EventInterval(now)) return absl::OkStatus();
  end_reported_ = end_reported_ || ends;
  last_progress_ = now;
  const JobProgress progress = Progress(now);
  return manager_.Record(job_.id,
                         [&](Job& job) {
                           job.progress = progress;
                           job.result.velocity_evaluations = evaluations_;
                         },
                         {progress});
}

absl::Duration JobContext::EventInterval(absl::Time now) const {
  return std::clamp((now - run_start_) / kEventsPerRunTime, kMinEventInterval, kMaxEventInterval);
}

JobProgress JobContext::Progress(absl::Time now) const {
  JobProgress progress;
  progress.stage = stage_;
  progress.stage_index = stage_index_;
  progress.stage_count = static_cast<int>(plan_.size());
  progress.step = static_cast<int64_t>(done_ + kUnitTolerance);
  progress.total_steps = static_cast<int64_t>(total_);
  progress.train_step = train_step_;
  double before = 0, all = 0;
  for (size_t i = 0; i < plan_.size(); ++i) {
    all += plan_[i].weight;
    const int index = static_cast<int>(i) + 1;
    if (index < stage_index_) before += plan_[i].weight;
    if (index == stage_index_ && total_ > 0) before += plan_[i].weight * done_ / total_;
  }
  progress.fraction = all > 0 ? std::min(before / all, 1.0) : 0;
  const absl::Duration run_time = now - run_start_, stage_time = now - stage_start_;
  if (first_fraction_ && progress.fraction > *first_fraction_ && run_time > absl::ZeroDuration()) {
    progress.time_left = run_time * ((1 - progress.fraction) / (progress.fraction - *first_fraction_));
  }
  if (stage_time > absl::ZeroDuration()) {
    progress.samples_per_second = static_cast<double>(stage_evaluations_) / absl::ToDoubleSeconds(stage_time);
  }
  return progress;
}

void JobContext::NoteSaved() const {
  const absl::Duration now = manager_.clock_.Now() - absl::UnixEpoch();
  options().metrics.last_checkpoint.With({}).Set(absl::ToDoubleSeconds(now));
}

absl::Status JobContext::ReportSaved() {
  NoteSaved();
  const JobProgress progress = Progress(manager_.clock_.Now());
  return manager_.Record(job_.id,
                         [&](Job& job) {
                           job.progress = progress;
                           job.result.velocity_evaluations = evaluations_;
                           if (progress.fraction <= job.saved_fraction)
                             return;  // what an earlier run had done is not progress
                           job.saved_fraction = progress.fraction;
                           job.crashes = 0;
                         },
                         {});
}

bool JobContext::IsDue(absl::Time last) const {
  const absl::Time now = manager_.clock_.Now();
  return now - last >= EventInterval(now);
}

absl::Status JobContext::ReportMetrics(const JobMetrics& metrics) {
  last_metrics_ = manager_.clock_.Now();
  return manager_.Record(job_.id,
                         [&](Job& job) {
                           const std::optional<double> held_out_loss = job.metrics.held_out_loss;
                           const std::vector<double> segments = job.metrics.segment_held_out_loss;
                           job.metrics = metrics;
                           // The job shows the latest that was measured.
                           if (!metrics.held_out_loss) {
                             job.metrics.held_out_loss = held_out_loss;
                             job.metrics.segment_held_out_loss = segments;
                           }
                         },
                         {metrics});
}

absl::Status JobContext::ReportMessage(Severity severity, std::string text) {
  return manager_.Record(job_.id, [](Job&) {}, {JobMessage{severity, std::move(text)}});
}

absl::Status JobContext::ReportPreview(JobPreview preview) {
  return manager_.Record(job_.id, [](Job&) {}, {std::move(preview)});
}

absl::Status JobContext::ReportRow(const EvaluationRow& row) {
  return manager_.Record(job_.id,
                         [&](Job& job) {
                           job.result.evaluation.push_back(row);
                           job.result.velocity_evaluations = evaluations_;
                         },
                         {row});
}

absl::Status JobContext::ReportSchedule(std::string set_name, const VersionKey& version,
                                        std::optional<Schedule> schedule) {
  return manager_.Record(job_.id,
                         [&](Job& job) {
                           job.result.schedule_set = std::move(set_name);
                           job.result.schedule_version = version.ToString();
                           job.result.schedule = std::move(schedule);
                         },
                         {});
}

absl::Status JobContext::ReportOutput(const VersionKey& version) {
  return manager_.Record(job_.id,
                         [&](Job& job) {
                           job.output_version = version.ToString();
                           for (EvaluationRow& row : job.result.evaluation) {
                             if (row.version.empty()) row.version = job.output_version;
                           }
                         },
                         {});
}

absl::Status CountingExecutor::Run(absl::FunctionRef<absl::Status()> step) {
  BOSS_RETURN_IF_ERROR(context_.Run(step));
  return context_.Advance(units_, evaluations_);
}

}  // namespace boss::server
