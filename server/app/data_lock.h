// One server a data folder.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "core/io/file_system.h"

namespace boss::server {

// Holds <folder>/lock until it is destroyed or the process ends, however it ends.
class DataLock {
 public:
  // Creates the folder, so that it outlives a power failure. \error FAILED_PRECONDITION if another process holds the
  // lock; what the system reports.
  static absl::StatusOr<std::unique_ptr<DataLock>> Acquire(const std::string& folder,
                                                           const FileSystem& files = PosixFileSystem());
  ~DataLock();
  DataLock(const DataLock&) = delete;
  DataLock& operator=(const DataLock&) = delete;

 private:
  explicit DataLock(int fd) : fd_(fd) {}
  const int fd_;
};

}  // namespace boss::server
