// Finds CUDA while the program runs: the same binary serves with and without it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/device/device_backend.h"

namespace boss::server {

// Shared objects in the order in which they are opened, each with the places to try, the first one first. A name
// without a slash is looked for by the system's loader.
struct CudaLibraries {
  std::vector<std::string> driver;      // NVIDIA's driver; without it nothing else is opened
  std::vector<std::string> torch_cuda;  // LibTorch's CUDA kernels, which register themselves
  std::vector<std::string> boss_cuda;   // the server's own part, see device_backend.h

  // libcuda.so.1; libtorch_cuda.so, in the folder of the LibTorch that is in use and by the loader; libboss_cuda.so,
  // beside the program, in ../lib from there and by the loader.
  static CudaLibraries Default();
};

// Opens them and returns CUDA's backend, with at least one device. To be called before LibTorch is first asked about
// CUDA in any way: what it finds then, it remembers. What was opened stays so until the process ends, also where a
// later step fails. \error FAILED_PRECONDITION: what is missing, what was tried, and what the loader said.
absl::StatusOr<std::unique_ptr<DeviceBackend>> OpenCuda(const CudaLibraries& libraries);

}  // namespace boss::server
