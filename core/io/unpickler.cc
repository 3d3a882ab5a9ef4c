#include "core/io/unpickler.h"

#include <bit>
#include <cstddef>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "core/io/pickle_torch.h"

namespace boss {
namespace {

constexpr size_t kMaxValues = size_t{1} << 20;
}  // namespace

// One pass over the opcodes, as Python's pickle module documents them (Lib/pickletools.py).
class Unpickler {
 public:
  explicit Unpickler(std::string_view bytes) : size_(bytes.size()), rest_(bytes) {}

  absl::StatusOr<Pickle> Run() && {
    while (!stopped_) {
      BOSS_ASSIGN_OR_RETURN(const uint64_t opcode, Unsigned(1));
      absl::Status status = Execute(static_cast<uint8_t>(opcode));
      if (!status.ok())
        return absl::Status(status.code(),
                            absl::StrCat("pickle at byte ", size_ - rest_.size(), ": ", status.message()));
    }
    return std::move(pickle_);
  }

 private:
  absl::Status Execute(uint8_t opcode) {
    switch (opcode) {
      case 0x80:
        return Protocol();
      case 0x95:
        return Unsigned(8).status();  // FRAME: its length only helps buffered readers
      case '.':
        return Stop();

      case 'N':
        return Push(std::monostate());
      case 0x88:
        return Push(true);
      case 0x89:
        return Push(false);
      case 'K':
        return PushUnsigned(1);  // BININT1
      case 'M':
        return PushUnsigned(2);  // BININT2
      case 'J':
        return PushSigned(4);  // BININT
      case 0x8a:
        return Long();  // LONG1
      case 'G':
        return Float();  // BINFLOAT
      case 0x8c:
        return String(1);  // SHORT_BINUNICODE
      case 'X':
        return String(4);  // BINUNICODE
      case 0x8d:
        return String(8);  // BINUNICODE8

      case '(':
        marks_.push_back(stack_.size());
        return absl::OkStatus();
      case '}':
        return Push(PickleDict());
      case ']':
        return Push(PickleList());
      case ')':
        return Push(PickleTuple());
      case 't':
        return MarkedTuple();
      case 0x85:
        return Tuple(1);
      case 0x86:
        return Tuple(2);
      case 0x87:
        return Tuple(3);
      case 'a':
        return Append(/*marked=*/false);
      case 'e':
        return Append(/*marked=*/true);
      case 's':
        return SetItems(/*marked=*/false);
      case 'u':
        return SetItems(/*marked=*/true);

      case 'q':
        return Put(1);  // BINPUT
      case 'r':
        return Put(4);  // LONG_BINPUT
      case 0x94:
        return Memoize(static_cast<uint32_t>(memo_.size()));  // MEMOIZE
      case 'h':
        return Get(1);  // BINGET
      case 'j':
        return Get(4);  // LONG_BINGET

      case 'c':
        return Global();
      case 0x93:
        return StackGlobal();
      case 'R':
        return Reduce();
      case 0x81:
        return NewObject();  // NEWOBJ
      case 'b':
        return Build();
      case 'Q':
        return PersistentId();
    }
    return absl::InvalidArgumentError(absl::StrFormat("the opcode 0x%02x is not allowed", opcode));
  }

  // Reading.

  absl::StatusOr<std::string_view> Take(uint64_t count) {
    if (count > rest_.size()) {
      return absl::DataLossError(
          absl::StrCat("pickle is truncated: got ", rest_.size(), " more bytes, expected ", count));
    }
    const std::string_view taken = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return taken;
  }

  absl::StatusOr<uint64_t> Unsigned(int bytes) {
    BOSS_ASSIGN_OR_RETURN(const std::string_view taken, Take(bytes));
    uint64_t value = 0;
    for (int i = bytes - 1; i >= 0; --i) value = value << 8 | static_cast<uint8_t>(taken[i]);
    return value;
  }

  absl::StatusOr<std::string> Line() {
    const size_t end = rest_.find('\n');
    if (end == std::string_view::npos) return absl::DataLossError("pickle is truncated: a line has no end");
    std::string line(rest_.substr(0, end));
    rest_.remove_prefix(end + 1);
    return line;
  }

  // The stack.

  // `parts`: what the value holds besides itself, other than parts of the pickle or values of their own.
  template <typename T>
  absl::Status Push(T value, size_t parts = 0) {
    num_values_ += 1 + parts;
    if (num_values_ > kMaxValues) {
      return absl::InvalidArgumentError(absl::StrCat("got more than ", kMaxValues, " values"));
    }
    pickle_.values_.push_back(PickleValue{std::move(value)});
    stack_.push_back(&pickle_.values_.back());
    return absl::OkStatus();
  }

  size_t Base() const { return marks_.empty() ? 0 : marks_.back(); }

  // The top value; not beyond the last mark.
  absl::StatusOr<PickleValue*> Top() {
    if (stack_.size() <= Base()) return absl::DataLossError("the stack is empty");
    return stack_.back();
  }

  absl::StatusOr<PickleValue*> Pop() {
    BOSS_ASSIGN_OR_RETURN(PickleValue * top, Top());
    stack_.pop_back();
    return top;
  }

  absl::StatusOr<std::vector<const PickleValue*>> PopCount(size_t count) {
    if (stack_.size() < Base() + count) return absl::DataLossError("the stack is empty");
    std::vector<const PickleValue*> items(stack_.end() - static_cast<ptrdiff_t>(count), stack_.end());
    stack_.resize(stack_.size() - count);
    return items;
  }

  // Everything above the last mark, and the mark.
  absl::StatusOr<std::vector<const PickleValue*>> PopToMark() {
    if (marks_.empty()) return absl::DataLossError("there is no mark");
    BOSS_ASSIGN_OR_RETURN(auto items, PopCount(stack_.size() - marks_.back()));
    marks_.pop_back();
    return items;
  }

  // Opcodes.

  absl::Status Protocol() {
    BOSS_ASSIGN_OR_RETURN(const uint64_t version, Unsigned(1));
    if (version < 2 || version > 5)
      return absl::InvalidArgumentError(absl::StrCat("got protocol ", version, ", expected 2 to 5"));
    return absl::OkStatus();
  }

  absl::Status Stop() {
    BOSS_ASSIGN_OR_RETURN(pickle_.root_, Pop());
    stopped_ = true;
    return absl::OkStatus();
  }

  absl::Status PushUnsigned(int bytes) {
    BOSS_ASSIGN_OR_RETURN(const uint64_t value, Unsigned(bytes));
    return Push(static_cast<int64_t>(value));
  }

  absl::Status PushSigned(int bytes) {
    BOSS_ASSIGN_OR_RETURN(const uint64_t value, Unsigned(bytes));
    const int unused = 64 - 8 * bytes;
    return Push(static_cast<int64_t>(value << unused) >> unused);
  }

  absl::Status Long() {
    BOSS_ASSIGN_OR_RETURN(const uint64_t bytes, Unsigned(1));
    if (bytes > 8)
      return absl::InvalidArgumentError(absl::StrCat("got an integer of ", bytes, " bytes, expected at most 8"));
    if (bytes == 0) return Push(int64_t{0});
    return PushSigned(static_cast<int>(bytes));
  }

  absl::Status Float() {
    BOSS_ASSIGN_OR_RETURN(const std::string_view taken, Take(8));
    uint64_t bits = 0;  // the one big-endian number of the format
    for (const char byte : taken) bits = bits << 8 | static_cast<uint8_t>(byte);
    return Push(std::bit_cast<double>(bits));
  }

  absl::Status String(int length_bytes) {
    BOSS_ASSIGN_OR_RETURN(const uint64_t length, Unsigned(length_bytes));
    BOSS_ASSIGN_OR_RETURN(const std::string_view text, Take(length));
    return Push(std::string(text));
  }

  absl::Status Tuple(size_t count) {
    BOSS_ASSIGN_OR_RETURN(auto items, PopCount(count));
    return Push(PickleTuple{std::move(items)});
  }

  absl::Status MarkedTuple() {
    BOSS_ASSIGN_OR_RETURN(auto items, PopToMark());
    return Push(PickleTuple{std::move(items)});
  }

  absl::Status Append(bool marked) {
    BOSS_ASSIGN_OR_RETURN(const auto items, marked ? PopToMark() : PopCount(1));
    BOSS_ASSIGN_OR_RETURN(PickleValue * top, Top());
    auto* list = std::get_if<PickleList>(&top->value);
    if (list == nullptr) return absl::DataLossError("an item is appended to something other than a list");
    list->items.insert(list->items.end(), items.begin(), items.end());
    return absl::OkStatus();
  }

  absl::Status SetItems(bool marked) {
    BOSS_ASSIGN_OR_RETURN(const auto items, marked ? PopToMark() : PopCount(2));
    BOSS_ASSIGN_OR_RETURN(PickleValue * top, Top());
    auto* dict = std::get_if<PickleDict>(&top->value);
    if (dict == nullptr || items.size() % 2 != 0)
      return absl::DataLossError("items are set in something other than a dictionary");
    for (size_t i = 0; i < items.size(); i += 2) dict->items.emplace_back(items[i], items[i + 1]);
    return absl::OkStatus();
  }

  absl::Status Memoize(uint32_t index) {
    BOSS_ASSIGN_OR_RETURN(memo_[index], Top());
    return absl::OkStatus();
  }

  absl::Status Put(int index_bytes) {
    BOSS_ASSIGN_OR_RETURN(const uint64_t index, Unsigned(index_bytes));
    return Memoize(static_cast<uint32_t>(index));
  }

  absl::Status Get(int index_bytes) {
    BOSS_ASSIGN_OR_RETURN(const uint64_t index, Unsigned(index_bytes));
    const auto found = memo_.find(static_cast<uint32_t>(index));
    if (found == memo_.end()) return absl::DataLossError(absl::StrCat("the memo has no entry ", index));
    stack_.push_back(found->second);
    return absl::OkStatus();
  }

  absl::Status PushGlobal(const std::string& module, const std::string& name) {
    std::string global = absl::StrCat(module, ".", name);
    BOSS_RETURN_IF_ERROR(CheckGlobal(global));
    return Push(PickleGlobal{std::move(global)});
  }

  absl::Status Global() {
    BOSS_ASSIGN_OR_RETURN(const std::string module, Line());
    BOSS_ASSIGN_OR_RETURN(const std::string name, Line());
    return PushGlobal(module, name);
  }

  absl::Status StackGlobal() {
    BOSS_ASSIGN_OR_RETURN(const auto items, PopCount(2));
    const std::string* module = items[0]->As<std::string>();
    const std::string* name = items[1]->As<std::string>();
    if (module == nullptr || name == nullptr) return absl::DataLossError("the name of a global is no string");
    return PushGlobal(*module, *name);
  }

  absl::Status Reduce() {
    BOSS_ASSIGN_OR_RETURN(const auto items, PopCount(2));
    const PickleGlobal* function = items[0]->As<PickleGlobal>();
    const PickleTuple* arguments = items[1]->As<PickleTuple>();
    if (function == nullptr || arguments == nullptr)
      return absl::DataLossError("something other than an allowed global is called");
    BOSS_ASSIGN_OR_RETURN(PickleValue result, CallGlobal(*function, *arguments));
    // A call of a few bytes can repeat a tensor of many dimensions.
    const PickleTensor* tensor = result.As<PickleTensor>();
    const size_t parts = tensor == nullptr ? 0 : tensor->size.size() + tensor->stride.size();
    return Push(std::move(result.value), parts);
  }

  absl::Status NewObject() {
    BOSS_ASSIGN_OR_RETURN(const auto items, PopCount(2));
    const PickleGlobal* type = items[0]->As<PickleGlobal>();
    const PickleTuple* arguments = items[1]->As<PickleTuple>();
    if (type == nullptr || arguments == nullptr)
      return absl::DataLossError("an object of something other than an allowed global is made");
    BOSS_ASSIGN_OR_RETURN(PickleValue object, boss::NewObject(*type, *arguments));
    return Push(std::move(object.value));
  }

  // Attributes of a dictionary, such as the _metadata of a state dict, hold no weights.
  absl::Status Build() {
    BOSS_RETURN_IF_ERROR(Pop().status());
    BOSS_ASSIGN_OR_RETURN(const PickleValue* top, Top());
    if (top->As<PickleDict>() == nullptr)
      return absl::DataLossError("attributes are set on something other than a dictionary");
    return absl::OkStatus();
  }

  absl::Status PersistentId() {
    BOSS_ASSIGN_OR_RETURN(const PickleValue* id, Pop());
    BOSS_ASSIGN_OR_RETURN(PickleValue storage, StorageFromPersistentId(*id));
    return Push(std::move(storage.value));
  }

  const size_t size_;
  std::string_view rest_;
  Pickle pickle_;
  size_t num_values_ = 0;
  std::vector<PickleValue*> stack_;
  std::vector<size_t> marks_;  // heights of the stack
  absl::flat_hash_map<uint32_t, PickleValue*> memo_;
  bool stopped_ = false;
};

absl::StatusOr<Pickle> Unpickle(std::string_view bytes) { return Unpickler(bytes).Run(); }

}  // namespace boss
