// A pickle read as data: Python's built-in containers and scalars, and tensors as torch.save describes them.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"

namespace boss {

struct PickleValue;

struct PickleList {
  std::vector<const PickleValue*> items;
};
struct PickleTuple {
  std::vector<const PickleValue*> items;
};
struct PickleDict {
  std::vector<std::pair<const PickleValue*, const PickleValue*>> items;  // in file order; a key may occur again
};
// A name that the pickle imports. Only those that Unpickle() allows get this far.
struct PickleGlobal {
  std::string name;  // "module.name"
};
// The bytes of one or more tensors, in a record of their own.
struct PickleStorage {
  std::string dtype;  // "Float" for torch.FloatStorage, ...
  std::string key;    // of the record data/KEY
  int64_t numel = 0;
};
// Every element lies inside the storage, and there are at most storage.numel elements.
struct PickleTensor {
  PickleStorage storage;
  int64_t offset = 0;           // elements
  std::vector<int64_t> size;    // at most 64 dimensions
  std::vector<int64_t> stride;  // elements, not negative
};

struct PickleValue {
  std::variant<std::monostate, bool, int64_t, double, std::string, PickleList, PickleTuple, PickleDict, PickleGlobal,
               PickleStorage,
               PickleTensor>
      value;  // std::monostate is None

  // The value if it is of this type, otherwise null.
  template <typename T>
  const T* As() const {
    return std::get_if<T>(&value);
  }
};

// Owns all values; they point at each other and may form cycles. Moves keep pointers valid.
class Pickle {
 public:
  Pickle() = default;
  Pickle(Pickle&&) = default;
  Pickle& operator=(Pickle&&) = default;

  const PickleValue& root() const { return *root_; }

 private:
  friend class Unpickler;
  std::deque<PickleValue> values_;
  const PickleValue* root_ = nullptr;
};

// Protocols 2 to 5, as far as torch.save uses them. Time and memory are linear in bytes.size(). The allowed globals are
// collections.OrderedDict, torch._utils._rebuild_tensor_v2, torch._utils._rebuild_parameter, torch's storage types and
// argparse.Namespace, which is read as an empty dictionary; none of them is run. Thread-safe. \error DATA_LOSS for a corrupt or truncated pickle; INVALID_ARGUMENT naming a
// global or opcode that is not allowed, or if there are more than 2^20 values; each size and
// stride of a tensor counts as one.
absl::StatusOr<Pickle> Unpickle(std::string_view bytes);

}  // namespace boss
