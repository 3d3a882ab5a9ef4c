// bossd's accept4, in place of the C library's: a program's own symbols come first for every library that it loads.
//
// gRPC 1.51 stops listening for good when accept4 reports that the process has no descriptor left: whoever opens
// enough connections once would shut everybody out until the server is restarted. Here such an accept never fails, and
// a connection beyond the limit is closed at once, so that the files, the database and the metrics port keep
// descriptors of their own. The metrics port limits its connections by itself; it asks for no address, gRPC does.
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

namespace {

constexpr int kReserve = 256;

// The system gives the lowest number that is free: this one and the higher ones are not for connections.
int FirstReserved() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1 << 30;
  const int files = static_cast<int>(std::min<rlim_t>(limit.rlim_cur, 1 << 30));
  return files - std::min(kReserve, files / 4);
}

}  // namespace

extern "C" int accept4(int listener, sockaddr* address, socklen_t* size, int flags) {
  if (address == nullptr) return static_cast<int>(syscall(SYS_accept4, listener, address, size, flags));
  const int first_reserved = FirstReserved();
  while (true) {
    const long fd = syscall(SYS_accept4, listener, address, size, flags);
    if (fd < 0) {
      // What waits is accepted with the next one that comes.
      if (errno == EMFILE || errno == ENFILE) errno = EAGAIN;
      return -1;
    }
    if (fd < first_reserved) return static_cast<int>(fd);
    close(static_cast<int>(fd));
  }
}
