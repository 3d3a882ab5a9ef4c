#include "server/store/store_files.h"

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/io/atomic_file.h"

namespace boss::server {

int64_t FolderSize(const FileSystem& files, const std::string& path) {
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

absl::Status LinkOrCopy(const FileSystem& files, const std::string& from, const std::string& to) {
  if (files.Link(from, to).ok()) return absl::OkStatus();
  BOSS_ASSIGN_OR_RETURN(const std::string bytes, files.ReadFile(from));
  return WriteFileAtomically(to, bytes, files);
}

}  // namespace boss::server
