// One Generate call: from the engine's sink to the stream.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "boss/v1/sampling.pb.h"
#include "core/base/clock.h"
#include "server/engine/device_pool.h"

namespace boss::server {

// The open Generate calls of a server, for its shutdown. Thread-safe.
class OpenCalls {
 public:
  void Add() ABSL_LOCKS_EXCLUDED(mutex_);
  void Remove() ABSL_LOCKS_EXCLUDED(mutex_);
  // Waits until there is none, at most until `deadline` by the system's clock, or until StopWaiting().
  void WaitForNone(absl::Time deadline) const ABSL_LOCKS_EXCLUDED(mutex_);
  void StopWaiting() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  bool IsOver() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return count_ == 0 || stopped_; }

  mutable absl::Mutex mutex_;
  int64_t count_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
};

// Lives until both gRPC and the engine have finished with it. What waits to be written is bounded by the engine, which
// is told of every message that the client has taken, and by merging progress messages.
class GenerateReactor final : public grpc::ServerWriteReactor<v1::GenerateResponse>,
                              public SampleSink,
                              public std::enable_shared_from_this<GenerateReactor> {
 public:
  // Returns the reactor of a new call, which keeps itself alive and is one of `open` until gRPC is done with it.
  // `devices`, `open` and `clock` outlive it.
  static GenerateReactor* Start(DevicePool& devices, OpenCalls& open, const Clock& clock,
                                const v1::GenerateRequest& request, absl::Time deadline, uint64_t chosen_seed);

  void OnAccepted(AcceptedRequest accepted) override;
  void OnProgress(SampleProgress progress) override;
  void OnPreview(EncodedSample preview) override;
  void OnSample(EncodedSample sample) override;
  void OnDone(absl::Status status, SampleSummary summary) override;

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  GenerateReactor(const v1::GenerateRequest& request, OpenCalls& open, const Clock& clock);

  void Begin(DevicePool& devices, const v1::GenerateRequest& request, absl::Time deadline, uint64_t chosen_seed);
  void Enqueue(v1::GenerateResponse response) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Starts the next write, or finishes the call when all is written.
  void Advance() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const v1::OutputFormat requested_format_;
  const std::string request_id_;
  OpenCalls& open_;
  const Clock& clock_;
  SampleRequest request_;  // constant once Begin has run

  absl::Mutex mutex_;
  std::shared_ptr<GenerateReactor> self_;  // until gRPC's OnDone
  // Until gRPC's OnDone, too: the engine's request holds its sink, which is this.
  std::shared_ptr<SampleHandle> handle_ ABSL_GUARDED_BY(mutex_);
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<v1::GenerateResponse> queue_ ABSL_GUARDED_BY(mutex_);
  v1::GenerateResponse current_;  // being written
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> final_status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace boss::server
