// boss.v1.Sampler.
#pragma once

#include "absl/base/thread_annotations.h"
#include "absl/random/random.h"
#include "absl/synchronization/mutex.h"
#include "boss/v1/sampling.grpc.pb.h"
#include "core/base/clock.h"
#include "server/engine/device_pool.h"
#include "server/rpc/generate_reactor.h"

namespace boss::server {

// Thread-safe. `devices` and `clock` outlive it.
class SamplerService final : public v1::Sampler::CallbackService {
 public:
  // `seeds` chooses the seeds of requests that have none.
  SamplerService(DevicePool& devices, const Clock& clock, absl::BitGen seeds)
      : devices_(devices), clock_(clock), seeds_(std::move(seeds)) {}

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(grpc::CallbackServerContext* context,
                                                           const v1::GenerateRequest* request) override;

  // The calls whose clients have not been told all yet.
  OpenCalls& open_calls() { return open_calls_; }

 private:
  DevicePool& devices_;
  const Clock& clock_;
  OpenCalls open_calls_;
  absl::Mutex mutex_;
  absl::BitGen seeds_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace boss::server
