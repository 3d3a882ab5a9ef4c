#include "client/call_control.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "client/status.h"

namespace boss::client {
namespace {

constexpr char kRequestIdKey[] = "x-request-id";
constexpr absl::Duration kCancelCheck = absl::Milliseconds(100);  // how soon a wait notices that it is not wanted

// Of W3C's version 00. Control characters would end the process inside gRPC.
bool IsTraceParent(absl::string_view text) {
  constexpr absl::string_view kForm = "00-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-xxxxxxxxxxxxxxxx-xx";
  const auto fits = [](char form, char c) {
    const bool is_digit = absl::ascii_isdigit(static_cast<unsigned char>(c)) || (c >= 'a' && c <= 'f');
    return form == 'x' ? is_digit : c == form;
  };
  return std::equal(kForm.begin(), kForm.end(), text.begin(), text.end(), fits);
}

}  // namespace

std::string NewRandomId() {
  std::random_device device;
  return absl::StrFormat("%08x%08x%08x%08x", device(), device(), device(), device());
}

void CallControl::Cancel() {
  absl::MutexLock lock(&mutex_);
  if (!cancelled_.HasBeenNotified()) cancelled_.Notify();
  for (grpc::ClientContext* context : contexts_) context->TryCancel();
}

CallControl::Call::Call(CallControl& control, bool with_deadline) : control_(control) {
  if (with_deadline && control.timeout_ < absl::InfiniteDuration()) {
    context_.set_deadline(absl::ToChronoTime(absl::Now() + control.timeout_));
  }
  context_.AddMetadata(kRequestIdKey, NewRandomId());
  if (IsTraceParent(control.trace_parent_)) context_.AddMetadata("traceparent", control.trace_parent_);
  if (control.token_) context_.AddMetadata("authorization", absl::StrCat("Bearer ", control.token_()));
  absl::MutexLock lock(&control_.mutex_);
  control_.contexts_.insert(&context_);
  if (control_.cancelled()) context_.TryCancel();
}

CallControl::Call::~Call() {
  absl::MutexLock lock(&control_.mutex_);
  control_.contexts_.erase(&context_);
}

absl::Status CallControl::Call::End(const grpc::Status& status) const {
  absl::Status result = FromGrpcStatus(status);
  const auto& trailing = context_.GetServerTrailingMetadata();
  const auto id = trailing.find(kRequestIdKey);
  if (id == trailing.end()) return result;  // no server has heard of it
  return WithRequestId(std::move(result), absl::string_view(id->second.data(), id->second.size()));
}

bool CallControl::Attempts::Again(const absl::Status& status) {
  if (!absl::IsUnavailable(status) || control_.cancelled()) return false;
  const RetryPolicy& policy = control_.policy_;
  if (++failed_ >= limit_) return false;
  const absl::Duration delay =
      std::min(policy.initial_delay * std::pow(policy.multiplier, failed_ - 1), policy.max_delay);
  absl::BitGen random;
  const double longer = 1 + absl::Uniform(absl::IntervalClosed, random, 0.0, policy.jitter);
  control_.Wait(std::max(delay, RetryDelay(status).value_or(absl::ZeroDuration())) * longer);
  return !control_.cancelled();
}

void CallControl::Wait(absl::Duration duration) {
  if (policy_.wait) return policy_.wait(duration);
  cancelled_.WaitForNotificationWithTimeout(duration);
  WaitForConnection(duration);
}

// gRPC makes a connection only while somebody waits for it: calls that fail at once, with pauses between them, would
// not find a server that is back for many seconds.
void CallControl::WaitForConnection(absl::Duration duration) {
  const absl::Time end = absl::Now() + duration;
  while (!cancelled() && absl::Now() < end) {
    if (channel_->WaitForConnected(absl::ToChronoTime(std::min(end, absl::Now() + kCancelCheck)))) return;
  }
}

}  // namespace boss::client
