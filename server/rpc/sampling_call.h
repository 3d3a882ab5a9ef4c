// What every RPC that samples shares: the calls that are open, and the engine's side of one.
#pragma once

#include <grpcpp/server_context.h>

#include <cstdint>
#include <memory>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/random/random.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "core/base/clock.h"
#include "server/engine/device_pool.h"

namespace boss::server {

// The open sampling calls of a server, for its shutdown. Thread-safe.
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

// What services that sample work with. Thread-safe. `devices` and `clock` outlive it; it outlives the services' calls.
class Sampling {
 public:
  // `seeds` chooses the seeds of requests that have none.
  Sampling(DevicePool& devices, const Clock& clock, absl::BitGen seeds)
      : devices_(devices), clock_(clock), seeds_(std::move(seeds)) {}

  DevicePool& devices() { return devices_; }
  const Clock& clock() const { return clock_; }
  OpenCalls& open_calls() { return open_calls_; }
  // Short enough to be typed again.
  uint64_t ChooseSeed() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  DevicePool& devices_;
  const Clock& clock_;
  OpenCalls open_calls_;
  absl::Mutex mutex_;
  absl::BitGen seeds_ ABSL_GUARDED_BY(mutex_);
};

// One request on its way through the engine, and what its client does meanwhile, in any order. Thread-safe; never
// called with a lock that the sink takes.
class SamplingCall {
 public:
  // Once. On an error `sink` hears nothing.
  absl::Status Submit(Sampling& sampling, SampleRequest request, std::shared_ptr<SampleSink> sink)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Also before and while Submit runs, and then as soon as the engine has the request. The first reason counts.
  void Cancel(absl::Status reason) ABSL_LOCKS_EXCLUDED(mutex_);
  // As of SampleHandle; also while Submit runs.
  void Consumed(int64_t bytes) ABSL_LOCKS_EXCLUDED(mutex_);
  // Nothing more is to come. The engine's request holds its sink, so a sink that owns this must call it to go.
  void Release() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  absl::Mutex mutex_;
  std::shared_ptr<SampleHandle> handle_ ABSL_GUARDED_BY(mutex_);
  absl::Status cancelled_ ABSL_GUARDED_BY(mutex_);
  int64_t consumed_ ABSL_GUARDED_BY(mutex_) = 0;  // before there was a handle
  bool released_ ABSL_GUARDED_BY(mutex_) = false;
};

// The call's deadline; infinite for none.
absl::Time DeadlineOf(const grpc::ServerContextBase& context);

// The log's line about a request that the engine is done with. `rpc`: e.g. "generate".
void LogSampling(std::string_view rpc, const SampleRequest& request, std::string_view request_id,
                 const absl::Status& status, const SampleSummary& summary);

}  // namespace boss::server
