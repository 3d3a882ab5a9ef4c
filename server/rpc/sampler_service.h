// boss.v1.Sampler.
#pragma once

#include "boss/v1/sampling.grpc.pb.h"
#include "server/rpc/generate_reactor.h"
#include "server/rpc/sampling_call.h"

namespace boss::server {

// Thread-safe. `sampling` outlives it.
class SamplerService final : public v1::Sampler::CallbackService {
 public:
  explicit SamplerService(Sampling& sampling) : sampling_(sampling) {}

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(grpc::CallbackServerContext* context,
                                                           const v1::GenerateRequest* request) override;

 private:
  Sampling& sampling_;
};

}  // namespace boss::server
