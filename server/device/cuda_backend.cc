// CUDA's part of the device interface. It is a shared object of its own, libboss_cuda.so, and links nothing of CUDA:
// it is opened after libtorch_cuda.so, which brings every symbol that it needs. Not run on a GPU yet.
#include <ATen/ATen.h>
#include <ATen/core/CachingHostAllocator.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <exception>
#include <string>

#include "server/device/device_backend.h"

namespace boss::server {
namespace {

// LibTorch takes 0 for the least urgent and smaller numbers for more urgent ones.
int CudaPriority(StreamPriority priority) { return priority == StreamPriority::kHigh ? -1 : 0; }

class CudaStream final : public DeviceStream {
 public:
  explicit CudaStream(c10::cuda::CUDAStream stream) : stream_(stream) {}

  void MakeCurrent() const override {
    c10::cuda::set_device(stream_.device_index());
    c10::cuda::setCurrentCUDAStream(stream_);
  }
  void Synchronize() const override { stream_.synchronize(); }

 private:
  const c10::cuda::CUDAStream stream_;
};

class CudaGraph final : public DeviceGraph {
 public:
  explicit CudaGraph(c10::MempoolId_t pool) : pool(pool) {}
  void Replay() override { graph.replay(); }

  const c10::MempoolId_t pool;  // of the device's memory
  at::cuda::CUDAGraph graph;
};

void IgnoreErrors(const std::function<void()>& function) {
  try {
    function();
  } catch (const std::exception&) {
    C10_CUDA_CLEAR_ERROR();
  }
}

// Brings the stream and the allocators back from a recording that failed. CUDAGraph cleans up by itself, except where
// CUDA has found the recording invalid: then capture_end() throws before it tells the allocators.
void AbandonCapture(CudaGraph& recording) {
  const c10::DeviceIndex device = c10::cuda::current_device();
  IgnoreErrors([&] { recording.graph.capture_end(); });
  // Both throw, and nothing more happens, if the allocator has been told.
  IgnoreErrors([&] {
    c10::cuda::CUDACachingAllocator::endAllocateToPool(device, recording.pool);
    c10::cuda::CUDACachingAllocator::get()->releasePool(device, recording.pool);
  });
  IgnoreErrors([&] {
    at::HostAllocator& pinned = *at::getHostAllocator(at::kCUDA);
    pinned.end_allocate_to_pool(recording.pool);
    pinned.release_pool(recording.pool);
  });
}

// "GPU-01234567-89ab-cdef-0123-456789abcdef", as nvidia-smi prints it.
std::string UuidText(const cudaUUID_t& uuid) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text = "GPU-";
  for (size_t i = 0; i < sizeof uuid.bytes; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    const auto byte = static_cast<unsigned char>(uuid.bytes[i]);
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

class CudaBackend final : public DeviceBackend {
 public:
  at::DeviceType type() const override { return at::kCUDA; }

  int num_devices() const override { return c10::cuda::device_count(); }

  DeviceFacts Facts(at::Device device) const override {
    const c10::cuda::CUDAGuard guard(device);
    cudaDeviceProp properties;
    C10_CUDA_CHECK(cudaGetDeviceProperties(&properties, device.index()));
    size_t free = 0, total = 0;
    C10_CUDA_CHECK(cudaMemGetInfo(&free, &total));
    return {.description = properties.name,
            .uuid = UuidText(properties.uuid),
            .memory_bytes = static_cast<int64_t>(total),
            .free_bytes = static_cast<int64_t>(free)};
  }

  bool has_concurrent_streams() const override { return true; }

  std::unique_ptr<DeviceStream> NewStream(at::Device device, StreamPriority priority) const override {
    return std::make_unique<CudaStream>(c10::cuda::getStreamFromPool(CudaPriority(priority), device.index()));
  }

  void SynchronizeCaller(at::Device device) const override {
    c10::cuda::getCurrentCUDAStream(device.index()).synchronize();
  }

  std::unique_ptr<DeviceGraph> Capture(const std::function<void()>& work, const DeviceGraph* shared) const override {
    auto recording = std::make_unique<CudaGraph>(shared != nullptr ? static_cast<const CudaGraph*>(shared)->pool
                                                                   : at::cuda::graph_pool_handle());
    // Blocks that wait to be reused are given back, so that the recording's own memory finds room: while it runs,
    // nothing can be.
    c10::cuda::getCurrentCUDAStream().synchronize();
    c10::cuda::CUDACachingAllocator::emptyCache();
    try {
      // "Thread local": what other threads do with other streams, such as copying weights, is no error.
      recording->graph.capture_begin(recording->pool, cudaStreamCaptureModeThreadLocal);
      work();
      recording->graph.capture_end();
    } catch (...) {
      AbandonCapture(*recording);
      throw;
    }
    return recording;
  }
};

}  // namespace
}  // namespace boss::server

extern "C" __attribute__((visibility("default"))) boss::server::DeviceBackend* boss_new_cuda_backend(
    int interface_version) {
  using boss::server::DeviceBackend;
  return interface_version == DeviceBackend::kInterfaceVersion ? new boss::server::CudaBackend : nullptr;
}
