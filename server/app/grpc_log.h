// gRPC's own messages, such as handshakes that fail.
#pragma once

namespace boss::server {

// From now on they are events of the server's log; gRPC's GRPC_VERBOSITY says which there are. Of the process, after
// SetUpLog.
void RouteGrpcLog();

}  // namespace boss::server
