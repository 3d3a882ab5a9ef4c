#include "core/io/file_system.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace boss {
namespace {

constexpr size_t kReadChunk = size_t{1} << 20;

class PosixWritableFile final : public WritableFile {
 public:
  PosixWritableFile(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  ~PosixWritableFile() override {
    if (fd_ >= 0) ::close(fd_);
  }

  absl::Status Append(std::string_view data) override {
    while (!data.empty()) {
      const ssize_t written = ::write(fd_, data.data(), data.size());
      if (written < 0) {
        if (errno == EINTR) continue;
        return ErrnoToStatus(errno, "write", path_);
      }
      data.remove_prefix(static_cast<size_t>(written));
    }
    return absl::OkStatus();
  }

  absl::Status Sync() override { return ::fsync(fd_) == 0 ? absl::OkStatus() : ErrnoToStatus(errno, "fsync", path_); }

  absl::Status Close() override {
    const int fd = fd_;
    fd_ = -1;
    return ::close(fd) == 0 ? absl::OkStatus() : ErrnoToStatus(errno, "close", path_);
  }

 private:
  int fd_;
  const std::string path_;
};

class Posix final : public FileSystem {
 public:
  absl::StatusOr<std::unique_ptr<WritableFile>> OpenForWriting(const std::string& path, WriteMode mode) const override {
    const int flags = mode == WriteMode::kCreate ? O_CREAT | O_EXCL : O_APPEND;
    const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC | flags, 0666);
    if (fd < 0) return ErrnoToStatus(errno, mode == WriteMode::kCreate ? "create" : "open", path);
    return std::make_unique<PosixWritableFile>(fd, path);
  }

  absl::StatusOr<std::string> ReadFile(const std::string& path) const override {
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

  absl::StatusOr<FileInfo> Stat(const std::string& path) const override {
    struct stat information;
    if (::lstat(path.c_str(), &information) != 0) return ErrnoToStatus(errno, "stat", path);
    const auto kind = S_ISREG(information.st_mode)   ? FileInfo::Kind::kRegular
                      : S_ISDIR(information.st_mode) ? FileInfo::Kind::kFolder
                      : S_ISLNK(information.st_mode) ? FileInfo::Kind::kLink
                                                     : FileInfo::Kind::kOther;
    return FileInfo{kind, static_cast<int64_t>(information.st_size)};
  }

  absl::StatusOr<std::vector<std::string>> ListFolder(const std::string& path) const override {
    std::error_code error;
    std::vector<std::string> names;
    for (std::filesystem::directory_iterator it(path, error), end; !error && it != end; it.increment(error)) {
      names.push_back(it->path().filename().string());
    }
    if (error) return ErrnoToStatus(error.value(), "list", path);
    std::sort(names.begin(), names.end());
    return names;
  }

  absl::Status CreateFolders(const std::string& path) const override {
    if (::mkdir(path.c_str(), 0777) == 0) return SyncFolder(ParentOf(path));
    if (errno == ENOENT && ParentOf(path) != path) {
      BOSS_RETURN_IF_ERROR(CreateFolders(ParentOf(path)));
      if (::mkdir(path.c_str(), 0777) == 0) return SyncFolder(ParentOf(path));
    }
    const int error = errno;
    struct stat information;
    if (error == EEXIST && ::stat(path.c_str(), &information) == 0 && S_ISDIR(information.st_mode))
      return absl::OkStatus();
    return ErrnoToStatus(error, "create folder", path);
  }

  absl::Status Rename(const std::string& from, const std::string& to) const override {
    if (::rename(from.c_str(), to.c_str()) == 0) return absl::OkStatus();
    return ErrnoToStatus(errno, absl::StrCat("rename ", from, " to"), to);
  }

  absl::Status Link(const std::string& from, const std::string& to) const override {
    return ::link(from.c_str(), to.c_str()) == 0 ? absl::OkStatus() : ErrnoToStatus(errno, "link", to);
  }

  absl::Status RemoveAll(const std::string& path) const override {
    std::error_code error;
    std::filesystem::remove_all(path, error);
    return error ? ErrnoToStatus(error.value(), "remove", path) : absl::OkStatus();
  }

  absl::Status SyncFolder(const std::string& path) const override {
    const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return ErrnoToStatus(errno, "open", path);
    auto close_folder = absl::MakeCleanup([fd] { ::close(fd); });
    return ::fsync(fd) == 0 ? absl::OkStatus() : ErrnoToStatus(errno, "fsync", path);
  }

  absl::StatusOr<int64_t> FreeBytes(const std::string& path) const override {
    struct statvfs information;
    if (::statvfs(path.c_str(), &information) != 0) return ErrnoToStatus(errno, "statvfs", path);
    return static_cast<int64_t>(information.f_bavail) * static_cast<int64_t>(information.f_frsize);
  }

 private:
  static std::string ParentOf(const std::string& path) {
    const std::string parent = std::filesystem::path(path).parent_path().string();
    return parent.empty() ? "." : parent;
  }
};

}  // namespace

const FileSystem& PosixFileSystem() {
  static const Posix kPosix;
  return kPosix;
}

absl::Status ErrnoToStatus(int error_number, std::string_view operation, std::string_view path) {
  return absl::ErrnoToStatus(error_number, absl::StrCat(std::string(operation), " ", std::string(path)));
}

}  // namespace boss
