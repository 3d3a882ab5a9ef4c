// The states of a job and the one function that says how they follow each other.
#pragma once

#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace boss::server {

enum class JobState { kQueued, kRunning, kPausing, kPaused, kCancelling, kSucceeded, kFailed, kCancelled };

// What happens to a job.
enum class JobAction {
  kStart,      // the runner takes it
  kPause,      // a client asks to pause it
  kResume,     // a client asks to go on with it
  kCancel,     // a client asks to end it
  kInterrupt,  // its run ended before its work was done: as a client asked, or because the server stops
  kCrash,      // the server ended while it ran
  kSucceed,
  kFail,  // an error of its own, or its deadline
};

// The state after `action`, or nullopt where it is not allowed:
//
//               start     pause     resume    cancel       interrupt   succeed     fail
//                                                          or crash
//   QUEUED      RUNNING   PAUSED              CANCELLED                            FAILED (deadline)
//   RUNNING               PAUSING             CANCELLING   QUEUED      SUCCEEDED   FAILED
//   PAUSING                         RUNNING   CANCELLING   PAUSED      SUCCEEDED   FAILED
//   PAUSED                          QUEUED    CANCELLED                            FAILED (deadline)
//   CANCELLING                                             CANCELLED   SUCCEEDED   FAILED
//
// SUCCEEDED, FAILED and CANCELLED are final. A job that goes from RUNNING to QUEUED, or from PAUSED to QUEUED, goes on
// from its training state.
std::optional<JobState> NextState(JobState state, JobAction action);

bool IsFinal(JobState state);
// RUNNING, PAUSING and CANCELLING: the runner has it.
bool IsActive(JobState state);

// "QUEUED", ...
std::string JobStateName(JobState state);
std::optional<JobState> ParseJobState(absl::string_view name);
// "start", ...
std::string JobActionName(JobAction action);

}  // namespace boss::server
