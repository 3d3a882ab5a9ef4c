// What the calls of one client share: cancellation, deadlines, and patience between attempts.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"

namespace boss::client {

// UNAVAILABLE, and nothing else, is tried again.
struct RetryPolicy {
  // In a row, of one operation; 1 turns retries off. Watching a job and sending or receiving a file, which can go on
  // where they were, count from their last progress.
  int max_attempts = 4;
  int max_resumptions = 12;
  absl::Duration initial_delay = absl::Milliseconds(200);
  absl::Duration max_delay = absl::Seconds(5);
  double multiplier = 2.0;
  double jitter = 0.2;  // each wait is longer by up to this part of itself, so that not all clients come back at once
  // Instead of waiting, for tests; unset waits, and Cancel() ends the wait.
  std::function<void(absl::Duration)> wait;
};

// 128 random bits in hexadecimal digits.
std::string NewRandomId();

// Thread-safe.
class CallControl {
 public:
  // The token of the next call; thread-safe.
  using TokenSource = std::function<std::string()>;

  // `channel`: of the calls. `token`: null sends none. `trace_parent`: the W3C trace context of every call; one
  // that is malformed, or empty, is not sent.
  CallControl(std::shared_ptr<grpc::Channel> channel, absl::Duration timeout, RetryPolicy policy, TokenSource token,
              std::string trace_parent)
      : channel_(std::move(channel)),
        timeout_(timeout),
        policy_(std::move(policy)),
        token_(std::move(token)),
        trace_parent_(std::move(trace_parent)) {}
  CallControl(const CallControl&) = delete;
  CallControl& operator=(const CallControl&) = delete;

  // Cancels every call under way and those to come.
  void Cancel() ABSL_LOCKS_EXCLUDED(mutex_);
  bool cancelled() const { return cancelled_.HasBeenNotified(); }

  // A context while its call is under way, with the token, a request id of its own, and the trace. Unary calls get the
  // deadline.
  class Call {
   public:
    Call(CallControl& control, bool with_deadline);
    ~Call();
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;
    grpc::ClientContext& context() { return context_; }
    // How the call ended; an error knows the id that the server has for it (client/status.h).
    absl::Status End(const grpc::Status& status) const;

   private:
    CallControl& control_;
    grpc::ClientContext context_;
  };

  // Counts attempts in a row of one operation.
  class Attempts {
   public:
    Attempts(CallControl& control, bool resumable)
        : control_(control), limit_(resumable ? control.policy_.max_resumptions : control.policy_.max_attempts) {}
    // Whether to try again after `status`; has waited already if so. The server's retry delay is respected if it is
    // longer than ours.
    bool Again(const absl::Status& status);
    // The operation got somewhere: counting starts anew.
    void Progress() { failed_ = 0; }

   private:
    CallControl& control_;
    const int limit_;
    int failed_ = 0;
  };

 private:
  void Wait(absl::Duration duration);
  // Until the channel is connected, at most `duration`.
  void WaitForConnection(absl::Duration duration);

  const std::shared_ptr<grpc::Channel> channel_;
  const absl::Duration timeout_;
  const RetryPolicy policy_;
  const TokenSource token_;
  const std::string trace_parent_;
  absl::Notification cancelled_;
  absl::Mutex mutex_;
  std::set<grpc::ClientContext*> contexts_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace boss::client
