#include "server/device/cuda_loader.h"

#include <dlfcn.h>
#include <link.h>

#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/status_macros.h"

namespace boss::server {
namespace {

// The folder of the program; empty if the system does not tell.
std::string ProgramFolder() {
  std::error_code error;
  return std::filesystem::read_symlink("/proc/self/exe", error).parent_path().string();
}

// The folder of the LibTorch that this program has loaded; empty if the loader does not tell.
std::string TorchFolder() {
  void* const handle = dlopen("libtorch_cpu.so", RTLD_LAZY | RTLD_NOLOAD);
  if (handle == nullptr) return "";
  const link_map* map = nullptr;
  const bool found = dlinfo(handle, RTLD_DI_LINKMAP, &map) == 0;
  const std::string folder = found ? std::filesystem::path(map->l_name).parent_path().string() : "";
  dlclose(handle);
  return folder;
}

// The first that can be opened, for good. `flags` as dlopen's.
absl::StatusOr<void*> OpenFirst(const std::string& purpose, const std::vector<std::string>& paths, int flags) {
  std::vector<std::string> errors;
  for (const std::string& path : paths) {
    if (void* const handle = dlopen(path.c_str(), flags); handle != nullptr) return handle;
    const char* const error = dlerror();
    errors.push_back(absl::StrCat(path, " (", error == nullptr ? "unknown error" : error, ")"));
  }
  return absl::FailedPreconditionError(absl::StrCat("no CUDA: cannot open ", purpose, "; tried ",
                                                    errors.empty() ? "nothing" : absl::StrJoin(errors, ", ")));
}

}  // namespace

CudaLibraries CudaLibraries::Default() {
  CudaLibraries libraries;
  libraries.driver = {"libcuda.so.1"};
  if (const std::string folder = TorchFolder(); !folder.empty())
    libraries.torch_cuda.push_back(folder + "/libtorch_cuda.so");
  libraries.torch_cuda.emplace_back("libtorch_cuda.so");
  if (const std::string folder = ProgramFolder(); !folder.empty())
    libraries.boss_cuda = {folder + "/libboss_cuda.so", folder + "/../lib/libboss_cuda.so"};
  libraries.boss_cuda.emplace_back("libboss_cuda.so");
  return libraries;
}

absl::StatusOr<std::unique_ptr<DeviceBackend>> OpenCuda(const CudaLibraries& libraries) {
  BOSS_RETURN_IF_ERROR(OpenFirst("NVIDIA's driver", libraries.driver, RTLD_NOW | RTLD_LOCAL).status());
  // Global, so that its symbols and those of the CUDA libraries below it are there for what is opened next.
  BOSS_RETURN_IF_ERROR(OpenFirst("LibTorch's CUDA library", libraries.torch_cuda, RTLD_NOW | RTLD_GLOBAL).status());
  BOSS_ASSIGN_OR_RETURN(void* const handle,
                        OpenFirst("the server's CUDA library", libraries.boss_cuda, RTLD_NOW | RTLD_LOCAL));
  const auto create = reinterpret_cast<decltype(&boss_new_cuda_backend)>(dlsym(handle, "boss_new_cuda_backend"));
  if (create == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("no CUDA: ", absl::StrJoin(libraries.boss_cuda, ", "), ": no function boss_new_cuda_backend"));
  }
  std::unique_ptr<DeviceBackend> backend(create(DeviceBackend::kInterfaceVersion));
  if (backend == nullptr) {
    return absl::FailedPreconditionError("no CUDA: libboss_cuda.so is of another build of the server");
  }
  if (backend->num_devices() == 0) {
    return absl::FailedPreconditionError(
        "no CUDA: the driver and the libraries are there, but no card that they can use");
  }
  return backend;
}

}  // namespace boss::server
