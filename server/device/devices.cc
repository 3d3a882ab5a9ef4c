#include "server/device/devices.h"

#include <ATen/Context.h>

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "core/base/status_macros.h"

namespace boss::server {

absl::StatusOr<DeviceChoice> ParseDeviceChoice(const std::string& text) {
  if (text == "auto") return DeviceChoice{};
  if (text == "cpu") return DeviceChoice{.kind = DeviceChoice::Kind::kCpu};
  DeviceChoice choice{.kind = DeviceChoice::Kind::kCuda};
  if (text == "cuda") return choice;
  for (absl::string_view name : absl::StrSplit(text, ',')) {
    int index = -1;
    if (!absl::ConsumePrefix(&name, "cuda:") || !absl::SimpleAtoi(name, &index) || index < 0 || index > 127 ||
        name != absl::StrCat(index)) {
      return absl::InvalidArgumentError(
          absl::StrCat("device: got \"", text, "\", expected auto, cpu, cuda or cards such as cuda:0,cuda:1"));
    }
    if (std::count(choice.indices.begin(), choice.indices.end(), index) > 0) {
      return absl::InvalidArgumentError(absl::StrCat("device: got \"", text, "\", which names cuda:", index, " twice"));
    }
    choice.indices.push_back(index);
  }
  return choice;
}

absl::StatusOr<Devices> OpenDevices(const DeviceChoice& choice, const CudaOpener& open_cuda) {
  Devices devices;
  if (choice.kind != DeviceChoice::Kind::kCpu) {
    absl::StatusOr<std::unique_ptr<DeviceBackend>> cuda = open_cuda();
    if (cuda.ok()) {
      devices.backend = *std::move(cuda);
    } else if (choice.kind == DeviceChoice::Kind::kCuda) {
      return cuda.status();
    } else {
      devices.without_cuda = cuda.status();
    }
  }
  if (devices.backend == nullptr) devices.backend = std::make_shared<CpuBackend>();
  const at::DeviceType type = devices.backend->type();
  if (type == at::kCPU) {
    devices.devices.push_back(at::Device(at::kCPU));
    return devices;
  }
  const int available = devices.backend->num_devices();
  std::vector<int> indices = choice.indices;
  for (int i = 0; choice.indices.empty() && i < available; ++i) indices.push_back(i);
  for (const int index : indices) {
    if (index >= available) {
      return absl::FailedPreconditionError(
          absl::StrCat("device: got cuda:", index, ", but this machine has ", available, " cards, from cuda:0 on"));
    }
    devices.devices.emplace_back(type, static_cast<at::DeviceIndex>(index));
  }
  return devices;
}

std::string_view PrecisionName(Precision precision) {
  switch (precision) {
    case Precision::kFloat32:
      return "float32";
    case Precision::kTf32:
      return "tf32";
    case Precision::kBfloat16:
      return "bfloat16";
  }
  return "";
}

void SetCudaFloat32Precision(Precision precision) {
  const bool rounds = precision == Precision::kTf32;
  at::globalContext().setFloat32MatmulPrecision(rounds ? "high" : "highest");
  at::globalContext().setAllowTF32CuDNN(rounds);  // LibTorch's own default is true
}

}  // namespace boss::server
