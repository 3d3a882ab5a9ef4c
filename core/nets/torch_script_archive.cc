#include "core/nets/torch_script_archive.h"

#include <ATen/ATen.h>
#include <caffe2/serialize/read_adapter_interface.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/serialization/import.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/base/torch_guard.h"

namespace boss {
namespace {

// A message travels in the headers of a call. The interpreter puts the cause last, behind the places in the code.
constexpr size_t kMaxMessage = 1000;

class MemoryReader final : public caffe2::serialize::ReadAdapterInterface {
 public:
  explicit MemoryReader(std::shared_ptr<const std::string> bytes) : bytes_(std::move(bytes)) {}
  size_t size() const override { return bytes_->size(); }
  size_t read(uint64_t pos, void* buf, size_t n, const char* what) const override {
    if (pos >= bytes_->size()) return 0;
    const size_t count = std::min(n, bytes_->size() - static_cast<size_t>(pos));
    std::memcpy(buf, bytes_->data() + pos, count);
    return count;
  }

 private:
  const std::shared_ptr<const std::string> bytes_;
};

std::string Shortened(const std::string& message) {
  if (message.size() <= kMaxMessage) return message;
  return absl::StrCat("... ", message.substr(message.size() - kMaxMessage));
}

}  // namespace

absl::StatusOr<std::unique_ptr<torch::jit::Module>> LoadTorchScript(const std::shared_ptr<const std::string>& archive) {
  try {
    auto module = std::make_unique<torch::jit::Module>(
        torch::jit::load(std::make_shared<MemoryReader>(archive), at::kCPU, /*load_debug_files=*/false));
    module->eval();
    if (!module->find_method("forward")) return absl::InvalidArgumentError("the TorchScript module has no forward()");
    return module;
  } catch (...) {
    const absl::Status status = TorchExceptionToStatus("loading a TorchScript module", std::current_exception());
    if (absl::IsResourceExhausted(status)) return status;
    return absl::DataLossError(Shortened(std::string(status.message())));
  }
}

at::Tensor CallTorchScript(const torch::jit::Module& module, std::vector<c10::IValue> positional,
                           const std::unordered_map<std::string, c10::IValue>& named,
                           const std::vector<int64_t>& shape) {
  c10::IValue result;
  try {
    result = module.get_method("forward")(std::move(positional), named);
  } catch (const c10::OutOfMemoryError&) {
    throw;
  } catch (const std::exception& error) {
    const auto* const torch_error = dynamic_cast<const c10::Error*>(&error);
    const std::string message = torch_error != nullptr ? torch_error->what_without_backtrace() : error.what();
    // The interpreter wraps what an operator throws.
    const bool out_of_memory =
        absl::StrContains(message, "out of memory") || absl::StrContains(message, "allocate memory");
    TORCH_CHECK_WITH(OutOfMemoryError, !out_of_memory, "the TorchScript module: ", Shortened(message));
    TORCH_CHECK(false, "the TorchScript module: ", Shortened(message));
  }
  TORCH_CHECK_VALUE(result.isTensor(), "the TorchScript module returned ", result.tagKind(), ", expected a tensor");
  const at::Tensor tensor = result.toTensor();
  TORCH_CHECK_VALUE(tensor.sizes() == shape, "the TorchScript module returned the shape ", tensor.sizes(),
                    ", expected ", at::IntArrayRef(shape));
  return tensor.to(at::kFloat);
}

}  // namespace boss
