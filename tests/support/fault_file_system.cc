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

// Does `change` and tells it to `note` if it is done.
template <typename Note>
absl::Status Noted(PowerLoss* power_loss, absl::Status change, Note note) {
  if (change.ok() && power_loss != nullptr) note(*power_loss);
  return change;
}

class FaultFile final : public WritableFile {
 public:
  FaultFile(FaultPlan& plan, std::unique_ptr<WritableFile> base, std::string path)
      : plan_(plan), base_(std::move(base)), path_(std::move(path)) {}

  absl::Status Append(std::string_view data) override {
    const auto append = [&](std::string_view bytes) {
      if (plan_.power_loss() != nullptr) plan_.power_loss()->Writing(path_);
      return base_->Append(bytes);
    };
    return RunStatus(
        plan_, "write", path_, [&] { return append(data); },
        [&] { append(data.substr(0, data.size() / 2)).IgnoreError(); });
  }
  absl::Status Sync() override {
    return RunStatus(plan_, "sync", path_, [&] {
      return Noted(plan_.power_loss(), base_->Sync(), [&](PowerLoss& disk) { disk.Synced(path_); });
    });
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
    if (!opened.ok()) return opened.status();
    file = *std::move(opened);
    if (plan_.power_loss() != nullptr && mode == WriteMode::kCreate) plan_.power_loss()->Created(path);
    return absl::OkStatus();
  };
  // Opening what is there changes nothing on the disk.
  const absl::Status status = mode == WriteMode::kCreate ? RunStatus(plan_, "create", path, open) : open();
  if (!status.ok()) return status;
  return std::make_unique<FaultFile>(plan_, std::move(file), path);
}

absl::Status FaultFileSystem::CreateFolders(const std::string& path) const {
  const absl::StatusOr<FileInfo> info = base_.Stat(path);
  if (info.ok() && info->kind == FileInfo::Kind::kFolder) return absl::OkStatus();
  return RunStatus(plan_, "mkdir", path, [&] {
    // It syncs the folder above.
    return Noted(plan_.power_loss(), base_.CreateFolders(path),
                 [&](PowerLoss& disk) { disk.SyncedFolder(path.substr(0, path.rfind('/'))); });
  });
}

absl::Status FaultFileSystem::Rename(const std::string& from, const std::string& to) const {
  return RunStatus(plan_, "rename", to, [&] {
    if (plan_.power_loss() == nullptr) return base_.Rename(from, to);
    const int error = plan_.power_loss()->Rename(from, to);
    return error == 0 ? absl::OkStatus() : ErrnoToStatus(error, absl::StrCat("rename ", from, " to"), to);
  });
}

absl::Status FaultFileSystem::Link(const std::string& from, const std::string& to) const {
  return RunStatus(plan_, "link", to, [&] {
    return Noted(plan_.power_loss(), base_.Link(from, to), [&](PowerLoss& disk) { disk.Created(to); });
  });
}

absl::Status FaultFileSystem::RemoveAll(const std::string& path) const {
  const auto remove = [&](const std::string& entry) {
    if (plan_.power_loss() == nullptr) return base_.RemoveAll(entry);
    const int error = plan_.power_loss()->Remove(entry);
    return error == 0 ? absl::OkStatus() : ErrnoToStatus(error, "remove", entry);
  };
  const auto remove_half = [&] {
    const absl::StatusOr<std::vector<std::string>> names = base_.ListFolder(path);
    if (!names.ok()) return;
    for (size_t i = 0; 2 * i < names->size(); ++i) remove(absl::StrCat(path, "/", (*names)[i])).IgnoreError();
  };
  if (absl::IsNotFound(base_.Stat(path).status())) return absl::OkStatus();
  return RunStatus(
      plan_, "remove", path, [&] { return remove(path); }, remove_half);
}

absl::Status FaultFileSystem::SyncFolder(const std::string& path) const {
  return RunStatus(plan_, "syncfolder", path, [&] {
    return Noted(plan_.power_loss(), base_.SyncFolder(path), [&](PowerLoss& disk) { disk.SyncedFolder(path); });
  });
}

}  // namespace boss::testing
