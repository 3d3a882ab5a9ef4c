// One ModelStreamInfer call: requests that run side by side and answer with one response a sample.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "inference/grpc_service.pb.h"
#include "server/rpc/access.h"
#include "server/rpc/reactor_list.h"
#include "server/rpc/sampling_call.h"

namespace boss::server {

class InferStream;

// The open streams of a server. They end when what is under way has been answered.
using InferStreamList = ReactorList<InferStream>;

// Requests of one stream that are open at once, from their arrival until the client has taken their last response; with
// so many the next one is not read yet.
inline constexpr size_t kMaxRequestsOfStream = 16;

// Lives until gRPC and the engine have finished with it and its requests. What waits to be written is bounded for each
// request by the engine, which is told of every response that the client has taken.
class InferStream final
    : public grpc::ServerBidiReactor<inference::ModelInferRequest, inference::ModelStreamInferResponse>,
      public std::enable_shared_from_this<InferStream> {
 public:
  // Returns the reactor of a new call, which keeps itself alive. `deadline` is the call's. `sampling` and `list`
  // outlive it. Each of its requests is one of the open calls.
  static InferStream* Start(Sampling& sampling, Admission admission, int64_t max_message_bytes, InferStreamList& list,
                            absl::Time deadline, CallId call);

  // Reads no further requests and finishes with `status` once those that are open have been answered.
  void End(absl::Status status) ABSL_LOCKS_EXCLUDED(mutex_);

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  class Request;
  using RequestPtr = std::shared_ptr<Request>;
  struct Answer {
    inference::ModelStreamInferResponse response;
    RequestPtr request;
    int64_t data_bytes = 0;  // of the sample in it
    bool is_last = false;    // of the request
  };

  InferStream(Sampling& sampling, Admission admission, int64_t max_message_bytes, InferStreamList& list,
              absl::Time deadline, CallId call)
      : sampling_(sampling),
        admission_(std::move(admission)),
        max_message_bytes_(max_message_bytes),
        list_(list),
        deadline_(deadline),
        call_(std::move(call)) {}

  void Send(Answer answer) ABSL_LOCKS_EXCLUDED(mutex_);
  // The client hears nothing more: drops what waits and frees the engine.
  void Abandon(const absl::Status& reason) ABSL_LOCKS_EXCLUDED(mutex_);
  // The answer is on its way, or dropped.
  void Settle(const Answer& answer) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Starts what can start: a write, a read, or the end.
  void Advance() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Sampling& sampling_;
  Admission admission_;
  const int64_t max_message_bytes_;
  InferStreamList& list_;
  const absl::Time deadline_;
  const CallId call_;
  std::shared_ptr<InferStream> self_;      // until gRPC's OnDone
  inference::ModelInferRequest incoming_;  // being read, or converted

  absl::Mutex mutex_;
  std::set<RequestPtr> open_ ABSL_GUARDED_BY(mutex_);
  std::deque<Answer> queue_ ABSL_GUARDED_BY(mutex_);
  Answer current_;                                // being written
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;  // incoming_ is in use
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool half_closed_ ABSL_GUARDED_BY(mutex_) = false;  // the client has no further requests
  bool abandoned_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace boss::server
