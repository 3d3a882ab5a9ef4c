#include "server/store/store_files.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>

#include "core/base/status_macros.h"
#include "core/io/atomic_file.h"

namespace boss::server {

absl::Status CreateFolders(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  return error ? ErrnoToStatus(error.value(), "create folder", path) : absl::OkStatus();
}

absl::Status RemoveAll(const std::string& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  return error ? ErrnoToStatus(error.value(), "remove", path) : absl::OkStatus();
}

absl::Status Rename(const std::string& from, const std::string& to) {
  return ::rename(from.c_str(), to.c_str()) == 0 ? absl::OkStatus() : ErrnoToStatus(errno, "rename", to);
}

absl::StatusOr<std::vector<std::string>> ListFolder(const std::string& path) {
  std::error_code error;
  std::vector<std::string> names;
  for (std::filesystem::directory_iterator it(path, error), end; !error && it != end; it.increment(error)) {
    names.push_back(it->path().filename().string());
  }
  if (error) return ErrnoToStatus(error.value(), "list", path);
  std::sort(names.begin(), names.end());
  return names;
}

int64_t FolderSize(const std::string& path) {
  int64_t bytes = 0;
  std::error_code error;
  for (std::filesystem::directory_iterator it(path, error), end; !error && it != end; it.increment(error)) {
    std::error_code unreadable;
    const auto size = it->is_regular_file(unreadable) ? it->file_size(unreadable) : 0;
    if (!unreadable) bytes += static_cast<int64_t>(size);
  }
  return bytes;
}

absl::Status LinkOrCopy(const std::string& from, const std::string& to) {
  if (::link(from.c_str(), to.c_str()) == 0) return absl::OkStatus();
  BOSS_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(from));
  return WriteFileAtomically(to, bytes);
}

}  // namespace boss::server
