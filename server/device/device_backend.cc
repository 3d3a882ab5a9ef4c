#include "server/device/device_backend.h"

#include <ATen/ATen.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "server/device/host_memory.h"

namespace boss::server {
namespace {

class CpuStream final : public DeviceStream {
 public:
  void MakeCurrent() const override {}
  void Synchronize() const override {}
};

// Empty if the system does not tell.
std::string ProcessorName() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    const size_t colon = line.find(':');
    if (absl::StartsWith(line, "model name") && colon != std::string::npos) {
      return std::string(absl::StripAsciiWhitespace(absl::string_view(line).substr(colon + 1)));
    }
  }
  return "";
}

// 0 if the system does not tell.
int64_t PagesToBytes(int name) {
  const int64_t pages = sysconf(name), page_bytes = sysconf(_SC_PAGE_SIZE);
  return pages > 0 && page_bytes > 0 ? pages * page_bytes : 0;
}

}  // namespace

DeviceFacts CpuBackend::Facts(at::Device device) const {
  const int64_t memory_bytes = HostMemoryBytes().value_or(0);
  // The machine may have more than this container is given.
  return {.description = ProcessorName(),
          .memory_bytes = memory_bytes,
          .free_bytes = std::min(PagesToBytes(_SC_AVPHYS_PAGES), memory_bytes)};
}

std::unique_ptr<DeviceStream> CpuBackend::NewStream(at::Device device, StreamPriority priority) const {
  return std::make_unique<CpuStream>();
}

at::Tensor ToHost(const at::Tensor& tensor) {
  if (tensor.is_cpu()) return tensor;
  at::Tensor host = at::empty(tensor.sizes(), tensor.options().device(at::kCPU).pinned_memory(true));
  host.copy_(tensor);  // waits
  return host;
}

}  // namespace boss::server
