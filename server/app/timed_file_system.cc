#include "server/app/timed_file_system.h"

#include <utility>

#include "core/base/status_macros.h"
#include "server/app/timed_operation.h"

namespace boss::server {
namespace {

class TimedFile final : public WritableFile {
 public:
  TimedFile(std::unique_ptr<WritableFile> file, const OperationMetrics& metrics, const Clock& clock)
      : file_(std::move(file)), metrics_(metrics), clock_(clock) {}

  absl::Status Append(std::string_view data) override {
    return Timed(metrics_, clock_, "append", [&] { return file_->Append(data); });
  }
  absl::Status Sync() override {
    return Timed(metrics_, clock_, "sync", [&] { return file_->Sync(); });
  }
  absl::Status Close() override {
    return Timed(metrics_, clock_, "close", [&] { return file_->Close(); });
  }

 private:
  const std::unique_ptr<WritableFile> file_;
  const OperationMetrics& metrics_;
  const Clock& clock_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<WritableFile>> TimedFileSystem::OpenForWriting(const std::string& path,
                                                                              WriteMode mode) const {
  BOSS_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file,
                        Timed(metrics_, clock_, "create", [&] { return files_.OpenForWriting(path, mode); }));
  return std::make_unique<TimedFile>(std::move(file), metrics_, clock_);
}

absl::StatusOr<std::string> TimedFileSystem::ReadFile(const std::string& path) const {
  return Timed(metrics_, clock_, "read", [&] { return files_.ReadFile(path); });
}

absl::StatusOr<FileInfo> TimedFileSystem::Stat(const std::string& path) const {
  return Timed(metrics_, clock_, "stat", [&] { return files_.Stat(path); });
}

absl::StatusOr<std::vector<std::string>> TimedFileSystem::ListFolder(const std::string& path) const {
  return Timed(metrics_, clock_, "list", [&] { return files_.ListFolder(path); });
}

absl::Status TimedFileSystem::CreateFolders(const std::string& path) const {
  return Timed(metrics_, clock_, "mkdir", [&] { return files_.CreateFolders(path); });
}

absl::Status TimedFileSystem::Rename(const std::string& from, const std::string& to) const {
  return Timed(metrics_, clock_, "rename", [&] { return files_.Rename(from, to); });
}

absl::Status TimedFileSystem::Link(const std::string& from, const std::string& to) const {
  return Timed(metrics_, clock_, "link", [&] { return files_.Link(from, to); });
}

absl::Status TimedFileSystem::RemoveAll(const std::string& path) const {
  return Timed(metrics_, clock_, "remove", [&] { return files_.RemoveAll(path); });
}

absl::Status TimedFileSystem::SyncFolder(const std::string& path) const {
  return Timed(metrics_, clock_, "sync_folder", [&] { return files_.SyncFolder(path); });
}

absl::StatusOr<int64_t> TimedFileSystem::FreeBytes(const std::string& path) const {
  return Timed(metrics_, clock_, "free_bytes", [&] { return files_.FreeBytes(path); });
}

}  // namespace boss::server
