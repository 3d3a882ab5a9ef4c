#include "client/call_control.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "client/status.h"

namespace boss::client {

void CallControl::Cancel() {
  absl::MutexLock lock(&mutex_);
  if (!cancelled_.HasBeenNotified()) cancelled_.Notify();
  for (grpc::ClientContext* context : contexts_) context->TryCancel();
}

CallControl::Call::Call(CallControl& control, bool with_deadline) : control_(control) {
  if (with_deadline && control.timeout_ < absl::InfiniteDuration()) {
    context_.set_deadline(absl::ToChronoTime(absl::Now() + control.timeout_));
  }
  if (control.token_) context_.AddMetadata("authorization", absl::StrCat("Bearer ", control.token_()));
  absl::MutexLock lock(&control_.mutex_);
  control_.contexts_.insert(&context_);
  if (control_.cancelled()) context_.TryCancel();
}

CallControl::Call::~Call() {
  absl::MutexLock lock(&control_.mutex_);
  control_.contexts_.erase(&context_);
}

bool CallControl::Attempts::Again(const absl::Status& status) {
  if (!absl::IsUnavailable(status) || control_.cancelled()) return false;
  const RetryPolicy& policy = control_.policy_;
  if (++failed_ >= limit_) return false;
  const absl::Duration delay =
      std::min(policy.initial_delay * std::pow(policy.multiplier, failed_ - 1), policy.max_delay);
  control_.Wait(std::max(delay, RetryDelay(status).value_or(absl::ZeroDuration())));
  return !control_.cancelled();
}

void CallControl::Wait(absl::Duration duration) {
  if (policy_.wait) {
    policy_.wait(duration);
  } else {
    cancelled_.WaitForNotificationWithTimeout(duration);
  }
}

}  // namespace boss::client
