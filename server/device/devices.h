// Which devices a server computes on, and in which precision.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/device/device_backend.h"

namespace boss::server {

struct DeviceChoice {
  enum class Kind { kAuto, kCpu, kCuda };
  Kind kind = Kind::kAuto;   // CUDA if it is there, otherwise the CPU
  std::vector<int> indices;  // of cards; with kCuda; empty: all
};

// "auto", "cpu", "cuda" (every card), or cards by number: "cuda:0,cuda:2". \error INVALID_ARGUMENT.
absl::StatusOr<DeviceChoice> ParseDeviceChoice(const std::string& text);

struct Devices {
  std::shared_ptr<const DeviceBackend> backend;
  std::vector<at::Device> devices;  // of the backend; at least one
  absl::Status without_cuda;        // why kAuto came to the CPU
};

using CudaOpener = std::function<absl::StatusOr<std::unique_ptr<DeviceBackend>>()>;

// The devices of `choice`; `open_cuda` (see OpenCuda) is not called for kCpu. \error as `open_cuda` with kCuda;
// FAILED_PRECONDITION if a card is not there.
absl::StatusOr<Devices> OpenDevices(const DeviceChoice& choice, const CudaOpener& open_cuda);

// What weights and activations are computed in. States of samples and weights in files are float32 with each of them.
enum class Precision {
  kFloat32,
  kTf32,      // CUDA only: float32 whose products round their factors to 10 bits of mantissa
  kBfloat16,  // 7 bits of mantissa, in the network
};

// "float32", "tf32", "bfloat16".
std::string_view PrecisionName(Precision precision);

// Tells LibTorch how CUDA may multiply float32, for the whole process: rounded with kTf32, exactly otherwise.
void SetCudaFloat32Precision(Precision precision);

}  // namespace boss::server
