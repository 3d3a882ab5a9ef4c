// Any bytes as a pickle. Every value that comes out can be visited, and tensors lie inside their storages.
#include <cstdint>
#include <limits>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "core/io/unpickler.h"
#include "tests/fuzz/check.h"

namespace boss {
namespace {

using testing::FuzzCheck;

// Each product and sum in 128 bits: 64 dimensions of 2^63 do not fit, but the first that is too large ends the loop.
void CheckTensor(const PickleTensor& tensor) {
  FuzzCheck(tensor.storage.numel >= 0, "a storage of a negative size");
  FuzzCheck(tensor.size.size() == tensor.stride.size() && tensor.size.size() <= 64, "sizes and strides do not fit");
  FuzzCheck(tensor.offset >= 0 && tensor.offset <= tensor.storage.numel, "the offset is outside");
  bool empty = false;
  for (const int64_t size : tensor.size) empty = empty || size == 0;
  __int128 numel = 1, last = tensor.offset;
  for (size_t i = 0; i < tensor.size.size(); ++i) {
    FuzzCheck(tensor.size[i] >= 0 && tensor.stride[i] >= 0, "a negative size or stride");
    if (empty) continue;
    numel *= tensor.size[i];
    last += static_cast<__int128>(tensor.size[i] - 1) * tensor.stride[i];
    FuzzCheck(numel <= tensor.storage.numel && last < tensor.storage.numel, "elements are outside");
  }
  FuzzCheck(empty || last < tensor.storage.numel, "the element is outside");
}

// Values may form cycles.
void Visit(const PickleValue& root) {
  absl::flat_hash_set<const PickleValue*> seen = {&root};
  std::vector<const PickleValue*> next = {&root};
  const auto add = [&](const PickleValue* value) {
    FuzzCheck(value != nullptr, "a null value");
    if (seen.insert(value).second) next.push_back(value);
  };
  while (!next.empty()) {
    const PickleValue& value = *next.back();
    next.pop_back();
    if (const auto* list = value.As<PickleList>()) {
      for (const PickleValue* item : list->items) add(item);
    } else if (const auto* tuple = value.As<PickleTuple>()) {
      for (const PickleValue* item : tuple->items) add(item);
    } else if (const auto* dict = value.As<PickleDict>()) {
      for (const auto& [key, item] : dict->items) {
        add(key);
        add(item);
      }
    } else if (const auto* tensor = value.As<PickleTensor>()) {
      CheckTensor(*tensor);
    }
  }
}

}  // namespace
}  // namespace boss

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto pickle = boss::Unpickle({reinterpret_cast<const char*>(data), size});
  if (pickle.ok()) {
    boss::Visit(pickle->root());
  } else {
    boss::testing::FuzzCheckError(pickle.status(), absl::StatusCode::kDataLoss, absl::StatusCode::kInvalidArgument);
  }
  return 0;
}
