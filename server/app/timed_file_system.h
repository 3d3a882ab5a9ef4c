// A file system that says how long its operations take and how many fail.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/base/clock.h"
#include "core/io/file_system.h"
#include "server/metrics/metrics.h"

namespace boss::server {

// Hands everything on to another file system. Operations: create, append, sync, close, read, stat, list, mkdir, rename,
// link, remove, sync_folder, free_bytes. A file that is not there, or is there already, is an answer and no error.
// Thread-safe, as `files` is.
class TimedFileSystem final : public FileSystem {
 public:
  // `files` and `clock` outlive the file system, which outlives its files.
  TimedFileSystem(const FileSystem& files, OperationMetrics metrics, const Clock& clock)
      : files_(files), metrics_(std::move(metrics)), clock_(clock) {}

  absl::StatusOr<std::unique_ptr<WritableFile>> OpenForWriting(const std::string& path, WriteMode mode) const override;
  absl::StatusOr<std::string> ReadFile(const std::string& path) const override;
  absl::StatusOr<FileInfo> Stat(const std::string& path) const override;
  absl::StatusOr<std::vector<std::string>> ListFolder(const std::string& path) const override;
  absl::Status CreateFolders(const std::string& path) const override;
  absl::Status Rename(const std::string& from, const std::string& to) const override;
  absl::Status Link(const std::string& from, const std::string& to) const override;
  absl::Status RemoveAll(const std::string& path) const override;
  absl::Status SyncFolder(const std::string& path) const override;
  absl::StatusOr<int64_t> FreeBytes(const std::string& path) const override;

 private:
  const FileSystem& files_;
  const OperationMetrics metrics_;
  const Clock& clock_;
};

}  // namespace boss::server
