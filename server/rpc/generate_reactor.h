// One Generate call: from the engine's sink to the stream.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "boss/v1/sampling.pb.h"
#include "server/engine/sample_request.h"
#include "server/rpc/access.h"
#include "server/rpc/sampling_call.h"

namespace boss::server {

// Lives until both gRPC and the engine have finished with it. What waits to be written is bounded by the engine, which
// is told of every message that the client has taken, and by merging progress messages.
class GenerateReactor final : public grpc::ServerWriteReactor<v1::GenerateResponse>,
                              public SampleSink,
                              public std::enable_shared_from_this<GenerateReactor> {
 public:
  // Returns the reactor of a new call, which keeps itself alive and is one of the open calls until gRPC is done with
  // it. `sampling` outlives it.
  static GenerateReactor* Start(Sampling& sampling, Admission admission, const v1::GenerateRequest& request,
                                absl::Time deadline, CallId call);

  void OnAccepted(AcceptedRequest accepted) override;
  void OnProgress(SampleProgress progress) override;
  void OnPreview(EncodedSample preview) override;
  void OnSample(EncodedSample sample) override;
  void OnDone(absl::Status status, SampleSummary summary) override;

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  GenerateReactor(Sampling& sampling, Admission admission, const v1::GenerateRequest& request, CallId call);

  void Begin(const v1::GenerateRequest& request, absl::Time deadline);
  void Enqueue(v1::GenerateResponse response) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Starts the next write, or finishes the call when all is written.
  void Advance() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const v1::OutputFormat requested_format_;
  const std::string client_request_id_;
  const CallId call_;
  Sampling& sampling_;
  Admission admission_;
  SampleRequest request_;                  // constant once Begin has run
  std::shared_ptr<GenerateReactor> self_;  // until gRPC's OnDone
  SamplingCall engine_call_;               // released by gRPC's OnDone

  absl::Mutex mutex_;
  std::deque<v1::GenerateResponse> queue_ ABSL_GUARDED_BY(mutex_);
  v1::GenerateResponse current_;  // being written
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> final_status_ ABSL_GUARDED_BY(mutex_);
  absl::Time compute_end_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();  // of a request that has a summary
};

}  // namespace boss::server
