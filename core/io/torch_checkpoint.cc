#include "core/io/torch_checkpoint.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"
#include "core/io/printable.h"
#include "core/io/tensor_bytes.h"
#include "core/io/unpickler.h"
#include "core/io/zip_archive.h"

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

// The records of one archive, in the folder that its first file is in.
class RecordReader {
 public:
  // Keeps a view of `bytes`, which tensors share if they have an owner. \error as ZipArchive::Open.
  static absl::StatusOr<RecordReader> Open(std::string_view bytes, std::shared_ptr<const std::string> owner) {
    BOSS_ASSIGN_OR_RETURN(ZipArchive archive, ZipArchive::Open(bytes));
    if (archive.names().empty()) return absl::DataLossError("the archive is empty");
    std::string first = archive.names().front();
    const size_t slash = first.find('/');
    if (slash == std::string::npos)
      return absl::DataLossError(absl::StrCat("the record ", Printable(first), " is in no folder"));
    first.resize(slash + 1);
    return RecordReader(std::move(archive), std::move(first), bytes.size(), std::move(owner));
  }

  // \error DATA_LOSS if the record is missing.
  absl::StatusOr<std::string_view> Find(const std::string& name) const {
    const std::optional<std::string_view> record = archive_.Find(folder_ + name);
    if (!record) return absl::DataLossError(absl::StrCat("the record ", Printable(name), " is missing"));
    return *record;
  }

  absl::Status CheckByteOrder() const {
    const std::optional<std::string_view> order = archive_.Find(folder_ + "byteorder");
    if (order && *order != "little") return absl::InvalidArgumentError("the byte order is not little, expected little");
    return absl::OkStatus();
  }

  // A view of the tensor's storage, which is read once however many tensors share it. Throws what LibTorch throws.
  absl::StatusOr<at::Tensor> ReadTensor(const PickleTensor& tensor) {
    BOSS_ASSIGN_OR_RETURN(const at::Tensor storage, ReadStorage(tensor.storage));
    at::Tensor view = storage.as_strided(tensor.size, tensor.stride, tensor.offset);
    // Thousands of tensors may view one storage, and whoever copies them would need that much more memory.
    if (view.nbytes() > view_bytes_left_)
      return absl::DataLossError("the tensors that share storages have more bytes than the file");
    view_bytes_left_ -= view.nbytes();
    return view;
  }

 private:
  RecordReader(ZipArchive archive, std::string folder, size_t file_size, std::shared_ptr<const std::string> owner)
      : archive_(std::move(archive)),
        folder_(std::move(folder)),
        view_bytes_left_(file_size),
        owner_(std::move(owner)) {}

  absl::StatusOr<at::Tensor> ReadStorage(const PickleStorage& storage) {
    const at::ScalarType type = StorageType(storage.dtype);
    if (const auto found = storages_.find(storage.key); found != storages_.end()) {
      const at::Tensor& tensor = found->second;
      if (tensor.scalar_type() == type && tensor.numel() == storage.numel) return tensor;
      return absl::DataLossError(absl::StrCat("the storage ", Printable(storage.key), ": got ", storage.numel, " of ",
                                              c10::toString(type), " after ", tensor.numel(), " of ",
                                              c10::toString(tensor.scalar_type())));
    }
    const std::string name = absl::StrCat("data/", storage.key);
    BOSS_ASSIGN_OR_RETURN(const std::string_view record, Find(name));
    int64_t expected = 0;
    if (__builtin_mul_overflow(storage.numel, static_cast<int64_t>(c10::elementSize(type)), &expected) ||
        record.size() != static_cast<uint64_t>(expected)) {
      return absl::DataLossError(absl::StrCat("the record ", Printable(name), ": got ", record.size(),
                                              " bytes, expected ", storage.numel, " of ", c10::toString(type)));
    }
    if (type == at::kBool &&
        std::any_of(record.begin(), record.end(), [](char byte) { return byte != 0 && byte != 1; })) {
      return absl::DataLossError(absl::StrCat("the record ", Printable(name), ": a Bool byte is neither 0 nor 1"));
    }
    return storages_[storage.key] = ViewOrCopy(record, {storage.numel}, type, owner_);
  }

  ZipArchive archive_;
  std::string folder_;  // with a slash at its end
  size_t view_bytes_left_;
  std::shared_ptr<const std::string> owner_;  // of the bytes; null: tensors are copies
  std::map<std::string, at::Tensor> storages_;
};

// The value of a string key, the last one if it occurs again as in Python; null if there is none.
const PickleValue* FindKey(const PickleDict& dict, std::string_view key) {
  for (auto item = dict.items.rbegin(); item != dict.items.rend(); ++item) {
    const std::string* name = item->first->As<std::string>();
    if (name != nullptr && *name == key) return item->second;
  }
  return nullptr;
}

using NamedWeights = std::vector<std::pair<std::string, at::Tensor>>;

// `what` leads the errors.
absl::StatusOr<NamedWeights> ReadStateDict(absl::string_view what, const PickleDict& dict, RecordReader& records) {
  NamedWeights weights;
  absl::flat_hash_set<std::string> names;
  for (const auto& [key, item] : dict.items) {
    const std::string* name = key->As<std::string>();
    const PickleTensor* tensor = item->As<PickleTensor>();
    if (name == nullptr || tensor == nullptr)
      return absl::DataLossError(absl::StrCat(what, " holds something other than named tensors"));
    std::string plain_name(absl::StripPrefix(*name, "module."));
    if (!names.insert(plain_name).second)
      return absl::DataLossError(absl::StrCat(what, " holds ", Printable(plain_name), " twice"));
    BOSS_ASSIGN_OR_RETURN(at::Tensor weight, records.ReadTensor(*tensor));
    weights.emplace_back(std::move(plain_name), std::move(weight));
  }
  return weights;
}

bool HoldsTensorsAlone(const PickleDict& dict) {
  return !dict.items.empty() && std::all_of(dict.items.begin(), dict.items.end(), [](const auto& item) {
    return item.second->template As<PickleTensor>() != nullptr;
  });
}

absl::Status ReadModel(const PickleDict& root, RecordReader& records, TorchCheckpoint& checkpoint) {
  const PickleValue* value = FindKey(root, "model");
  const PickleDict* model = value == nullptr ? nullptr : value->As<PickleDict>();
  if (model != nullptr) {
    BOSS_ASSIGN_OR_RETURN(checkpoint.model, ReadStateDict("\"model\"", *model, records));
    return absl::OkStatus();
  }
  if (!HoldsTensorsAlone(root))
    return absl::DataLossError("the checkpoint has no dictionary \"model\" and is no dictionary of tensors");
  BOSS_ASSIGN_OR_RETURN(checkpoint.model, ReadStateDict("the checkpoint", root, records));
  return absl::OkStatus();
}

absl::Status ReadEma(const PickleDict& root, RecordReader& records, TorchCheckpoint& checkpoint) {
  const PickleValue* value = FindKey(root, "ema");
  if (value == nullptr || value->As<std::monostate>() != nullptr) return absl::OkStatus();
  const PickleDict* ema = value->As<PickleDict>();
  if (ema != nullptr && HoldsTensorsAlone(*ema)) {
    BOSS_ASSIGN_OR_RETURN(checkpoint.named_ema, ReadStateDict("\"ema\"", *ema, records));
    return absl::OkStatus();
  }
  const PickleValue* shadow_value = ema == nullptr ? nullptr : FindKey(*ema, "shadow_params");
  const PickleList* shadow = shadow_value == nullptr ? nullptr : shadow_value->As<PickleList>();
  if (shadow == nullptr)
    return absl::DataLossError("\"ema\" has no list \"shadow_params\" and is no dictionary of tensors");
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
  BOSS_ASSIGN_OR_RETURN(const std::string_view bytes, records.Find("data.pkl"));
  if (bytes.size() > kMaxPickleBytes) {
    return absl::DataLossError(
        absl::StrCat("the record data.pkl: got ", bytes.size(), " bytes, expected at most ", kMaxPickleBytes));
  }
  BOSS_ASSIGN_OR_RETURN(const Pickle pickle, Unpickle(bytes));
  const PickleDict* root = pickle.root().As<PickleDict>();
  if (root == nullptr) return absl::DataLossError("the checkpoint is no dictionary");
  TorchCheckpoint checkpoint;
  BOSS_RETURN_IF_ERROR(ReadModel(*root, records, checkpoint));
  // A state dict alone may call a weight of its own "ema" or "step".
  if (HoldsTensorsAlone(*root)) return checkpoint;
  BOSS_RETURN_IF_ERROR(ReadEma(*root, records, checkpoint));
  if (const PickleValue* value = FindKey(*root, "step")) {
    const int64_t* step = value->As<int64_t>();
    if (step == nullptr) return absl::DataLossError("\"step\" is no integer");
    checkpoint.step = *step;
  }
  return checkpoint;
}

absl::StatusOr<TorchCheckpoint> Parse(std::string_view bytes, const std::shared_ptr<const std::string>& owner) {
  return GuardTorch("read checkpoint", [&]() -> absl::StatusOr<TorchCheckpoint> {
    BOSS_ASSIGN_OR_RETURN(RecordReader records, RecordReader::Open(bytes, owner));
    return ReadRecords(records);
  });
}

}  // namespace

absl::StatusOr<TorchCheckpoint> ParseTorchCheckpoint(std::string_view bytes) { return Parse(bytes, nullptr); }

absl::StatusOr<TorchCheckpoint> ParseTorchCheckpoint(std::shared_ptr<const std::string> bytes) {
  return Parse(*bytes, bytes);
}

absl::StatusOr<TorchCheckpoint> ReadTorchCheckpoint(const std::string& path, const FileSystem& files) {
  BOSS_ASSIGN_OR_RETURN(std::string bytes, files.ReadFile(path));
  absl::StatusOr<TorchCheckpoint> checkpoint =
      ParseTorchCheckpoint(std::make_shared<const std::string>(std::move(bytes)));
  if (!checkpoint.ok())
    return absl::Status(checkpoint.status().code(), absl::StrCat(path, ": ", checkpoint.status().message()));
  return checkpoint;
}

absl::StatusOr<std::vector<std::pair<std::string, at::Tensor>>> CheckpointWeights(
    const TorchCheckpoint& checkpoint, const std::vector<std::string>& parameter_names, bool raw) {
  absl::flat_hash_map<std::string, at::Tensor> averaged;
  if (!raw) averaged.insert(checkpoint.named_ema.begin(), checkpoint.named_ema.end());
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
    const auto found = averaged.extract(name);
    if (name == kUnusedBuffer) continue;
    if (found && found.mapped().sizes() != tensor.sizes()) {
      return absl::DataLossError(absl::StrCat("checkpoint, averaged ", Printable(name), ": got shape [",
                                              absl::StrJoin(found.mapped().sizes(), ", "), "], expected [",
                                              absl::StrJoin(tensor.sizes(), ", "), "]"));
    }
    weights.emplace_back(name, found ? found.mapped() : tensor);
  }
  if (!missing.empty())
    return absl::DataLossError(absl::StrCat("checkpoint: the parameter ", *missing.begin(), " is missing"));
  if (!averaged.empty())
    return absl::DataLossError(
        absl::StrCat("checkpoint: the averaged ", Printable(averaged.begin()->first), " is not among the weights"));
  return weights;
}

}  // namespace boss
