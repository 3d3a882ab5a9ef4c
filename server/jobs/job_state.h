// The states of a job and the one function that says how they follow each other.
#pragma once

#include <optional>
#include <string_view>

namespace boss::server {

enum class JobState { kQueued, kRunning, kPaused, kSucceeded, kFailed, kCancelled };

// What happens to a job.
enum class JobAction {
  kStart,      // the runner takes it
  kPause,      // a client asks to pause it
  kResume,     // a client asks to go on with it
  kInterrupt,  // the server stops, or stopped, under it
  kSucceed,
  kFail,       // an error of its own, or its deadline
  kCancel,     // a client asks to end it
};

// The state after `action`, or nullopt where it is not allowed:
//
//   QUEUED  --start-->     RUNNING
//   QUEUED  --pause-->     PAUSED
//   QUEUED  --fail-->      FAILED      (deadline)
//   QUEUED  --cancel-->    CANCELLED
//   RUNNING --pause-->     PAUSED      (its training state is saved first)
//   RUNNING --interrupt--> QUEUED      (runs again at the next start of the server, from its training state)
//   RUNNING --succeed-->   SUCCEEDED
//   RUNNING --fail-->      FAILED
//   RUNNING --cancel-->    CANCELLED
//   PAUSED  --resume-->    QUEUED
//   PAUSED  --fail-->      FAILED      (deadline)
//   PAUSED  --cancel-->    CANCELLED
//
// SUCCEEDED, FAILED and CANCELLED are final.
std::optional<JobState> NextState(JobState state, JobAction action);

bool IsFinal(JobState state);

// "QUEUED", ...
std::string_view JobStateName(JobState state);
std::optional<JobState> ParseJobState(std::string_view name);
std::string_view JobActionName(JobAction action);

}  // namespace boss::server
