// The file system as an object, so that what must survive can be tested against one that fails.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace boss {

struct FileInfo {
  enum class Kind { kRegular, kFolder, kLink, kOther };
  Kind kind = Kind::kOther;
  int64_t size_bytes = 0;
};

// A file that is being written. Used by one thread at a time. Destroying it closes it without a report.
class WritableFile {
 public:
  virtual ~WritableFile() = default;
  // All of `data`, or an error; then any part of it may be in the file.
  virtual absl::Status Append(std::string_view data) = 0;
  // Returns when the contents are on the disk (fsync).
  virtual absl::Status Sync() = 0;
  // Network file systems report a full quota only here. Nothing may be called after it.
  virtual absl::Status Close() = 0;
};

enum class WriteMode {
  kCreate,  // ALREADY_EXISTS if there is such a file
  kAppend,  // to a file that exists; NOT_FOUND otherwise
};

// Thread-safe.
//
// \error of every method: what the system reports (NOT_FOUND, PERMISSION_DENIED, RESOURCE_EXHAUSTED for a full disk or quota, ...), naming the
// operation and the path.
class FileSystem {
 public:
  virtual ~FileSystem() = default;

  virtual absl::StatusOr<std::unique_ptr<WritableFile>> OpenForWriting(const std::string& path, WriteMode mode) const = 0;
  virtual absl::StatusOr<std::string> ReadFile(const std::string& path) const = 0;
  // Of the path itself: a symbolic link is reported as one.
  virtual absl::StatusOr<FileInfo> Stat(const std::string& path) const = 0;
  // Names of the entries, sorted.
  virtual absl::StatusOr<std::vector<std::string>> ListFolder(const std::string& path) const = 0;

  // The folder and those above it; each that is made is on the disk when this returns. Not an error if it is there.
  virtual absl::Status CreateFolders(const std::string& path) const = 0;
  virtual absl::Status Rename(const std::string& from, const std::string& to) const = 0;
  // A second name for a file's bytes.
  virtual absl::Status Link(const std::string& from, const std::string& to) const = 0;
  // A file, or a folder with all it holds; symbolic links are removed, not followed. Not an error if there is nothing.
  virtual absl::Status RemoveAll(const std::string& path) const = 0;
  // Flushes a folder's entries to the disk.
  virtual absl::Status SyncFolder(const std::string& path) const = 0;
  // Bytes that this process may still write to the disk that holds `path`.
  virtual absl::StatusOr<int64_t> FreeBytes(const std::string& path) const = 0;
};

// The operating system's.
const FileSystem& PosixFileSystem();

// A status from errno.
absl::Status ErrnoToStatus(int error_number, std::string_view operation, std::string_view path);

}  // namespace boss
