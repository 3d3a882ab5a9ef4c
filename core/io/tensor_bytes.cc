#include "core/io/tensor_bytes.h"

#include <ATen/ATen.h>

#include <cstdint>
#include <cstring>

namespace boss {

at::Tensor ViewOrCopy(std::string_view bytes, at::IntArrayRef sizes, at::ScalarType type,
                      const std::shared_ptr<const std::string>& owner) {
  const at::TensorOptions options = at::TensorOptions(type).device(at::kCPU);
  const bool aligned = reinterpret_cast<uintptr_t>(bytes.data()) % c10::elementSize(type) == 0;
  if (owner && aligned && !bytes.empty()) {
    return at::from_blob(
        const_cast<char*>(bytes.data()), sizes, [owner](void*) {}, options);
  }
  at::Tensor tensor = at::empty(sizes, options);
  if (!bytes.empty()) std::memcpy(tensor.mutable_data_ptr(), bytes.data(), bytes.size());
  return tensor;
}

}  // namespace boss
