#include "server/app/grpc_server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/impl/server_builder_option.h>
#include <grpcpp/server_builder.h>

#include <algorithm>
#include <climits>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "boss/v1/jobs.grpc.pb.h"
#include "boss/v1/models.grpc.pb.h"
#include "boss/v1/sampling.grpc.pb.h"
#include "inference/grpc_service.grpc.pb.h"
#include "server/rpc/call_recorder.h"

namespace boss::server {
namespace {

constexpr absl::Duration kKeepaliveTimeout = absl::Seconds(20);  // for the answer to a ping
constexpr absl::Duration kHandshakeTimeout = absl::Seconds(15);  // for TLS and the client's first settings
constexpr int kMaxPingStrikes = 2;                               // pings too early, before the connection is closed

std::vector<std::string> ServiceNames() {
  return {v1::Sampler::service_full_name(), v1::Jobs::service_full_name(), v1::Models::service_full_name(),
          inference::GRPCInferenceService::service_full_name()};
}

// gRPC gives every server of a process the reflection service once it is linked; this decides for one server.
class ReflectionOption final : public grpc::ServerBuilderOption {
 public:
  explicit ReflectionOption(bool on) : on_(on) {}
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    using grpc::reflection::ProtoServerReflectionPlugin;
    std::erase_if(*plugins, [](const std::unique_ptr<grpc::ServerBuilderPlugin>& plugin) {
      return dynamic_cast<ProtoServerReflectionPlugin*>(plugin.get()) != nullptr;
    });
    if (on_) plugins->push_back(std::make_unique<ProtoServerReflectionPlugin>());
  }

 private:
  const bool on_;
};

bool HasReflection(const ServerConfig& config) {
  if (config.reflection != Reflection::kAuto) return config.reflection == Reflection::kOn;
  return config.access_file.empty();
}

// gRPC takes the largest integer for no limit.
int Milliseconds(absl::Duration duration) {
  return static_cast<int>(std::min<int64_t>(absl::ToInt64Milliseconds(duration), INT_MAX));
}

// What a connection may ask of the server, whoever is behind it.
void AddLimits(const ServerConfig& config, grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(static_cast<int>(config.max_message_bytes));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, config.max_streams_per_connection);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, config.max_metadata_bytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, Milliseconds(config.max_connection_idle));
  // Calls that are open then run to their end: gRPC's default for the time they have is no limit.
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS, Milliseconds(config.max_connection_age));
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, Milliseconds(kHandshakeTimeout));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, Milliseconds(config.keepalive));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, Milliseconds(kKeepaliveTimeout));
  // Clients may ping between their calls, too, as long as they leave some time between pings.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             Milliseconds(config.min_ping_interval));
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, kMaxPingStrikes);
}

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const ServerConfig& config,
                                                              const std::vector<grpc::Service*>& services,
                                                              const Credentials& credentials, Metrics& metrics,
                                                              const Clock& clock) {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::ServerBuilder builder;
  std::unique_ptr<GrpcServer> server(new GrpcServer());
  builder.AddListeningPort(config.listen, credentials.ForServer(), &server->port_);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);  // two servers on one port is a mistake
  AddLimits(config, builder);
  builder.experimental().SetInterceptorCreators(CallRecorders(metrics, clock, server->open_calls_, ServiceNames()));
  builder.SetOption(std::make_unique<ReflectionOption>(HasReflection(config)));
  for (grpc::Service* service : services) builder.RegisterService(service);
  server->server_ = builder.BuildAndStart();
  if (!server->server_ || server->port_ == 0) {
    return absl::UnavailableError(absl::StrCat("cannot listen on ", config.listen));
  }
  server->SetServing(false);
  server->server_->GetHealthCheckService()->SetServingStatus("startup", false);
  server->server_->GetHealthCheckService()->SetServingStatus("liveness", true);
  return server;
}

void GrpcServer::SetStarted() { server_->GetHealthCheckService()->SetServingStatus("startup", true); }

void GrpcServer::Shutdown(absl::Time soon, absl::Time deadline) {
  open_calls_.WaitForNone(deadline);
  open_calls_.WaitPatientlyForNone(soon);
  // Without time for clients to answer to it: a call that comes meanwhile ends with CANCELLED, which nobody tries
  // again, and one on a broken connection with UNAVAILABLE.
  server_->Shutdown(absl::ToChronoTime(absl::UnixEpoch()));
}

void GrpcServer::SetServing(bool serving) {
  grpc::HealthCheckServiceInterface* health = server_->GetHealthCheckService();
  for (const std::string& service : ServiceNames()) health->SetServingStatus(service, serving);
  health->SetServingStatus("", serving);
}

}  // namespace boss::server
