// boss.v1.Sampler.
#pragma once

#include "boss/v1/sampling.grpc.pb.h"
#include "server/rpc/access.h"
#include "server/rpc/generate_reactor.h"
#include "server/rpc/sampling_call.h"

namespace boss::server {

// Thread-safe. What is passed outlives it.
class SamplerService final : public v1::Sampler::CallbackService {
 public:
  SamplerService(Sampling& sampling, Access& access) : sampling_(sampling), access_(access) {}

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(grpc::CallbackServerContext* context,
                                                           const v1::GenerateRequest* request) override;

 private:
  Sampling& sampling_;
  Access& access_;
};

}  // namespace boss::server
