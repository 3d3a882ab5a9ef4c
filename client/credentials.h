// How a client proves who it is, and knows whom it talks to.
#pragma once

#include <grpcpp/security/credentials.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace boss::client {

// Files are in PEM, except for the token's.
struct Credentials {
  bool tls = false;              // also turned on by any of the next four
  std::string ca_file;           // of the server's certificate; empty: the system's
  std::string certificate_file;  // of the client's own, for mutual TLS; with key_file
  std::string key_file;
  std::string server_name;  // that the server's certificate must have; empty: the address's
  // At most one of them. The file is read again for every call, so that its token may be replaced.
  std::string token;
  std::string token_file;
  bool allow_insecure_token = false;  // also without TLS and to another machine, where all between can read it
};

// What Credentials come to. \error of making it: INVALID_ARGUMENT for what does not go together, is malformed, or would
// send a token in the clear to `address`; what the system reports of a file. No message has anything of a token or key.
struct ChannelSecurity {
  std::shared_ptr<grpc::ChannelCredentials> channel;
  std::string server_name;
  std::string token;       // of a file: as it was at first
  std::string token_file;  // to read again; empty: none
};
absl::StatusOr<ChannelSecurity> ResolveCredentials(const Credentials& credentials, const std::string& address);

// The token in a file, without the white space around it. \error INVALID_ARGUMENT if that is none.
absl::StatusOr<std::string> ReadToken(const std::string& path);

// Whether a gRPC target is this machine: "127.0.0.1:50051", "localhost:1", "[::1]:1", "unix:/run/boss".
bool IsLoopbackTarget(absl::string_view target);

}  // namespace boss::client
