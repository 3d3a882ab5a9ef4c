// A disk whose every operation a test may watch, and let fail.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "core/base/status_macros.h"
#include "tests/support/forwarding_file_system.h"

namespace boss::testing {

class ScriptedDisk final : public ForwardingFileSystem {
 public:
  // Called before each of "create", "append", "sync", "close", "rename", "sync folder", "remove" and "create folders"
  // with the path; an error is returned in place of the operation. Unset: everything works.
  std::function<absl::Status(const std::string& operation, const std::string& path)> before;

  absl::StatusOr<std::unique_ptr<WritableFile>> OpenForWriting(const std::string& path, WriteMode mode) const override {
    BOSS_RETURN_IF_ERROR(Ask("create", path));
    BOSS_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, ForwardingFileSystem::OpenForWriting(path, mode));
    return std::make_unique<File>(*this, path, std::move(file));
  }
  absl::Status CreateFolders(const std::string& path) const override {
    BOSS_RETURN_IF_ERROR(Ask("create folders", path));
    return ForwardingFileSystem::CreateFolders(path);
  }
  absl::Status Rename(const std::string& from, const std::string& to) const override {
    BOSS_RETURN_IF_ERROR(Ask("rename", to));
    return ForwardingFileSystem::Rename(from, to);
  }
  absl::Status RemoveAll(const std::string& path) const override {
    BOSS_RETURN_IF_ERROR(Ask("remove", path));
    return ForwardingFileSystem::RemoveAll(path);
  }
  absl::Status SyncFolder(const std::string& path) const override {
    BOSS_RETURN_IF_ERROR(Ask("sync folder", path));
    return ForwardingFileSystem::SyncFolder(path);
  }

 private:
  class File final : public WritableFile {
   public:
    File(const ScriptedDisk& disk, std::string path, std::unique_ptr<WritableFile> file)
        : disk_(disk), path_(std::move(path)), file_(std::move(file)) {}
    // A write that fails has written half, as on a disk that fills up.
    absl::Status Append(std::string_view data) override {
      const absl::Status status = disk_.Ask("append", path_);
      BOSS_RETURN_IF_ERROR(file_->Append(status.ok() ? data : data.substr(0, data.size() / 2)));
      return status;
    }
    absl::Status Sync() override {
      BOSS_RETURN_IF_ERROR(disk_.Ask("sync", path_));
      return file_->Sync();
    }
    absl::Status Close() override {
      BOSS_RETURN_IF_ERROR(disk_.Ask("close", path_));
      return file_->Close();
    }

   private:
    const ScriptedDisk& disk_;
    const std::string path_;
    const std::unique_ptr<WritableFile> file_;
  };

  absl::Status Ask(const std::string& operation, const std::string& path) const {
    return before ? before(operation, path) : absl::OkStatus();
  }
};

}  // namespace boss::testing
