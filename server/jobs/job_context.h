// What a running job has to do with the world around it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "core/base/step_executor.h"
#include "server/jobs/job.h"
#include "server/jobs/job_manager.h"

namespace boss::server {

enum class StopReason { kNone, kCancel, kPause, kShutdown, kDeadline };

// A part of the job's plan. `weight` says how much of the whole it is, in velocity evaluations or anything else that is
// the same for all stages.
struct PlannedStage {
  JobStage stage = JobStage::kNone;
  double weight = 0;
};

// Belongs to one run of one job and is used on the runner's thread only. As an executor it refuses a unit once the job
// shall stop, and otherwise hands it to the device.
//
// Every method that reports: \error what the journal reports; the job then fails with it.
class JobContext final : public StepExecutor {
 public:
  // `job`: as it is when the run starts.
  JobContext(JobManager& manager, Job job);

  const Job& job() const { return job_; }
  ModelStore& store() const { return manager_.store_; }
  const Clock& clock() const { return manager_.clock_; }
  const JobManagerOptions& options() const { return manager_.options_; }
  const FileSystem& files() const { return *manager_.options_.files; }
  // Exists; outlives the run until the job is done.
  const std::string& folder() const { return folder_; }

  // CANCELLED, UNAVAILABLE or DEADLINE_EXCEEDED once the job shall stop.
  absl::Status CheckStop();
  absl::Status Run(absl::FunctionRef<absl::Status()> step) override;
  // Also when the job shall stop: for what must be done on the device before it does.
  absl::Status RunAlways(absl::FunctionRef<absl::Status()> step) { return manager_.executor_.Run(step); }
  // What CheckStop answered with, and for which reason.
  const absl::Status& stop_status() const { return stop_status_; }
  StopReason stop() const { return stop_; }
  // Whether the job stops to go on later.
  bool keeps_state() const { return stop_ == StopReason::kPause || stop_ == StopReason::kShutdown; }

  // Before the first EnterStage.
  void SetPlan(std::vector<PlannedStage> plan) { plan_ = std::move(plan); }
  // `done`: of total_units, what an earlier run has done already.
  absl::Status EnterStage(JobStage stage, int64_t total_units, int64_t done = 0);
  // For metrics: the stage is over. Part of EnterStage; at the end of a run, before its outcome is told to anybody.
  void LeaveStage();
  // Adds to the units done, and to the velocity evaluations of single samples. Leads to a progress event at most every
  // 200 ms, less often the longer the run takes (5 s from 3 hours on), and always at the end of a stage.
  absl::Status Advance(double units, int64_t evaluations);

  // What has been done so far is on the disk: a run after a crash goes on behind it. Crashes before it count no more.
  absl::Status ReportSaved();
  // For metrics: some of the work has been put on the disk now. Part of ReportSaved.
  void NoteSaved() const;
  // Whether an event may be reported again whose last one was at that time: each kind as often as progress.
  bool IsDue(absl::Time last) const;
  // Whether metrics are.
  bool MetricsAreDue() const { return IsDue(last_metrics_); }
  absl::Status ReportMetrics(const JobMetrics& metrics);
  absl::Status ReportMessage(Severity severity, std::string text);
  absl::Status ReportPreview(JobPreview preview);
  absl::Status ReportRow(const EvaluationRow& row);
  // Which schedules the job made or uses.
  absl::Status ReportSchedule(std::string set_name, const VersionKey& version, std::optional<Schedule> schedule);
  absl::Status ReportOutput(const VersionKey& version);

 private:
  absl::Status StopStatus() const;
  JobProgress Progress(absl::Time now) const;
  // Between events of one kind.
  absl::Duration EventInterval(absl::Time now) const;

  JobManager& manager_;
  const Job job_;
  const std::string folder_;
  StopReason stop_ = StopReason::kNone;
  absl::Status stop_status_;

  std::vector<PlannedStage> plan_;
  JobStage stage_ = JobStage::kNone;
  int stage_index_ = 0;
  double done_ = 0, total_ = 0;
  bool end_reported_ = false;  // of this stage
  int64_t train_step_ = 0;
  int64_t evaluations_ = 0;        // of this job
  int64_t stage_evaluations_ = 0;  // of this run in this stage
  absl::Time run_start_, stage_start_, last_progress_, last_metrics_;
  std::optional<double> first_fraction_;  // of the whole, when this run's first stage with weight began
};

// Counts every unit that it runs as `units` of the job's progress and `evaluations` velocity evaluations.
class CountingExecutor final : public StepExecutor {
 public:
  CountingExecutor(JobContext& context, double units, int64_t evaluations)
      : context_(context), units_(units), evaluations_(evaluations) {}
  absl::Status Run(absl::FunctionRef<absl::Status()> step) override;

 private:
  JobContext& context_;
  const double units_;
  const int64_t evaluations_;
};

}  // namespace boss::server
