// A job as its clients see it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/jobs/job_spec.h"
#include "server/jobs/job_state.h"
#include "server/store/job_journal.h"
#include "server/store/manifest.h"

namespace boss::server {

enum class JobStage { kNone, kPreparing, kTrajectories, kCostMatrix, kSchedule, kPairs, kTraining, kEvaluation, kPublishing };

// "trajectories", ...; "" for kNone.
std::string_view JobStageName(JobStage stage);
std::optional<JobStage> ParseJobStage(std::string_view name);

// Of the stage that a job is in. A unit is one solver step of one batch, one train step, or one evaluated sampler.
struct JobProgress {
  JobStage stage = JobStage::kNone;
  int stage_index = 0;  // from 1
  int stage_count = 0;  // stages that this job goes through
  int64_t done = 0;     // units
  int64_t total = 0;
  double units_per_second = 0;  // lately; 0: not known yet
  absl::Duration time_left = absl::InfiniteDuration();  // of this stage; infinite: not known yet
};

// Of training: the latest.
struct JobMetrics {
  int64_t train_step = 0;
  double loss = 0;  // mean since the metrics before
  double gradient_norm = 0;
  double learning_rate = 0;
  double samples_per_second = 0;
  std::vector<double> segment_losses;  // held out, by segment; empty where there is none
};

struct StateChange {
  JobState from = JobState::kQueued;
  JobState to = JobState::kQueued;
  absl::Status error;  // of a change to FAILED or CANCELLED
};
struct StageChange {
  JobStage stage = JobStage::kNone;
  int stage_index = 0;
  int stage_count = 0;
};
struct JobMessage {
  std::string text;
};
struct JobPreview {
  int64_t train_step = 0;
  std::string png;  // a grid of samples
};

using JobEventPayload = std::variant<StateChange, StageChange, JobProgress, JobMetrics, JobMessage, JobPreview, EvaluationRow>;

struct JobEvent {
  int64_t sequence = 0;  // from 1 within a job, without gaps
  absl::Time time;
  JobEventPayload payload;
};

struct Job {
  std::string id;
  JobSpec spec;
  JobState state = JobState::kQueued;
  std::string request_id;
  std::map<std::string, std::string> labels;
  int priority = 0;  // higher first; then in the order of submission
  absl::Time deadline = absl::InfiniteFuture();
  absl::Time create_time, start_time = absl::InfinitePast(), end_time = absl::InfinitePast();  // infinite past: not yet
  absl::Time update_time;
  JobProgress progress;
  JobMetrics metrics;
  absl::Status error;                        // of a FAILED or CANCELLED job
  std::vector<std::string> input_versions;   // "name@version", resolved when submitted
  std::vector<std::string> output_versions;  // "name@version"
  std::vector<EvaluationRow> evaluation;
  int64_t last_sequence = 0;  // of its events

  JobKind kind() const { return KindOf(spec); }
};

// As the journal keeps them. \error of the readers: DATA_LOSS.
std::string JobToJson(const Job& job);
absl::StatusOr<Job> JobFromJson(std::string_view json);
EventRecord EventToRecord(const JobEvent& event);
absl::StatusOr<JobEvent> EventFromRecord(const EventRecord& record);

}  // namespace boss::server
