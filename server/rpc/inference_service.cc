#include "server/rpc/inference_service.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "server/rpc/call_metadata.h"
#include "server/rpc/convert_inference.h"
#include "server/rpc/convert_model.h"
#include "server/rpc/infer_reactor.h"
#include "server/rpc/refusal.h"

namespace boss::server {
grpc::ServerUnaryReactor* InferenceService::ServerLive(grpc::CallbackServerContext* context,
                                                       const inference::ServerLiveRequest*,
                                                       inference::ServerLiveResponse* response) {
  return calls_.RunHere(context, "ServerLive", [response] {
    response->set_live(true);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* InferenceService::ServerReady(grpc::CallbackServerContext* context,
                                                        const inference::ServerReadyRequest*,
                                                        inference::ServerReadyResponse* response) {
  return calls_.RunHere(context, "ServerReady", [this, response] {
    response->set_ready(ready_);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* InferenceService::ServerMetadata(grpc::CallbackServerContext* context,
                                                           const inference::ServerMetadataRequest*,
                                                           inference::ServerMetadataResponse* response) {
  return calls_.RunHere(context, "ServerMetadata", [this, response] {
    response->set_name("boss");
    response->set_version(options_.version);
    response->add_extensions("parameters");
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* InferenceService::ModelReady(grpc::CallbackServerContext* context,
                                                       const inference::ModelReadyRequest* request,
                                                       inference::ModelReadyResponse* response) {
  return calls_.Run(context, "ModelReady", [this, request, response]() -> absl::Status {
    BOSS_ASSIGN_OR_RETURN(const std::string reference, ModelReference(request->name(), request->version()));
    const absl::StatusOr<VersionKey> key = store_.Resolve(reference);
    if (!key.ok() && !absl::IsNotFound(key.status())) return key.status();
    response->set_ready(ready_ && key.ok() && store_.GetVersion(*key).ok());
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* InferenceService::ModelMetadata(grpc::CallbackServerContext* context,
                                                          const inference::ModelMetadataRequest* request,
                                                          inference::ModelMetadataResponse* response) {
  return calls_.Run(context, "ModelMetadata", [this, request, response]() -> absl::Status {
    BOSS_ASSIGN_OR_RETURN(const std::string reference, ModelReference(request->name(), request->version()));
    BOSS_ASSIGN_OR_RETURN(const ModelView model, catalog_.Model(reference));
    BOSS_RETURN_IF_ERROR(model.shape.status());
    response->set_name(model.info.name);
    response->set_platform("boss");
    for (const VersionView& version : model.versions) {
      if (version.info.ok()) response->add_versions(absl::StrCat(version.key.version));
    }
    AddTensorMetadata(ToProto(model, /*default_steps=*/0), *response);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* InferenceService::ModelInfer(grpc::CallbackServerContext* context,
                                                       const inference::ModelInferRequest* request,
                                                       inference::ModelInferResponse* response) {
  absl::StatusOr<Admission> admission = calls_.Admit(*context, "ModelInfer");
  if (!admission.ok()) return new Refusal<grpc::ServerUnaryReactor>(admission.status());
  return InferReactor::Start(sampling_, *std::move(admission), options_.max_message_bytes, *request,
                             DeadlineOf(*context), CallIdOf(*context), *response);
}

grpc::ServerBidiReactor<inference::ModelInferRequest, inference::ModelStreamInferResponse>*
InferenceService::ModelStreamInfer(grpc::CallbackServerContext* context) {
  absl::StatusOr<Admission> admission = calls_.Admit(*context, "ModelStreamInfer");
  if (!admission.ok()) {
    return new Refusal<grpc::ServerBidiReactor<inference::ModelInferRequest, inference::ModelStreamInferResponse>>(
        admission.status());
  }
  return InferStream::Start(sampling_, *std::move(admission), options_.max_message_bytes, streams_,
                            DeadlineOf(*context), CallIdOf(*context));
}

void InferenceService::EndStreams() { streams_.EndAll(absl::UnavailableError("the server is shutting down")); }

}  // namespace boss::server
