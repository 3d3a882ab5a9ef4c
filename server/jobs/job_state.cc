#include "server/jobs/job_state.h"

#include <array>
#include <utility>

namespace boss::server {
namespace {

constexpr std::array<std::pair<JobState, const char*>, 8> kStates = {{
    {JobState::kQueued, "QUEUED"},
    {JobState::kRunning, "RUNNING"},
    {JobState::kPausing, "PAUSING"},
    {JobState::kPaused, "PAUSED"},
    {JobState::kCancelling, "CANCELLING"},
    {JobState::kSucceeded, "SUCCEEDED"},
    {JobState::kFailed, "FAILED"},
    {JobState::kCancelled, "CANCELLED"},
}};

}  // namespace

std::optional<JobState> NextState(JobState state, JobAction action) {
  if (IsFinal(state)) return std::nullopt;
  const bool active = IsActive(state);
  switch (action) {
    case JobAction::kStart:
      if (state == JobState::kQueued) return JobState::kRunning;
      break;
    case JobAction::kPause:
      if (state == JobState::kQueued) return JobState::kPaused;
      if (state == JobState::kRunning) return JobState::kPausing;
      break;
    case JobAction::kResume:
      if (state == JobState::kPausing) return JobState::kRunning;
      if (state == JobState::kPaused) return JobState::kQueued;
      break;
    case JobAction::kCancel:
      if (state == JobState::kCancelling) break;
      return active ? JobState::kCancelling : JobState::kCancelled;
    case JobAction::kInterrupt:
    case JobAction::kCrash:
      if (state == JobState::kRunning) return JobState::kQueued;
      if (state == JobState::kPausing) return JobState::kPaused;
      if (state == JobState::kCancelling) return JobState::kCancelled;
      break;
    case JobAction::kSucceed:
      if (active) return JobState::kSucceeded;
      break;
    case JobAction::kFail:
      return JobState::kFailed;
  }
  return std::nullopt;
}

bool IsFinal(JobState state) {
  return state == JobState::kSucceeded || state == JobState::kFailed || state == JobState::kCancelled;
}

bool IsActive(JobState state) {
  return state == JobState::kRunning || state == JobState::kPausing || state == JobState::kCancelling;
}

std::string JobStateName(JobState state) {
  for (const auto& [known, name] : kStates) {
    if (known == state) return name;
  }
  return "UNKNOWN";
}

std::optional<JobState> ParseJobState(absl::string_view name) {
  for (const auto& [state, known] : kStates) {
    if (known == name) return state;
  }
  return std::nullopt;
}

std::string JobActionName(JobAction action) {
  switch (action) {
    case JobAction::kStart:
      return "start";
    case JobAction::kPause:
      return "pause";
    case JobAction::kResume:
      return "resume";
    case JobAction::kCancel:
      return "cancel";
    case JobAction::kInterrupt:
      return "interrupt";
    case JobAction::kCrash:
      return "crash";
    case JobAction::kSucceed:
      return "succeed";
    case JobAction::kFail:
      return "fail";
  }
  return "unknown";
}

}  // namespace boss::server
