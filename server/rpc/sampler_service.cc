#include "server/rpc/sampler_service.h"

namespace boss::server {

grpc::ServerWriteReactor<v1::GenerateResponse>* SamplerService::Generate(grpc::CallbackServerContext* context,
                                                                         const v1::GenerateRequest* request) {
  return GenerateReactor::Start(sampling_, *request, DeadlineOf(*context));
}

}  // namespace boss::server
