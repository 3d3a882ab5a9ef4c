#include "core/io/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>

#include "absl/cleanup/cleanup.h"
#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace boss {
namespace {

constexpr size_t kReadChunk = size_t{1} << 20;
constexpr int kNameAttempts = 16;

std::string FolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

absl::Status WriteAll(int fd, std::string_view contents, const std::string& path) {
  while (!contents.empty()) {
    const ssize_t written = ::write(fd, contents.data(), contents.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      return ErrnoToStatus(errno, "write", path);
    }
    contents.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

// Opens a new file beside `path`; mkstemp() would leave it unreadable for everybody else, whatever the umask says.
absl::StatusOr<int> CreateTemporary(const std::string& path, std::string& temporary) {
  absl::BitGen random;
  for (int attempt = 0; attempt < kNameAttempts; ++attempt) {
    temporary = absl::StrCat(path, ".tmp-", absl::Hex(absl::Uniform<uint64_t>(random), absl::kZeroPad16));
    const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd >= 0) return fd;
    if (errno != EEXIST && errno != EINTR) break;
  }
  return ErrnoToStatus(errno, "create", temporary);
}

}  // namespace

absl::Status ErrnoToStatus(int error_number, std::string_view operation, std::string_view path) {
  return absl::ErrnoToStatus(error_number, absl::StrCat(std::string(operation), " ", std::string(path)));
}

absl::Status WriteFileAtomically(const std::string& path, std::string_view contents) {
  std::string temporary;
  BOSS_ASSIGN_OR_RETURN(const int fd, CreateTemporary(path, temporary));
  auto remove_temporary = absl::MakeCleanup([&temporary] { ::unlink(temporary.c_str()); });
  {
    auto close_file = absl::MakeCleanup([fd] { ::close(fd); });
    BOSS_RETURN_IF_ERROR(WriteAll(fd, contents, temporary));
    if (::fsync(fd) != 0) return ErrnoToStatus(errno, "fsync", temporary);
    // Network file systems report a full quota only here.
    std::move(close_file).Cancel();
    if (::close(fd) != 0) return ErrnoToStatus(errno, "close", temporary);
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    return ErrnoToStatus(errno, absl::StrCat("rename ", temporary, " to"), path);
  }
  std::move(remove_temporary).Cancel();
  return SyncFolder(FolderOf(path));
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoToStatus(errno, "open", path);
  auto close_file = absl::MakeCleanup([fd] { ::close(fd); });
  struct stat information;
  if (::fstat(fd, &information) != 0) return ErrnoToStatus(errno, "stat", path);
  std::string contents;
  size_t size = 0;
  // The file may grow or shrink meanwhile: its size is only a hint, and the end is where read() says so.
  size_t room = information.st_size > 0 ? static_cast<size_t>(information.st_size) + 1 : kReadChunk;
  while (true) {
    if (size == contents.size()) {
      contents.resize(size + room);
      room = kReadChunk;
    }
    const ssize_t got = ::read(fd, contents.data() + size, contents.size() - size);
    if (got < 0) {
      if (errno == EINTR) continue;
      return ErrnoToStatus(errno, "read", path);
    }
    if (got == 0) break;
    size += static_cast<size_t>(got);
  }
  contents.resize(size);
  return contents;
}

absl::Status SyncFolder(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return ErrnoToStatus(errno, "open", path);
  auto close_folder = absl::MakeCleanup([fd] { ::close(fd); });
  if (::fsync(fd) != 0) return ErrnoToStatus(errno, "fsync", path);
  return absl::OkStatus();
}

}  // namespace boss
