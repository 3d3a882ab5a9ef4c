#include "server/app/data_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/io/atomic_file.h"

namespace boss::server {

absl::StatusOr<std::unique_ptr<DataLock>> DataLock::Acquire(const std::string& folder, const FileSystem& files) {
  BOSS_RETURN_IF_ERROR(files.CreateFolders(folder));
  const std::string path = absl::StrCat(folder, "/lock");
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return ErrnoToStatus(errno, "open", path);
  std::unique_ptr<DataLock> lock(new DataLock(fd));
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK)
      return absl::FailedPreconditionError(absl::StrCat("another server uses the data folder ", folder));
    return ErrnoToStatus(errno, "lock", path);
  }
  return lock;
}

DataLock::~DataLock() { close(fd_); }

}  // namespace boss::server
