#include "core/io/torch_checkpoint.h"

#include <ATen/ATen.h>
#include <caffe2/serialize/inline_container.h>

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <string_view>
#include <system_error>
#include <tuple>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"
#include "core/io/atomic_file.h"
#include "core/io/printable.h"
#include "core/io/unpickler.h"

namespace boss {
namespace {

constexpr size_t kMaxPickleBytes = size_t{64} << 20;
constexpr char kUnusedBuffer[] = "sigmas";

at::ScalarType StorageType(const std::string& dtype) {
  static constexpr std::pair<std::string_view, at::ScalarType> kTypes[] = {
      {"Double", at::kDouble}, {"Float", at::kFloat}, {"Half", at::kHalf},   {"BFloat16", at::kBFloat16},
      {"Long", at::kLong},     {"Int", at::kInt},     {"Short", at::kShort}, {"Char", at::kChar},
      {"Byte", at::kByte},     {"Bool", at::kBool},
  };
  // Unpickle() lets no other name through.
  return std::find_if(std::begin(kTypes), std::end(kTypes), [&dtype](const auto& type) { return type.first == dtype; })
      ->second;
}

// The records of one file. Its methods throw LibTorch's exceptions besides the errors that they return.
class RecordReader {
 public:
  RecordReader(const std::string& path, uint64_t file_size) : unread_bytes_(file_size), reader_(path) {}

  // Together, records are never larger than their file, because torch.save compresses nothing: only forged sizes are.
  // \error DATA_LOSS if the record is missing or too large.
  absl::StatusOr<std::pair<at::DataPtr, uint64_t>> Read(const std::string& name, uint64_t limit) {
    if (!reader_.hasRecord(name)) return absl::DataLossError(absl::StrCat("the record ", name, " is missing"));
    const uint64_t size = reader_.getRecordSize(name);
    limit = std::min(limit, unread_bytes_);
    if (size > limit)
      return absl::DataLossError(absl::StrCat("the record ", name, ": got ", size, " bytes, expected at most ", limit));
    unread_bytes_ -= size;
    auto [data, read] = reader_.getRecord(name);
    return std::make_pair(std::move(data), static_cast<uint64_t>(read));
  }

  absl::StatusOr<std::string> ReadString(const std::string& name, uint64_t limit) {
    BOSS_ASSIGN_OR_RETURN(const auto record, Read(name, limit));
    return std::string(static_cast<const char*>(record.first.get()), record.second);
  }

  absl::Status CheckByteOrder() {
    constexpr uint64_t kLimit = 16;
    if (!reader_.hasRecord("byteorder")) return absl::OkStatus();
    BOSS_ASSIGN_OR_RETURN(const std::string order, ReadString("byteorder", kLimit));
    if (order != "little") return absl::InvalidArgumentError("the byte order is not little, expected little");
    return absl::OkStatus();
  }

  // A view of the tensor's storage, which is read once however many tensors share it.
  absl::StatusOr<at::Tensor> ReadTensor(const PickleTensor& tensor) {
    BOSS_ASSIGN_OR_RETURN(const at::Tensor storage, ReadStorage(tensor.storage));
    return storage.as_strided(tensor.size, tensor.stride, tensor.offset);
  }

 private:
  absl::StatusOr<at::Tensor> ReadStorage(const PickleStorage& storage) {
    const at::ScalarType type = StorageType(storage.dtype);
    const auto key = std::make_pair(storage.key, type);
    if (const auto found = storages_.find(key); found != storages_.end() && found->second.numel() == storage.numel)
      return found->second;
    const std::string name = absl::StrCat("data/", storage.key);
    BOSS_ASSIGN_OR_RETURN(auto record, Read(name, unread_bytes_));
    int64_t expected = 0;
    if (__builtin_mul_overflow(storage.numel, static_cast<int64_t>(c10::elementSize(type)), &expected) ||
        record.second != static_cast<uint64_t>(expected)) {
      return absl::DataLossError(absl::StrCat("the record ", name, ": got ", record.second, " bytes, expected ",
                                              storage.numel, " of ", c10::toString(type)));
    }
    const auto* bytes = static_cast<const uint8_t*>(record.first.get());
    if (type == at::kBool && std::any_of(bytes, bytes + expected, [](uint8_t byte) { return byte > 1; })) {
      return absl::DataLossError(absl::StrCat("the record ", name, ": a Bool byte is neither 0 nor 1"));
    }
    auto owner = std::make_shared<at::DataPtr>(std::move(record.first));
    at::Tensor tensor = storage.numel == 0
                            ? at::empty({0}, at::TensorOptions(type))
                            : at::from_blob(
                                  owner->get(), {storage.numel}, [owner](void*) {}, at::TensorOptions(type));
    return storages_[key] = std::move(tensor);
  }

  uint64_t unread_bytes_;
  caffe2::serialize::PyTorchStreamReader reader_;
  std::map<std::pair<std::string, at::ScalarType>, at::Tensor> storages_;
};

// The value of a string key, the last one if it occurs again as in Python; null if there is none.
const PickleValue* FindKey(const PickleDict& dict, std::string_view key) {
  for (auto item = dict.items.rbegin(); item != dict.items.rend(); ++item) {
    const std::string* name = item->first->As<std::string>();
    if (name != nullptr && *name == key) return item->second;
  }
  return nullptr;
}

absl::Status ReadModel(const PickleDict& root, RecordReader& records, TorchCheckpoint& checkpoint) {
  const PickleValue* value = FindKey(root, "model");
  const PickleDict* model = value == nullptr ? nullptr : value->As<PickleDict>();
  if (model == nullptr) return absl::DataLossError("the checkpoint has no dictionary \"model\"");
  absl::flat_hash_set<std::string> names;
  for (const auto& [key, item] : model->items) {
    const std::string* name = key->As<std::string>();
    const PickleTensor* tensor = item->As<PickleTensor>();
    if (name == nullptr || tensor == nullptr)
      return absl::DataLossError("\"model\" holds something other than named tensors");
    std::string plain_name(absl::StripPrefix(*name, "module."));
    if (!names.insert(plain_name).second)
      return absl::DataLossError(absl::StrCat("\"model\" holds ", Printable(plain_name), " twice"));
    BOSS_ASSIGN_OR_RETURN(at::Tensor weight, records.ReadTensor(*tensor));
    checkpoint.model.emplace_back(std::move(plain_name), std::move(weight));
  }
  return absl::OkStatus();
}

absl::Status ReadEma(const PickleDict& root, RecordReader& records, TorchCheckpoint& checkpoint) {
  const PickleValue* value = FindKey(root, "ema");
  if (value == nullptr || value->As<std::monostate>() != nullptr) return absl::OkStatus();
  const PickleDict* ema = value->As<PickleDict>();
  const PickleValue* shadow_value = ema == nullptr ? nullptr : FindKey(*ema, "shadow_params");
  const PickleList* shadow = shadow_value == nullptr ? nullptr : shadow_value->As<PickleList>();
  if (shadow == nullptr) return absl::DataLossError("\"ema\" has no list \"shadow_params\"");
  for (const PickleValue* item : shadow->items) {
    const PickleTensor* tensor = item->As<PickleTensor>();
    if (tensor == nullptr) return absl::DataLossError("\"shadow_params\" holds something other than tensors");
    BOSS_ASSIGN_OR_RETURN(at::Tensor weight, records.ReadTensor(*tensor));
    checkpoint.ema.push_back(std::move(weight));
  }
  return absl::OkStatus();
}

absl::StatusOr<TorchCheckpoint> ReadRecords(RecordReader& records) {
  BOSS_RETURN_IF_ERROR(records.CheckByteOrder());
  BOSS_ASSIGN_OR_RETURN(const std::string bytes, records.ReadString("data.pkl", kMaxPickleBytes));
  BOSS_ASSIGN_OR_RETURN(const Pickle pickle, Unpickle(bytes));
  const PickleDict* root = pickle.root().As<PickleDict>();
  if (root == nullptr) return absl::DataLossError("the checkpoint is no dictionary");
  TorchCheckpoint checkpoint;
  BOSS_RETURN_IF_ERROR(ReadModel(*root, records, checkpoint));
  BOSS_RETURN_IF_ERROR(ReadEma(*root, records, checkpoint));
  if (const PickleValue* value = FindKey(*root, "step")) {
    const int64_t* step = value->As<int64_t>();
    if (step == nullptr) return absl::DataLossError("\"step\" is no integer");
    checkpoint.step = *step;
  }
  return checkpoint;
}

}  // namespace

absl::StatusOr<TorchCheckpoint> ReadTorchCheckpoint(const std::string& path) {
  std::error_code error;
  const uint64_t file_size = std::filesystem::file_size(path, error);
  if (error) return ErrnoToStatus(error.value(), "open", path);
  absl::StatusOr<TorchCheckpoint> checkpoint;
  try {
    RecordReader records(path, file_size);
    checkpoint = ReadRecords(records);
  } catch (...) {
    // What LibTorch's zip reader throws says that the file is corrupt, unless memory is short.
    const absl::Status status = TorchExceptionToStatus("read checkpoint", std::current_exception());
    checkpoint = absl::IsResourceExhausted(status) ? status : absl::DataLossError(status.message());
  }
  if (!checkpoint.ok())
    return absl::Status(checkpoint.status().code(), absl::StrCat(path, ": ", checkpoint.status().message()));
  return checkpoint;
}

absl::StatusOr<std::vector<std::pair<std::string, at::Tensor>>> CheckpointWeights(
    const TorchCheckpoint& checkpoint, const std::vector<std::string>& parameter_names, bool raw) {
  absl::flat_hash_map<std::string, at::Tensor> averaged;
  if (!raw && !checkpoint.ema.empty()) {
    if (checkpoint.ema.size() != parameter_names.size()) {
      return absl::DataLossError(absl::StrCat("checkpoint: got ", checkpoint.ema.size(),
                                              " averaged parameters, expected ", parameter_names.size()));
    }
    for (size_t i = 0; i < parameter_names.size(); ++i) averaged[parameter_names[i]] = checkpoint.ema[i];
  }
  absl::flat_hash_set<std::string> missing(parameter_names.begin(), parameter_names.end());
  std::vector<std::pair<std::string, at::Tensor>> weights;
  for (const auto& [name, tensor] : checkpoint.model) {
    missing.erase(name);
    if (name == kUnusedBuffer) continue;
    const auto found = averaged.find(name);
    if (found != averaged.end() && found->second.sizes() != tensor.sizes()) {
      return absl::DataLossError(absl::StrCat("checkpoint, averaged ", Printable(name), ": got shape [",
                                              absl::StrJoin(found->second.sizes(), ", "), "], expected [",
                                              absl::StrJoin(tensor.sizes(), ", "), "]"));
    }
    weights.emplace_back(name, found == averaged.end() ? tensor : found->second);
  }
  if (!missing.empty())
    return absl::DataLossError(absl::StrCat("checkpoint: the parameter ", *missing.begin(), " is missing"));
  return weights;
}

}  // namespace boss
