// A job as its clients see it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/jobs/job_spec.h"
#include "server/jobs/job_state.h"
#include "server/log/call_id.h"
#include "server/store/job_journal.h"
#include "server/store/manifest.h"

namespace boss::server {

enum class JobStage {
  kNone,
  kPreparing,      // reading models and data
  kTrajectories,   // stage 1: fine Euler runs; a unit is one velocity evaluation of a batch
  kCostMatrix,     // stage 1: the cost of every jump
  kSchedule,       // stage 1: the Bellman recursion, and multistep fits; K units for those of K steps
  kPairs,          // stage 2: the teacher's segments; a unit is one noise
  kStraightening,  // stage 2: training on them; a unit is one train step
  kTraining,       // training from data; a unit is one train step
  kEvaluation,     // a unit is one row
  kPublishing,
};

// "trajectories", ...; "none" for kNone.
std::string JobStageName(JobStage stage);
std::optional<JobStage> ParseJobStage(absl::string_view name);

struct JobProgress {
  JobStage stage = JobStage::kNone;
  int stage_index = 0;  // from 1
  int stage_count = 0;  // stages that this job goes through
  int64_t step = 0;     // units done in this stage
  int64_t total_steps = 0;
  double fraction = 0;                                  // of the whole job, in [0, 1]
  absl::Duration time_left = absl::InfiniteDuration();  // of the whole job; infinite: not known yet
  int64_t train_step = 0;
  double samples_per_second = 0;  // samples through the network, in this stage; 0: not known yet
};

// Of training: the mean since the metrics before.
struct JobMetrics {
  int64_t train_step = 0;
  double loss = 0;
  double gradient_norm = 0;  // before clipping
  double learning_rate = 0;
  std::optional<double> held_out_loss;        // of the EMA weights; measured at checkpoints
  std::vector<double> segment_held_out_loss;  // by segment; empty where held_out_loss is absent
  double samples_per_second = 0;
};

struct StateChange {
  std::optional<JobState> from;  // absent in a job's first event
  JobState to = JobState::kQueued;
  std::string reason;
  absl::Status error;  // of a change to FAILED
};
struct StageChange {
  JobStage from = JobStage::kNone;
  JobStage to = JobStage::kNone;
};
enum class Severity { kInfo, kWarning, kError };
struct JobMessage {
  Severity severity = Severity::kInfo;
  std::string text;
};
// Samples of fixed noises with the EMA weights of this train step.
struct JobPreview {
  int64_t train_step = 0;
  std::string png;  // rows x columns samples
  int rows = 0;
  int columns = 0;
};

using JobEventPayload =
    std::variant<StateChange, StageChange, JobProgress, JobMetrics, JobMessage, JobPreview, EvaluationRow>;

struct JobEvent {
  int64_t sequence = 0;  // from 1 within a job, without gaps
  absl::Time time;
  JobEventPayload payload;
};

struct JobResult {
  std::vector<EvaluationRow> evaluation;
  std::string schedule_set;          // name of the set that was made or used; empty: none
  std::string schedule_version;      // "name@version" that it belongs to
  std::optional<Schedule> schedule;  // that a distill job trained for
  int64_t velocity_evaluations = 0;  // of single samples
};

struct Job {
  std::string id;
  JobSpec spec;
  JobState state = JobState::kQueued;
  std::string owner;  // who submitted it; empty: nobody that the server knows
  std::string request_id;
  CallId call;  // that submitted it, for the log
  std::string display_name;
  std::map<std::string, std::string> labels;
  int priority = 0;  // higher first; then in the order of submission
  absl::Time deadline = absl::InfiniteFuture();
  absl::Time create_time = absl::InfinitePast();
  absl::Time start_time = absl::InfinitePast();  // of the first start; infinite past: not yet
  absl::Time end_time = absl::InfinitePast();    // infinite past: not yet
  absl::Time update_time = absl::InfinitePast();
  int starts = 0;                                       // resumptions included
  absl::Duration retention = absl::InfiniteDuration();  // from end_time to its deletion
  int max_crashes = 3;                                  // in a row without progress; one more and the job fails
  int crashes = 0;                                      // in a row without progress
  double saved_fraction = 0;                     // of the whole, that has been on the disk; see JobContext::ReportSaved
  absl::Time not_before = absl::InfinitePast();  // a queued job waits until then
  std::string state_reason;                      // why it is in its state, where that is not plain
  JobProgress progress;
  JobMetrics metrics;
  absl::Status error;  // of a FAILED job
  std::vector<std::string>
      input_versions;  // "name@version", resolved when submitted: the model first, then others, then the baseline
  std::string output_version;  // "name@version" that it published
  JobResult result;
  int64_t last_sequence = 0;  // of its events

  JobKind kind() const { return KindOf(spec); }
  // When it will be deleted: infinite future if it has not finished or is kept.
  absl::Time expire_time() const {
    return end_time == absl::InfinitePast() ? absl::InfiniteFuture() : end_time + retention;
  }
};

// As the journal keeps them. \error of the readers: DATA_LOSS.
std::string JobToJson(const Job& job);
absl::StatusOr<Job> JobFromJson(absl::string_view json);
EventRecord EventToRecord(const JobEvent& event);
absl::StatusOr<JobEvent> EventFromRecord(const EventRecord& record);

}  // namespace boss::server
