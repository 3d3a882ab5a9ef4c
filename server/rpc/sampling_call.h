// What every RPC that samples shares: the calls that are open, and the engine's side of one.
#pragma once

#include <grpcpp/alarm.h>
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
#include "server/log/call_id.h"
#include "server/metrics/metrics.h"
#include "server/rpc/open_calls.h"

namespace boss::server {

// What services that sample work with. Thread-safe. `devices` and `clock` outlive it; it outlives the services' calls.
class Sampling {
 public:
  // `seeds` chooses the seeds of requests that have none. A request that takes longer than `max_request_time` ends with
  // DEADLINE_EXCEEDED.
  Sampling(DevicePool& devices, const Clock& clock, absl::BitGen seeds, RpcMetrics metrics,
           absl::Duration max_request_time)
      : devices_(devices),
        clock_(clock),
        metrics_(metrics),
        max_request_time_(max_request_time),
        seeds_(std::move(seeds)) {}

  DevicePool& devices() { return devices_; }
  const Clock& clock() const { return clock_; }
  // Of those that sample.
  OpenCalls& open_calls() { return open_calls_; }
  absl::Duration max_request_time() const { return max_request_time_; }
  // A response of so many bytes has been written.
  void CountSent(size_t bytes) const { metrics_.sent_bytes.Add(static_cast<double>(bytes)); }
  // A request's last message is handed to gRPC. `compute_end` as SampleSummary's.
  void CountOutput(absl::Time compute_end) const;
  // Short enough to be typed again.
  uint64_t ChooseSeed() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  DevicePool& devices_;
  const Clock& clock_;
  const RpcMetrics metrics_;
  const absl::Duration max_request_time_;
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
  void LimitTime(const Sampling& sampling, const std::shared_ptr<SampleHandle>& handle)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  absl::Mutex mutex_;
  grpc::Alarm time_limit_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<SampleHandle> handle_ ABSL_GUARDED_BY(mutex_);
  absl::Status cancelled_ ABSL_GUARDED_BY(mutex_);
  int64_t consumed_ ABSL_GUARDED_BY(mutex_) = 0;  // before there was a handle
  bool released_ ABSL_GUARDED_BY(mutex_) = false;
};

// The call's deadline; infinite for none.
absl::Time DeadlineOf(const grpc::ServerContextBase& context);

// The log's line about a request that the engine is done with. `rpc`: e.g. "generate". `client_request_id`: the one
// inside the request.
void LogSampling(const char* rpc, const SampleRequest& request, std::string_view client_request_id,
                 const absl::Status& status, const SampleSummary& summary, const CallId& call);

}  // namespace boss::server
