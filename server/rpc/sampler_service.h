// boss.v1.Sampler.
#pragma once

#include "absl/base/thread_annotations.h"
#include "absl/random/random.h"
#include "absl/synchronization/mutex.h"
#include "boss/v1/sampling.grpc.pb.h"
#include "core/base/clock.h"
#include "server/engine/sampler_engine.h"
#include "server/rpc/generate_reactor.h"

namespace boss::server {

// Thread-safe. `engine` and `clock` outlive it.
class SamplerService final : public v1::Sampler::CallbackService {
 public:
  // `seeds` chooses the seeds of requests that have none.
  SamplerService(SamplerEngine& engine, const Clock& clock, absl::BitGen seeds)
      : engine_(engine), clock_(clock), seeds_(std::move(seeds)) {}

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(grpc::CallbackServerContext* context,
                                                           const v1::GenerateRequest* request) override;

  // The calls whose clients have not been told all yet.
  OpenCalls& open_calls() { return open_calls_; }

 private:
  SamplerEngine& engine_;
  const Clock& clock_;
  OpenCalls open_calls_;
  absl::Mutex mutex_;
  absl::BitGen seeds_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace boss::server
