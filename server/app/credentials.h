// What a server shows of itself and asks of its callers: certificates and the access file, read again while it runs.
#pragma once

#include <grpcpp/security/server_credentials.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "core/base/clock.h"
#include "server/app/config.h"
#include "server/app/tls.h"
#include "server/rpc/access.h"

namespace boss::server {

// Whether `config` may listen where it says. Loopback addresses and Unix sockets are always allowed. Elsewhere callers
// must be told apart (--access-file or --tls-client-ca) and must not send their tokens in the clear
// (--tls-certificate), unless --insecure says otherwise. \error FAILED_PRECONDITION saying which flags are missing.
absl::Status CheckExposure(const ServerConfig& config);

// Thread-safe.
class Credentials {
 public:
  // Reads the files that `config` names. With config.credentials_reload > 0 a thread looks for new ones that often.
  // `clock` outlives it. \error as of CheckExposure; INVALID_ARGUMENT for a file that is malformed or does not fit the
  // others; what the system reports.
  static absl::StatusOr<std::unique_ptr<Credentials>> Open(const ServerConfig& config, const Clock& clock);
  ~Credentials();
  Credentials(const Credentials&) = delete;
  Credentials& operator=(const Credentials&) = delete;

  // For the server's port; this object outlives the server.
  std::shared_ptr<grpc::ServerCredentials> ForServer() const;
  // For the services.
  Access& access() { return access_; }

  // Reads the certificates and the access file again, for calls and connections that begin from now on. What cannot be
  // used is logged as an error, and the former stays.
  void Reload() ABSL_LOCKS_EXCLUDED(mutex_);

  // boss_access_refused_total, and boss_tls_certificate_not_after_timestamp_seconds where there is a certificate.
  std::vector<CollectedFamily> Collect() const;

 private:
  Credentials(const ServerConfig& config, const Clock& clock);

  // Whether its rules are new.
  absl::StatusOr<bool> ReadAccessFile() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // As Reload; `asked`: also says again what it has said before.
  void Look(bool asked) ABSL_LOCKS_EXCLUDED(mutex_);

  const std::string access_file_;
  Access access_;
  std::unique_ptr<ServerTls> tls_;  // null: without TLS

  absl::Mutex mutex_;
  std::string access_text_ ABSL_GUARDED_BY(mutex_);  // of the rules in use
  // What the log has been told.
  absl::Status access_problem_ ABSL_GUARDED_BY(mutex_);
  absl::Status certificate_problem_ ABSL_GUARDED_BY(mutex_);
  absl::Notification stop_;
  std::thread watcher_;
};

}  // namespace boss::server
