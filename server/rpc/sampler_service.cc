#include "server/rpc/sampler_service.h"

#include <chrono>

namespace boss::server {

grpc::ServerWriteReactor<v1::GenerateResponse>* SamplerService::Generate(grpc::CallbackServerContext* context,
                                                                         const v1::GenerateRequest* request) {
  uint64_t chosen_seed = 0;
  {
    absl::MutexLock lock(&mutex_);
    chosen_seed = absl::Uniform<uint32_t>(seeds_);  // short enough to be typed again
  }
  const std::chrono::system_clock::time_point deadline = context->deadline();
  const bool has_deadline = deadline != std::chrono::system_clock::time_point::max();
  return GenerateReactor::Start(devices_, open_calls_, clock_, *request,
                                has_deadline ? absl::FromChrono(deadline) : absl::InfiniteFuture(), chosen_seed);
}

}  // namespace boss::server
