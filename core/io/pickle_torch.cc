#include "core/io/pickle_torch.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/io/printable.h"

namespace boss {
namespace {

constexpr size_t kMaxDimensions = 64;
// torch.save counts its storages. Every tensor copies the key, so a long one would cost more than its bytes in the
// file.
constexpr size_t kMaxKeyLength = 32;

// What DiT's and SiT's training programs keep their command line in.
constexpr char kNamespace[] = "argparse.Namespace";
constexpr char kOrderedDict[] = "collections.OrderedDict";
constexpr char kRebuildTensor[] = "torch._utils._rebuild_tensor_v2";
constexpr char kRebuildParameter[] = "torch._utils._rebuild_parameter";
constexpr std::array kStorageDtypes = {"Double", "Float", "Half", "BFloat16", "Long",
                                       "Int",    "Short", "Char", "Byte",     "Bool"};

// "Float" for "torch.FloatStorage"; nothing for any other name.
std::optional<std::string> StorageDtype(const std::string& global) {
  for (const char* dtype : kStorageDtypes) {
    if (global == absl::StrCat("torch.", dtype, "Storage")) return dtype;
  }
  return std::nullopt;
}

absl::StatusOr<std::vector<int64_t>> Sizes(const PickleValue& value, const char* what) {
  const PickleTuple* tuple = value.As<PickleTuple>();
  if (tuple == nullptr) return absl::DataLossError(absl::StrCat("tensor: its ", what, " is no tuple"));
  if (tuple->items.size() > kMaxDimensions) {
    return absl::DataLossError(
        absl::StrCat("tensor: got ", tuple->items.size(), " dimensions, expected at most ", kMaxDimensions));
  }
  std::vector<int64_t> sizes;
  for (const PickleValue* item : tuple->items) {
    const int64_t* size = item->As<int64_t>();
    if (size == nullptr || *size < 0) {
      return absl::DataLossError(
          absl::StrCat("tensor: its ", what, " holds something other than non-negative integers"));
    }
    sizes.push_back(*size);
  }
  return sizes;
}

// The invariant of PickleTensor.
absl::Status CheckExtent(const PickleTensor& tensor) {
  if (tensor.size.size() != tensor.stride.size()) {
    return absl::DataLossError(absl::StrCat("tensor: got ", tensor.size.size(), " sizes and ", tensor.stride.size(),
                                            " strides, expected as many"));
  }
  int64_t numel = 1, last = tensor.offset;
  bool empty = false, overflow = false;
  for (size_t i = 0; i < tensor.size.size(); ++i) {
    empty = empty || tensor.size[i] == 0;
    int64_t reach = 0;
    const int64_t size = std::max<int64_t>(tensor.size[i], 1);
    overflow = overflow || __builtin_mul_overflow(numel, size, &numel) ||
               __builtin_mul_overflow(size - 1, tensor.stride[i], &reach) || __builtin_add_overflow(last, reach, &last);
  }
  const int64_t available = tensor.storage.numel;
  const bool inside =
      tensor.offset >= 0 && tensor.offset <= available && (empty || (last < available && numel <= available));
  if (overflow || !inside) {
    return absl::DataLossError(absl::StrCat("tensor: offset, size and stride reach beyond the ", available,
                                            " elements of storage ", Printable(tensor.storage.key)));
  }
  return absl::OkStatus();
}

// (storage, offset, size, stride, requires_grad, backward_hooks[, metadata])
absl::StatusOr<PickleValue> RebuildTensor(const PickleTuple& arguments) {
  const PickleStorage* storage = arguments.items[0]->As<PickleStorage>();
  const int64_t* offset = arguments.items[1]->As<int64_t>();
  if (storage == nullptr || offset == nullptr) return absl::DataLossError("tensor: it has no storage or no offset");
  PickleTensor tensor{.storage = *storage, .offset = *offset};
  BOSS_ASSIGN_OR_RETURN(tensor.size, Sizes(*arguments.items[2], "size"));
  BOSS_ASSIGN_OR_RETURN(tensor.stride, Sizes(*arguments.items[3], "stride"));
  BOSS_RETURN_IF_ERROR(CheckExtent(tensor));
  return PickleValue{std::move(tensor)};
}

}  // namespace

absl::Status CheckGlobal(const std::string& name) {
  if (name == kNamespace || name == kOrderedDict || name == kRebuildTensor || name == kRebuildParameter ||
      StorageDtype(name)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("the global ", Printable(name), " is not allowed"));
}

absl::StatusOr<PickleValue> CallGlobal(const PickleGlobal& function, const PickleTuple& arguments) {
  const size_t count = arguments.items.size();
  if (function.name == kOrderedDict && count == 0) return PickleValue{PickleDict()};
  if (function.name == kRebuildTensor && (count == 6 || count == 7)) return RebuildTensor(arguments);
  if (function.name == kRebuildParameter && count == 3) {
    // (data, requires_grad, backward_hooks)
    if (const PickleTensor* tensor = arguments.items[0]->As<PickleTensor>()) return PickleValue{*tensor};
  }
  return absl::DataLossError(absl::StrCat(function.name, " is called with ", count, " unexpected arguments"));
}

absl::StatusOr<PickleValue> NewObject(const PickleGlobal& type, const PickleTuple& arguments) {
  if (type.name == kNamespace && arguments.items.empty()) return PickleValue{PickleDict()};
  return absl::InvalidArgumentError(absl::StrCat("an object of ", type.name, " is not allowed"));
}

absl::StatusOr<PickleValue> StorageFromPersistentId(const PickleValue& id) {
  const PickleTuple* tuple = id.As<PickleTuple>();
  if (tuple == nullptr || tuple->items.size() != 5) return absl::DataLossError("a persistent id is no tuple of five");
  const std::string* kind = tuple->items[0]->As<std::string>();
  const PickleGlobal* type = tuple->items[1]->As<PickleGlobal>();
  const std::string* key = tuple->items[2]->As<std::string>();
  const int64_t* numel = tuple->items[4]->As<int64_t>();
  const std::optional<std::string> dtype = type == nullptr ? std::nullopt : StorageDtype(type->name);
  if (kind == nullptr || *kind != "storage" || !dtype || key == nullptr || numel == nullptr || *numel < 0) {
    return absl::DataLossError("a persistent id is none of a storage");
  }
  if (key->size() > kMaxKeyLength) {
    return absl::DataLossError(
        absl::StrCat("a storage's key has ", key->size(), " bytes, expected at most ", kMaxKeyLength));
  }
  return PickleValue{PickleStorage{*dtype, *key, *numel}};
}

}  // namespace boss
