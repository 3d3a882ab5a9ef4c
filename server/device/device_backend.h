// What a kind of device can do beside running LibTorch's operators: streams, graphs, and saying what it is.
//
// LibTorch's operators look the same on every device. What differs lies behind this interface, so that the server is
// built and tested without CUDA: the CPU's implementation is here, CUDA's is in libboss_cuda.so, which cuda_loader.h
// opens where a card and the CUDA libraries are present.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace boss::server {

// Work that is queued on a stream runs in order. On CUDA it runs beside the host and beside other streams' work, and
// LibTorch's operators go to the calling thread's current stream; on the CPU every operator has run when it returns.
class DeviceStream {
 public:
  virtual ~DeviceStream() = default;

  // From here on the calling thread's operators go to this stream and its device.
  virtual void MakeCurrent() const = 0;
  // Blocks until everything queued on the stream has run. Thread-safe.
  virtual void Synchronize() const = 0;
};

// Recorded device work that runs again with one launch: the same kernels on the same memory. What the work reads and
// writes must stay allocated while the graph lives; the memory that it allocated while it was recorded lives as long as
// the graph does.
class DeviceGraph {
 public:
  virtual ~DeviceGraph() = default;

  // Queues the work on the calling thread's current stream. Graphs that share memory must not run at the same time, and
  // each one's results must be taken before another of them is replayed.
  virtual void Replay() = 0;
};

// Of two streams on one device with work to run, the one with the higher priority gets the free multiprocessors.
enum class StreamPriority { kLow, kHigh };

struct DeviceFacts {
  std::string description;   // the product's name; empty if unknown
  std::string uuid;          // empty if unknown
  int64_t memory_bytes = 0;  // in all; 0 if unknown
  int64_t free_bytes = 0;    // now; 0 if unknown
};

// Stateless. Thread-safe, except that Capture needs the device for itself (see there).
//
// Errors: LibTorch's exceptions leave these methods; callers sit inside GuardTorch (core/base/torch_guard.h).
class DeviceBackend {
 public:
  // Changes with every change of the classes in this header: a libboss_cuda.so of another build is refused.
  static constexpr int kInterfaceVersion = 1;

  virtual ~DeviceBackend() = default;

  // at::kCPU or at::kCUDA.
  virtual at::DeviceType type() const = 0;
  // Devices of this kind, with indices from 0.
  virtual int num_devices() const = 0;
  virtual DeviceFacts Facts(at::Device device) const = 0;

  // Whether two streams' work runs at the same time, so that a thread each makes sense.
  virtual bool has_concurrent_streams() const = 0;
  virtual std::unique_ptr<DeviceStream> NewStream(at::Device device, StreamPriority priority) const = 0;
  // Blocks until everything that the calling thread has queued on `device` has run.
  virtual void SynchronizeCaller(at::Device device) const = 0;

  // Runs `work` on the calling thread's current stream, records what it queues, and returns the recording; null where
  // there are no graphs (then `work` has not run). What `work` computes is there only after the first Replay(). With
  // `shared`, the recording uses the memory of that graph, see DeviceGraph::Replay.
  //
  // `work` must have run before in the same way (libraries set themselves up on first use) and must not wait for the
  // device or copy to or from the host. If it throws, or does what cannot be recorded, this throws and leaves the
  // stream usable. \pre the current stream is one of NewStream(); no other thread uses the device through LibTorch
  // until this returns.
  virtual std::unique_ptr<DeviceGraph> Capture(const std::function<void()>& work, const DeviceGraph* shared) const = 0;
};

// The CPU: one device, whose streams do nothing, and no graphs.
class CpuBackend final : public DeviceBackend {
 public:
  at::DeviceType type() const override { return at::kCPU; }
  int num_devices() const override { return 1; }
  DeviceFacts Facts(at::Device device) const override;
  bool has_concurrent_streams() const override { return false; }
  std::unique_ptr<DeviceStream> NewStream(at::Device device, StreamPriority priority) const override;
  void SynchronizeCaller(at::Device device) const override {}
  std::unique_ptr<DeviceGraph> Capture(const std::function<void()>& work, const DeviceGraph* shared) const override {
    return nullptr;
  }
};

// The tensor on the CPU. From another device it comes with one copy into page-locked memory, and is there when this
// returns; on the CPU it is the tensor itself.
at::Tensor ToHost(const at::Tensor& tensor);

}  // namespace boss::server

// What libboss_cuda.so exports. Returns a new backend, or null if it was built with another kInterfaceVersion.
extern "C" boss::server::DeviceBackend* boss_new_cuda_backend(int interface_version);
