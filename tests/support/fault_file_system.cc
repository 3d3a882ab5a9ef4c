#include "tests/support/fault_file_system.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace boss::testing {
namespace {

std::string Site(const std::string& path, absl::string_view operation) {
  const std::string folder = absl::StrCat(path, "/");
  const char* area = "other";
  for (const char* name : {"/models/", "/staging/", "/uploads/", "/quarantine/"}) {
    if (absl::StrContains(folder, name)) area = "store";
  }
  if (absl::StrContains(folder, "/jobs/")) area = "state";
  return absl::StrCat(area, ".", operation);
}

void Nothing() {}

// Performs `operation`, whose failure by itself is its own status and by plan that of the error number.
absl::Status RunStatus(FaultPlan& plan, absl::string_view operation, const std::string& path,
                       absl::FunctionRef<absl::Status()> whole, absl::FunctionRef<void()> half = Nothing) {
  absl::Status status;
  const int error = plan.Run(
      Site(path, operation), [&] { status = whole(); }, half);
  return error == 0 ? status : ErrnoToStatus(error, std::string(operation), path);
}

class FaultFile final : public WritableFile {
 public:
  FaultFile(FaultPlan& plan, std::unique_ptr<WritableFile> base, std::string path)
      : plan_(plan), base_(std::move(base)), path_(std::move(path)) {}

  absl::Status Append(std::string_view data) override {
    return RunStatus(
        plan_, "write", path_, [&] { return base_->Append(data); },
        [&] { base_->Append(data.substr(0, data.size() / 2)).IgnoreError(); });
  }
  absl::Status Sync() override {
    return RunStatus(plan_, "sync", path_, [&] { return base_->Sync(); });
  }
  absl::Status Close() override {
    return RunStatus(plan_, "close", path_, [&] { return base_->Close(); });
  }

 private:
  FaultPlan& plan_;
  const std::unique_ptr<WritableFile> base_;
  const std::string path_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<WritableFile>> FaultFileSystem::OpenForWriting(const std::string& path,
                                                                              WriteMode mode) const {
  std::unique_ptr<WritableFile> file;
  const auto open = [&]() -> absl::Status {
    absl::StatusOr<std::unique_ptr<WritableFile>> opened = base_.OpenForWriting(path, mode);
    if (opened.ok()) file = *std::move(opened);
    return opened.status();
  };
  // Opening what is there changes nothing on the disk.
  const absl::Status status = mode == WriteMode::kCreate ? RunStatus(plan_, "create", path, open) : open();
  if (!status.ok()) return status;
  return std::make_unique<FaultFile>(plan_, std::move(file), path);
}

absl::Status FaultFileSystem::CreateFolders(const std::string& path) const {
  const absl::StatusOr<FileInfo> info = base_.Stat(path);
  if (info.ok() && info->kind == FileInfo::Kind::kFolder) return absl::OkStatus();
  return RunStatus(plan_, "mkdir", path, [&] { return base_.CreateFolders(path); });
}

absl::Status FaultFileSystem::Rename(const std::string& from, const std::string& to) const {
  return RunStatus(plan_, "rename", to, [&] { return base_.Rename(from, to); });
}

absl::Status FaultFileSystem::Link(const std::string& from, const std::string& to) const {
  return RunStatus(plan_, "link", to, [&] { return base_.Link(from, to); });
}

absl::Status FaultFileSystem::RemoveAll(const std::string& path) const {
  const auto remove_half = [&] {
    const absl::StatusOr<std::vector<std::string>> names = base_.ListFolder(path);
    if (!names.ok()) return;
    for (size_t i = 0; 2 * i < names->size(); ++i) base_.RemoveAll(absl::StrCat(path, "/", (*names)[i])).IgnoreError();
  };
  if (absl::IsNotFound(base_.Stat(path).status())) return absl::OkStatus();
  return RunStatus(
      plan_, "remove", path, [&] { return base_.RemoveAll(path); }, remove_half);
}

absl::Status FaultFileSystem::SyncFolder(const std::string& path) const {
  return RunStatus(plan_, "syncfolder", path, [&] { return base_.SyncFolder(path); });
}

}  // namespace boss::testing
