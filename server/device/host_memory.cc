#include "server/device/host_memory.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>
#include <gperftools/malloc_extension_c.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

// Null in a program that tcmalloc is not linked into.
#pragma weak MallocExtension_GetNumericProperty

namespace boss::server {
namespace {

constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();
constexpr size_t kSmallestChecked = 4 << 20;  // asking tcmalloc takes microseconds

// The number that the file begins with; kNoLimit if there is none, as in "max".
int64_t ReadLimit(const std::filesystem::path& path) {
  std::ifstream file(path);
  int64_t bytes = 0;
  return file >> bytes ? bytes : kNoLimit;
}

// Of the group `path` and of those around it. A container that sees only its own group finds it at the top.
int64_t GroupLimit(const std::filesystem::path& mount, absl::string_view path, const char* file) {
  int64_t limit = ReadLimit(mount / file);
  std::filesystem::path group = mount;
  for (const absl::string_view part : absl::StrSplit(path, '/', absl::SkipEmpty())) {
    group /= std::string(part);
    limit = std::min(limit, ReadLimit(group / file));
  }
  return limit;
}

int64_t MachineMemory(const std::filesystem::path& root) {
  std::ifstream file(root / "proc/meminfo");
  for (std::string name, unit; file >> name;) {
    int64_t kibibytes = 0;
    if (name == "MemTotal:" && file >> kibibytes) return kibibytes << 10;
    std::getline(file, unit);
  }
  return kNoLimit;
}

// LibTorch's own allocator behind a look at what is allocated already.
class LimitedAllocator final : public c10::Allocator {
 public:
  int64_t limit() const { return limit_; }
  void SetLimit(int64_t bytes) { limit_ = bytes; }

  c10::DataPtr allocate(size_t size) override {
    if (size >= kSmallestChecked) Check(size);
    return inner_.allocate(size);
  }
  c10::DeleterFnPtr raw_deleter() const override { return inner_.raw_deleter(); }
  void copy_data(void* destination, const void* source, size_t count) const override {
    inner_.copy_data(destination, source, count);
  }

 private:
  void Check(size_t size) const {
    size_t used = 0;
    if (MallocExtension_GetNumericProperty != nullptr)
      MallocExtension_GetNumericProperty("generic.current_allocated_bytes", &used);
    const auto limit = static_cast<size_t>(limit_.load(std::memory_order_relaxed));
    TORCH_CHECK_WITH(OutOfMemoryError, size <= limit && used <= limit - size, "no host memory for a tensor of ",
                     size >> 20, " MiB: ", used >> 20, " MiB are in use, at most ", limit >> 20,
                     " MiB may be (--max-host-memory-bytes)");
  }

  c10::Allocator& inner_ = *c10::GetDefaultCPUAllocator();
  std::atomic<int64_t> limit_ = kNoLimit;
};

LimitedAllocator& Limited() {
  static auto* const allocator = new LimitedAllocator;  // tensors outlive everything
  return *allocator;
}

}  // namespace

absl::StatusOr<int64_t> HostMemoryBytes(const std::string& root) {
  const std::filesystem::path top = root;
  int64_t bytes = MachineMemory(top);
  std::ifstream groups(top / "proc/self/cgroup");
  // Lines "hierarchy:controllers:path"; version 2 has no controllers there.
  for (std::string line; std::getline(groups, line);) {
    const std::vector<std::string> fields = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() != 3) continue;
    if (fields[1].empty()) {
      bytes = std::min(bytes, GroupLimit(top / "sys/fs/cgroup", fields[2], "memory.max"));
    } else if (fields[1] == "memory") {
      bytes = std::min(bytes, GroupLimit(top / "sys/fs/cgroup/memory", fields[2], "memory.limit_in_bytes"));
    }
  }
  if (bytes == kNoLimit) {
    return absl::UnavailableError(absl::StrCat("memory of the host: ", root, "proc/meminfo does not tell"));
  }
  return bytes;
}

void LimitHostMemory(int64_t bytes) {
  Limited().SetLimit(bytes);
  c10::SetCPUAllocator(&Limited());
}

absl::Status CheckHostMemory(absl::string_view what, double bytes) {
  const int64_t limit = Limited().limit();
  if (bytes <= static_cast<double>(limit)) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrFormat(
      "%s take %.0f MiB of memory, at most %d MiB may be in use (--max-host-memory-bytes)", what, bytes / (1 << 20),
      limit >> 20));
}

}  // namespace boss::server
