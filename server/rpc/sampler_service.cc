#include "server/rpc/sampler_service.h"

#include <utility>

#include "server/rpc/call_metadata.h"
#include "server/rpc/refusal.h"

namespace boss::server {

grpc::ServerWriteReactor<v1::GenerateResponse>* SamplerService::Generate(grpc::CallbackServerContext* context,
                                                                         const v1::GenerateRequest* request) {
  absl::StatusOr<Admission> admission = access_.Admit(*context, "/boss.v1.Sampler/Generate");
  if (!admission.ok()) return new Refusal<grpc::ServerWriteReactor<v1::GenerateResponse>>(admission.status());
  return GenerateReactor::Start(sampling_, *std::move(admission), *request, DeadlineOf(*context), CallIdOf(*context));
}

}  // namespace boss::server
