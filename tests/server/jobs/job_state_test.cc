#include "server/jobs/job_state.h"

#include <gtest/gtest.h>

#include <map>
#include <utility>
#include <vector>

namespace boss::server {
namespace {

using S = JobState;
using A = JobAction;

const std::vector<S> kStates = {S::kQueued,     S::kRunning,   S::kPausing, S::kPaused,
                                S::kCancelling, S::kSucceeded, S::kFailed,  S::kCancelled};
const std::vector<A> kActions = {A::kStart, A::kPause, A::kResume, A::kCancel, A::kInterrupt, A::kSucceed, A::kFail};

TEST(JobState, AllowsTheseTransitionsAndNoOthers) {
  const std::map<std::pair<S, A>, S> allowed = {
      {{S::kQueued, A::kStart}, S::kRunning},         {{S::kQueued, A::kPause}, S::kPaused},
      {{S::kQueued, A::kCancel}, S::kCancelled},      {{S::kQueued, A::kFail}, S::kFailed},
      {{S::kRunning, A::kPause}, S::kPausing},        {{S::kRunning, A::kCancel}, S::kCancelling},
      {{S::kRunning, A::kInterrupt}, S::kQueued},     {{S::kRunning, A::kSucceed}, S::kSucceeded},
      {{S::kRunning, A::kFail}, S::kFailed},          {{S::kPausing, A::kResume}, S::kRunning},
      {{S::kPausing, A::kCancel}, S::kCancelling},    {{S::kPausing, A::kInterrupt}, S::kPaused},
      {{S::kPausing, A::kSucceed}, S::kSucceeded},    {{S::kPausing, A::kFail}, S::kFailed},
      {{S::kPaused, A::kResume}, S::kQueued},         {{S::kPaused, A::kCancel}, S::kCancelled},
      {{S::kPaused, A::kFail}, S::kFailed},           {{S::kCancelling, A::kInterrupt}, S::kCancelled},
      {{S::kCancelling, A::kSucceed}, S::kSucceeded}, {{S::kCancelling, A::kFail}, S::kFailed},
  };
  for (S state : kStates) {
    for (A action : kActions) {
      const auto expected = allowed.find({state, action});
      const std::optional<S> next = NextState(state, action);
      if (expected == allowed.end()) {
        EXPECT_FALSE(next.has_value()) << JobStateName(state) << " " << JobActionName(action);
      } else {
        EXPECT_EQ(next, expected->second) << JobStateName(state) << " " << JobActionName(action);
      }
    }
  }
}

TEST(JobState, FinalStatesAreLeftByNothing) {
  for (S state : kStates) {
    bool left = false;
    for (A action : kActions) left = left || NextState(state, action).has_value();
    EXPECT_EQ(left, !IsFinal(state)) << JobStateName(state);
  }
}

TEST(JobState, NamesAreReadBack) {
  for (S state : kStates) EXPECT_EQ(ParseJobState(JobStateName(state)), state);
  EXPECT_FALSE(ParseJobState("queued").has_value());
  EXPECT_FALSE(ParseJobState("").has_value());
}

}  // namespace
}  // namespace boss::server
