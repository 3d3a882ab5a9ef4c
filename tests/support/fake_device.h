// A device that behaves like a card as far as the host can tell, and computes on the CPU.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "server/device/device_backend.h"

namespace boss::testing {

class FakeBackend final : public server::DeviceBackend {
 public:
  explicit FakeBackend(at::DeviceType type = at::kCUDA, int num_devices = 1) : type_(type), num_devices_(num_devices) {}

  // Of the calling thread; nullopt where none was made current.
  static std::optional<server::StreamPriority> CurrentStream() { return current_stream_; }

  at::DeviceType type() const override { return type_; }
  int num_devices() const override { return num_devices_; }
  server::DeviceFacts Facts(at::Device device) const override {
    return {.description = "a fake", .uuid = "GPU-0", .memory_bytes = 1 << 30, .free_bytes = 1 << 29};
  }
  bool has_concurrent_streams() const override { return true; }
  std::unique_ptr<server::DeviceStream> NewStream(at::Device device, server::StreamPriority priority) const override {
    return std::make_unique<Stream>(*this, priority);
  }
  void SynchronizeCaller(at::Device device) const override { ++caller_waits; }
  // Records by keeping the work, which is run again at each replay.
  std::unique_ptr<server::DeviceGraph> Capture(const std::function<void()>& work,
                                               const server::DeviceGraph* shared) const override {
    if (before_capture) before_capture();
    work();
    captures_with_shared_memory += shared != nullptr;
    return std::make_unique<Graph>(*this, work);
  }

  std::function<void()> before_capture;  // may throw
  mutable std::atomic<int> caller_waits = 0, training_waits = 0, sampling_waits = 0, replays = 0;
  mutable std::atomic<int> captures_with_shared_memory = 0;

 private:
  class Stream final : public server::DeviceStream {
   public:
    Stream(const FakeBackend& backend, server::StreamPriority priority) : backend_(backend), priority_(priority) {}
    void MakeCurrent() const override { current_stream_ = priority_; }
    void Synchronize() const override {
      ++(priority_ == server::StreamPriority::kLow ? backend_.training_waits : backend_.sampling_waits);
    }

   private:
    const FakeBackend& backend_;
    const server::StreamPriority priority_;
  };

  class Graph final : public server::DeviceGraph {
   public:
    Graph(const FakeBackend& backend, std::function<void()> work) : backend_(backend), work_(std::move(work)) {}
    void Replay() override {
      ++backend_.replays;
      work_();
    }

   private:
    const FakeBackend& backend_;
    const std::function<void()> work_;
  };

  static inline thread_local std::optional<server::StreamPriority> current_stream_;
  const at::DeviceType type_;
  const int num_devices_;
};

}  // namespace boss::testing
