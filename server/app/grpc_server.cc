#include "server/app/grpc_server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/server_builder.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "boss/v1/jobs.grpc.pb.h"
#include "boss/v1/models.grpc.pb.h"
#include "boss/v1/sampling.grpc.pb.h"
#include "inference/grpc_service.grpc.pb.h"
#include "server/rpc/call_recorder.h"

namespace boss::server {
namespace {

std::vector<std::string> ServiceNames() {
  return {v1::Sampler::service_full_name(), v1::Jobs::service_full_name(), v1::Models::service_full_name(),
          inference::GRPCInferenceService::service_full_name()};
}

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const ServerConfig& config,
                                                              const std::vector<grpc::Service*>& services,
                                                              Metrics& metrics, const Clock& clock) {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  std::unique_ptr<GrpcServer> server(new GrpcServer());
  builder.AddListeningPort(config.listen, grpc::InsecureServerCredentials(), &server->port_);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);  // two servers on one port is a mistake
  builder.SetMaxReceiveMessageSize(static_cast<int>(config.max_message_bytes));
  builder.experimental().SetInterceptorCreators(CallRecorders(metrics, clock, ServiceNames()));
  for (grpc::Service* service : services) builder.RegisterService(service);
  server->server_ = builder.BuildAndStart();
  if (!server->server_ || server->port_ == 0) {
    return absl::UnavailableError(absl::StrCat("cannot listen on ", config.listen));
  }
  server->SetServing(false);
  return server;
}

void GrpcServer::SetServing(bool serving) {
  grpc::HealthCheckServiceInterface* health = server_->GetHealthCheckService();
  for (const std::string& service : ServiceNames()) health->SetServingStatus(service, serving);
  health->SetServingStatus("", serving);
}

}  // namespace boss::server
