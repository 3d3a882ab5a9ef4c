#include "server/app/grpc_log.h"

#include <grpc/support/log.h>

#include "server/log/log.h"

namespace boss::server {
namespace {

// What is an error to gRPC is often a client's doing.
LogLevel LevelOf(gpr_log_severity severity) {
  switch (severity) {
    case GPR_LOG_SEVERITY_ERROR:
      return LogLevel::kWarn;
    case GPR_LOG_SEVERITY_INFO:
      return LogLevel::kInfo;
    case GPR_LOG_SEVERITY_DEBUG:
      return LogLevel::kDebug;
  }
  return LogLevel::kWarn;
}

void Forward(gpr_log_func_args* event) { Log(LevelOf(event->severity), "grpc", {{"text", event->message}}); }

}  // namespace

void RouteGrpcLog() { gpr_set_log_function(Forward); }

}  // namespace boss::server
