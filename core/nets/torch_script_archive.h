// TorchScript modules in memory. Loading one and calling it run code that came with it: callers answer for that.
#pragma once

#include <ATen/core/ivalue.h>

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"

namespace torch::jit {
struct Module;
}

namespace boss {

// In evaluation mode, on the CPU. \error DATA_LOSS if the bytes are no TorchScript archive; INVALID_ARGUMENT if the
// module has no forward(); RESOURCE_EXHAUSTED.
absl::StatusOr<std::unique_ptr<torch::jit::Module>> LoadTorchScript(const std::shared_ptr<const std::string>& archive);

// forward(), which must return a tensor of `shape`. What the module throws comes as c10::Error with the end of its
// message, an answer of another kind or shape as c10::ValueError, and a lack of memory as c10::OutOfMemoryError, so
// that GuardTorch (core/base/torch_guard.h) tells them apart.
at::Tensor CallTorchScript(const torch::jit::Module& module, std::vector<c10::IValue> positional,
                           const std::unordered_map<std::string, c10::IValue>& named,
                           const std::vector<int64_t>& shape);

}  // namespace boss
