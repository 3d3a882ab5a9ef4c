#include "server/store/store_files.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/io/atomic_file.h"
#include "core/nets/architecture.h"
#include "server/store/sha256.h"

namespace boss::server {
namespace {

const char* KindName(FileInfo::Kind kind) {
  switch (kind) {
    case FileInfo::Kind::kRegular:
      return "a file";
    case FileInfo::Kind::kFolder:
      return "a folder";
    case FileInfo::Kind::kLink:
      return "a symbolic link";
    case FileInfo::Kind::kOther:
      return "neither file nor folder";
  }
  return "";
}

std::string ParentOf(const std::string& path) { return path.substr(0, path.rfind('/')); }

}  // namespace

std::string WeightsFile(const Manifest& manifest) {
  if (manifest.adapter) return kAdapterFile;
  return IsTorchScript(manifest.architecture_json) ? kTorchScriptFile : kWeightsFile;
}

std::optional<int64_t> ParseVersion(absl::string_view text) {
  int64_t version = 0;
  if (text.empty() || text.front() == '0' || !std::all_of(text.begin(), text.end(), absl::ascii_isdigit))
    return std::nullopt;
  if (!absl::SimpleAtoi(text, &version)) return std::nullopt;
  return version;
}

int64_t FolderSize(const FileSystem& files, const std::string& path) {
  if (!CheckFolder(files, path).ok()) return 0;
  const absl::StatusOr<std::vector<std::string>> names = files.ListFolder(path);
  if (!names.ok()) return 0;
  int64_t bytes = 0;
  for (const std::string& name : *names) {
    const std::string entry = absl::StrCat(path, "/", name);
    const absl::StatusOr<FileInfo> info = files.Stat(entry);
    if (!info.ok()) continue;
    if (info->kind == FileInfo::Kind::kRegular) bytes += info->size_bytes;
    if (info->kind == FileInfo::Kind::kFolder) bytes += FolderSize(files, entry);
  }
  return bytes;
}

absl::Status CheckFolder(const FileSystem& files, const std::string& path) {
  BOSS_ASSIGN_OR_RETURN(const FileInfo info, files.Stat(path));
  if (info.kind == FileInfo::Kind::kFolder) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(path, " is ", KindName(info.kind), ", expected a folder"));
}

absl::StatusOr<int64_t> SizeOfFile(const FileSystem& files, const std::string& folder, const std::string& name) {
  const absl::Status there = CheckFolder(files, folder);
  const absl::StatusOr<FileInfo> info =
      there.ok() ? files.Stat(absl::StrCat(folder, "/", name)) : absl::StatusOr<FileInfo>(there);
  if (absl::IsNotFound(info.status())) return absl::DataLossError(absl::StrCat(name, " is missing"));
  BOSS_RETURN_IF_ERROR(info.status());
  if (info->kind == FileInfo::Kind::kRegular) return info->size_bytes;
  return absl::DataLossError(absl::StrCat(name, " is ", KindName(info->kind), ", expected a file"));
}

absl::StatusOr<std::string> ReadStoredFile(const FileSystem& files, const std::string& folder,
                                           const std::string& name) {
  BOSS_RETURN_IF_ERROR(SizeOfFile(files, folder, name).status());
  absl::StatusOr<std::string> bytes = files.ReadFile(absl::StrCat(folder, "/", name));
  if (absl::IsNotFound(bytes.status())) return absl::DataLossError(absl::StrCat(name, " is missing"));
  return bytes;
}

absl::StatusOr<std::string> ReadCheckedFile(const FileSystem& files, const std::string& folder, const std::string& name,
                                            const std::string& digest) {
  BOSS_ASSIGN_OR_RETURN(std::string bytes, ReadStoredFile(files, folder, name));
  const std::string got = Sha256Hex(bytes);
  if (got == digest) return bytes;
  return absl::DataLossError(absl::StrCat(name, " is corrupt: its SHA-256 is ", got, ", expected ", digest));
}

absl::Status LinkOrCopy(const FileSystem& files, const std::string& from, const std::string& to) {
  if (files.Link(from, to).ok()) return absl::OkStatus();
  BOSS_ASSIGN_OR_RETURN(const std::string bytes, files.ReadFile(from));
  return WriteFileAtomically(to, bytes, files);
}

absl::Status MoveAndSync(const FileSystem& files, const std::string& from, const std::string& to) {
  BOSS_RETURN_IF_ERROR(files.Rename(from, to));
  BOSS_RETURN_IF_ERROR(files.SyncFolder(ParentOf(to)));
  return files.SyncFolder(ParentOf(from));
}

}  // namespace boss::server
