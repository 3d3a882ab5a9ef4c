// A file in memory for parsers that take a path.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <string>
#include <string_view>

#include "tests/fuzz/check.h"

namespace boss::testing {

// Lives as long as the object; `path` opens it anew each time, also in other threads of the process.
class MemoryFile {
 public:
  MemoryFile() : descriptor_(::memfd_create("fuzz", MFD_CLOEXEC)) {
    FuzzCheck(descriptor_ >= 0, "memfd_create failed");
    path_ = "/proc/self/fd/" + std::to_string(descriptor_);
  }
  ~MemoryFile() { ::close(descriptor_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  // In place of what the file held.
  void Write(std::string_view bytes) const {
    FuzzCheck(::ftruncate(descriptor_, 0) == 0, "ftruncate failed");
    FuzzCheck(::pwrite(descriptor_, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()),
              "pwrite failed");
  }
  const std::string& path() const { return path_; }

 private:
  int descriptor_;
  std::string path_;
};

}  // namespace boss::testing
