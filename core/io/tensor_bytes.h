// Tensors made of a file's bytes.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <string_view>

namespace boss {

// A contiguous tensor on the CPU: a view of `bytes`, which lie in *owner and live as long as the view does; a copy if
// there is no owner or `bytes` are not aligned for `type`. Nobody may write to a view. \pre bytes.size() is that of the
// tensor.
at::Tensor ViewOrCopy(std::string_view bytes, at::IntArrayRef sizes, at::ScalarType type,
                      const std::shared_ptr<const std::string>& owner);

}  // namespace boss
