// Shows a job's events while they arrive.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "boss/v1/jobs.pb.h"
#include "client/cli/context.h"

namespace boss::client {

// "straightening (5 of 6)  [=====>    ]  47%  940/2000  loss 0.0123  412 samples/s  1m 12s left", at most `width`
// characters: parts at the end are left out first. `metrics` may be nullptr.
std::string RenderProgress(const boss::v1::JobProgress& progress, const boss::v1::JobMetrics* metrics, int width);

// One event on one line, with its sequence number and time.
std::string RenderEvent(const boss::v1::JobEvent& event);

// On a terminal, one line that redraws itself below the lines that stay (states, messages); elsewhere a line for each
// stage and each tenth of the job.
class JobFollower {
 public:
  explicit JobFollower(const Console& console) : console_(console) {}
  void OnEvent(const boss::v1::JobEvent& event);
  // Ends the line that redraws itself.
  void Finish();

 private:
  void PrintLine(const std::string& line);
  void Redraw();

  const Console& console_;
  boss::v1::JobProgress progress_;
  boss::v1::JobMetrics metrics_;
  bool bar_shown_ = false;
  boss::v1::JobStage printed_stage_ = boss::v1::JOB_STAGE_UNSPECIFIED;
  int printed_tenth_ = -1;
};

// Follows the job to its end and shows how it goes, but not its result.
absl::StatusOr<boss::v1::Job> WaitForJob(Context& context, const std::string& name, int64_t from_sequence);
// Tells why that failed, and that the job goes on if it was interrupted. Returns the exit code.
int FailWaiting(Context& context, const std::string& name, const absl::Status& status);

// Follows the job to its end, shows its result, and returns the exit code: kExitJobFailed unless it succeeded.
int FollowJob(Context& context, const std::string& name, int64_t from_sequence);

// What GetJob says, for people.
std::string RenderJob(const boss::v1::Job& job);

}  // namespace boss::client
