// The server's side of TLS, with certificates that can be replaced while it runs.
#pragma once

#include <grpcpp/security/server_credentials.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace boss::server {

// PEM files.
struct TlsFiles {
  std::string certificate;  // the server's, then its chain
  std::string key;
  std::string client_ca;  // empty: clients need no certificate
};

// TLS 1.2 and later. Thread-safe. Outlives the servers that use it.
class ServerTls {
 public:
  // \error INVALID_ARGUMENT naming the file that is not PEM, has a damaged certificate, or whose key is not the
  // certificate's or too short for TLS; what the system reports. No message has anything of a key.
  static absl::StatusOr<std::unique_ptr<ServerTls>> Open(TlsFiles files);
  ~ServerTls();
  ServerTls(const ServerTls&) = delete;
  ServerTls& operator=(const ServerTls&) = delete;

  // Connections that are made from a successful Reload on use what it read.
  std::shared_ptr<grpc::ServerCredentials> ForServer() ABSL_LOCKS_EXCLUDED(mutex_);

  // Whether the files differ from those in use; these stay in use if there is an error. \error as of Open.
  absl::StatusOr<bool> Reload() ABSL_LOCKS_EXCLUDED(mutex_);

  // When the server's certificate ends.
  absl::Time not_after() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  class PortCredentials;
  // The files' contents.
  struct Material {
    std::string certificate, key, client_ca;
    absl::Time not_after;
    bool operator==(const Material& other) const = default;
  };

  explicit ServerTls(TlsFiles files) : files_(std::move(files)) {}
  static absl::StatusOr<Material> Read(const TlsFiles& files);

  const TlsFiles files_;
  mutable absl::Mutex mutex_;
  std::shared_ptr<const Material> material_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<PortCredentials>> ports_ ABSL_GUARDED_BY(mutex_);  // gRPC calls them without owning them
};

}  // namespace boss::server
