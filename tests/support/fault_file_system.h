// The operating system's files, failing as a plan says.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/io/file_system.h"
#include "tests/support/fault_plan.h"

namespace boss::testing {

// Everything that changes the disk is an operation of the plan, at a site named after the path. Reading never fails.
// `plan` outlives the file system and its files.
class FaultFileSystem final : public FileSystem {
 public:
  explicit FaultFileSystem(FaultPlan& plan) : plan_(plan) {}

  absl::StatusOr<std::unique_ptr<WritableFile>> OpenForWriting(const std::string& path, WriteMode mode) const override;
  absl::StatusOr<std::string> ReadFile(const std::string& path) const override { return base_.ReadFile(path); }
  absl::StatusOr<FileInfo> Stat(const std::string& path) const override { return base_.Stat(path); }
  absl::StatusOr<std::vector<std::string>> ListFolder(const std::string& path) const override {
    return base_.ListFolder(path);
  }
  absl::Status CreateFolders(const std::string& path) const override;
  absl::Status Rename(const std::string& from, const std::string& to) const override;
  absl::Status Link(const std::string& from, const std::string& to) const override;
  absl::Status RemoveAll(const std::string& path) const override;
  absl::Status SyncFolder(const std::string& path) const override;
  absl::StatusOr<int64_t> FreeBytes(const std::string& path) const override { return base_.FreeBytes(path); }

 private:
  const FileSystem& base_ = PosixFileSystem();
  FaultPlan& plan_;
};

}  // namespace boss::testing
