// The composition root: every part of a server, and the order in which they start and stop.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
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
  // Ready to serve when it returns. \error UNAVAILABLE if an address cannot be bound; FAILED_PRECONDITION if another
  // server uses the data folder or a device is not there; what the store and the journal report.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const ServerConfig& config, const ServerDisk& disk = {});
  // As Shutdown, without grace.
  ~Server();

  int port() const;
  // 0 without metrics.
  int metrics_port() const;

  // Health becomes NOT_SERVING and new work is refused at once; open Generate streams finish within the grace time and
  // get UNAVAILABLE after it; the running job saves its training state. Returns when all that is done. Idempotent.
  void Shutdown();
  // Cuts the grace time of a Shutdown, running or to come, short. Thread-safe.
  void Hurry();

 private:
  class Parts;
  explicit Server(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace boss::server
