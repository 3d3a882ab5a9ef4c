// A file system that hands everything on: for tests that change one thing about it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/io/file_system.h"

namespace boss::testing {

class ForwardingFileSystem : public FileSystem {
 public:
  absl::StatusOr<std::unique_ptr<WritableFile>> OpenForWriting(const std::string& path, WriteMode mode) const override {
    return disk_.OpenForWriting(path, mode);
  }
  absl::StatusOr<std::string> ReadFile(const std::string& path) const override { return disk_.ReadFile(path); }
  absl::StatusOr<FileInfo> Stat(const std::string& path) const override { return disk_.Stat(path); }
  absl::StatusOr<std::vector<std::string>> ListFolder(const std::string& path) const override {
    return disk_.ListFolder(path);
  }
  absl::Status CreateFolders(const std::string& path) const override { return disk_.CreateFolders(path); }
  absl::Status Rename(const std::string& from, const std::string& to) const override { return disk_.Rename(from, to); }
  absl::Status Link(const std::string& from, const std::string& to) const override { return disk_.Link(from, to); }
  absl::Status RemoveAll(const std::string& path) const override { return disk_.RemoveAll(path); }
  absl::Status SyncFolder(const std::string& path) const override { return disk_.SyncFolder(path); }
  absl::StatusOr<int64_t> FreeBytes(const std::string& path) const override { return disk_.FreeBytes(path); }

 private:
  const FileSystem& disk_ = PosixFileSystem();
};

}  // namespace boss::testing
