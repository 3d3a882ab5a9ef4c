// The composition root: every part of a server, and the order in which they start and stop.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/notification.h"
#include "core/io/file_system.h"
#include "server/app/config.h"

namespace boss::server {

// What a server reaches the disk through. All of it outlives the server.
struct ServerDisk {
  const FileSystem& files = PosixFileSystem();
  std::string sqlite_vfs;  // see SqliteJobJournal::Open
};

class Server {
 public:
  // Ready to serve when it returns. Its port is open early: until then health says so, and calls are UNAVAILABLE
  // (docs/lifecycle.md). `stop`, unless it is null, can be notified meanwhile. \error CANCELLED if that is noticed;
  // UNAVAILABLE if an address cannot be bound; FAILED_PRECONDITION if another server uses the data folder or a device
  // is not there; what the store and the journal report.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const ServerConfig& config, const ServerDisk& disk = {},
                                                       const absl::Notification* stop = nullptr);
  // As Shutdown, without grace.
  ~Server();

  int port() const;
  // 0 without metrics.
  int metrics_port() const;

  // Health becomes NOT_SERVING; serves for the drain time, or until Hurry().
  void Drain();
  // Health becomes NOT_SERVING and new calls are refused at once; open calls finish within the grace time and get
  // UNAVAILABLE after it; the running job saves its training state. Returns when all that is done. Idempotent.
  void Shutdown();
  // As Credentials::Reload. Thread-safe.
  void ReloadCredentials();
  // Cuts the times of a Drain and a Shutdown, running or to come, short. Thread-safe.
  void Hurry();

 private:
  class Parts;
  explicit Server(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace boss::server
