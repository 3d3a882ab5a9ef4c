#include "core/io/safetensors.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"
#include "core/io/atomic_file.h"
#include "core/io/printable.h"
#include "core/io/safetensors_header.h"
#include "core/io/tensor_bytes.h"

namespace boss {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are copied byte by byte");

constexpr size_t kLengthBytes = 8;
// The limit of the reference implementation of the format.
constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr size_t kHeaderAlignment = 8;

struct DtypeName {
  std::string_view name;
  at::ScalarType type;
};

constexpr DtypeName kDtypes[] = {
    {"F64", at::kDouble}, {"F32", at::kFloat}, {"F16", at::kHalf}, {"BF16", at::kBFloat16}, {"I64", at::kLong},
    {"I32", at::kInt},    {"I16", at::kShort}, {"I8", at::kChar},  {"U8", at::kByte},       {"BOOL", at::kBool},
};

std::optional<at::ScalarType> ParseDtype(std::string_view name) {
  for (const DtypeName& dtype : kDtypes) {
    if (dtype.name == name) return dtype.type;
  }
  return std::nullopt;
}

std::optional<std::string_view> DtypeToName(at::ScalarType type) {
  for (const DtypeName& dtype : kDtypes) {
    if (dtype.type == type) return dtype.name;
  }
  return std::nullopt;
}

// The bytes of a tensor; nothing if a stride or the size would not fit into int64. Dimensions of size 0 count as 1 on
// the way, because strides do.
std::optional<uint64_t> TensorBytes(const std::vector<int64_t>& shape, uint64_t element_size) {
  int64_t extent = static_cast<int64_t>(element_size);
  bool empty = false;
  for (const int64_t size : shape) {
    empty = empty || size == 0;
    if (__builtin_mul_overflow(extent, std::max<int64_t>(size, 1), &extent)) return std::nullopt;
  }
  return empty ? 0 : static_cast<uint64_t>(extent);
}

// Entries must cover the data without gaps or overlap, each as long as its shape and dtype say.
absl::Status CheckLayout(std::vector<SafetensorsEntry>& entries, uint64_t data_size) {
  std::sort(entries.begin(), entries.end(), [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  uint64_t cursor = 0;
  for (const SafetensorsEntry& entry : entries) {
    const std::optional<at::ScalarType> type = ParseDtype(entry.dtype);
    if (!type) {
      return absl::DataLossError(
          absl::StrCat("safetensors tensor \"", Printable(entry.name), "\": unknown dtype ", Printable(entry.dtype)));
    }
    const std::optional<uint64_t> bytes = TensorBytes(entry.shape, c10::elementSize(*type));
    if (!bytes) {
      return absl::DataLossError(absl::StrCat("safetensors tensor \"", Printable(entry.name), "\": shape [",
                                              absl::StrJoin(entry.shape, ", "), "] overflows"));
    }
    if (entry.begin != cursor) {
      return absl::DataLossError(absl::StrCat("safetensors tensor \"", Printable(entry.name), "\" starts at byte ",
                                              entry.begin, ", expected ", cursor,
                                              entry.begin < cursor ? " (overlap)" : " (gap)"));
    }
    if (entry.end < entry.begin || entry.end - entry.begin != *bytes) {
      return absl::DataLossError(absl::StrCat("safetensors tensor \"", Printable(entry.name), "\": got data_offsets [",
                                              entry.begin, ", ", entry.end, "], expected ", *bytes, " bytes for ",
                                              entry.dtype, " [", absl::StrJoin(entry.shape, ", "), "]"));
    }
    cursor = entry.end;
    if (cursor > data_size) {
      return absl::DataLossError(absl::StrCat("safetensors tensor \"", Printable(entry.name), "\" ends at byte ",
                                              cursor, " of the data, got ", data_size, " bytes (truncated)"));
    }
  }
  if (cursor != data_size) {
    return absl::DataLossError(absl::StrCat("safetensors data: got ", data_size, " bytes, expected ", cursor));
  }
  return absl::OkStatus();
}

// A view of `bytes`, which `owner` keeps, or a copy if there is none.
absl::StatusOr<at::Tensor> ReadTensor(const SafetensorsEntry& entry, std::string_view bytes,
                                      const std::shared_ptr<const std::string>& owner) {
  const at::ScalarType type = *ParseDtype(entry.dtype);
  if (type == at::kBool && std::any_of(bytes.begin(), bytes.end(), [](char byte) { return byte != 0 && byte != 1; })) {
    return absl::DataLossError(
        absl::StrCat("safetensors tensor \"", Printable(entry.name), "\": a BOOL byte is neither 0 nor 1"));
  }
  return ViewOrCopy(bytes, entry.shape, type, owner);
}

absl::StatusOr<Safetensors> Parse(std::string_view bytes, const std::shared_ptr<const std::string>& owner) {
  if (bytes.size() < kLengthBytes) {
    return absl::DataLossError(
        absl::StrCat("safetensors: got ", bytes.size(), " bytes, expected at least ", kLengthBytes));
  }
  uint64_t header_size;
  std::memcpy(&header_size, bytes.data(), sizeof(header_size));
  bytes.remove_prefix(kLengthBytes);
  if (header_size > kMaxHeaderBytes || header_size > bytes.size()) {
    return absl::DataLossError(absl::StrCat("safetensors header length: got ", header_size, ", expected at most ",
                                            std::min<uint64_t>(kMaxHeaderBytes, bytes.size())));
  }
  BOSS_ASSIGN_OR_RETURN(SafetensorsHeader header, ParseSafetensorsHeader(bytes.substr(0, header_size)));
  const std::string_view data = bytes.substr(header_size);
  BOSS_RETURN_IF_ERROR(CheckLayout(header.entries, data.size()));

  return GuardTorch("read safetensors", [&]() -> absl::StatusOr<Safetensors> {
    Safetensors contents;
    contents.metadata = std::move(header.metadata);
    contents.tensors.reserve(header.entries.size());
    for (SafetensorsEntry& entry : header.entries) {
      BOSS_ASSIGN_OR_RETURN(at::Tensor tensor,
                            ReadTensor(entry, data.substr(entry.begin, entry.end - entry.begin), owner));
      contents.tensors.emplace_back(std::move(entry.name), std::move(tensor));
    }
    std::sort(contents.tensors.begin(), contents.tensors.end(),
              [](const auto& a, const auto& b) { return a.first < b.first; });
    return contents;
  });
}

}  // namespace

at::Tensor Safetensors::Find(std::string_view name) const {
  for (const auto& [tensor_name, tensor] : tensors) {
    if (tensor_name == name) return tensor;
  }
  return at::Tensor();
}

absl::StatusOr<Safetensors> ParseSafetensors(std::string_view bytes) { return Parse(bytes, nullptr); }

absl::StatusOr<Safetensors> ParseSafetensors(std::shared_ptr<const std::string> bytes) { return Parse(*bytes, bytes); }

absl::StatusOr<Safetensors> ReadSafetensors(const std::string& path, const FileSystem& files) {
  BOSS_ASSIGN_OR_RETURN(const std::string bytes, files.ReadFile(path));
  absl::StatusOr<Safetensors> contents = ParseSafetensors(bytes);
  if (!contents.ok())
    return absl::Status(contents.status().code(), absl::StrCat(path, ": ", contents.status().message()));
  return contents;
}

absl::StatusOr<SafetensorsLayout> SafetensorsLayout::Create(const Safetensors& contents) {
  std::map<std::string, at::Tensor> sorted;
  for (const auto& [name, tensor] : contents.tensors) {
    if (name == "__metadata__")
      return absl::InvalidArgumentError("safetensors: a tensor cannot have the name \"__metadata__\"");
    if (!tensor.defined())
      return absl::InvalidArgumentError(absl::StrCat("safetensors tensor \"", name, "\" is undefined"));
    if (!sorted.emplace(name, tensor).second) {
      return absl::InvalidArgumentError(absl::StrCat("safetensors: the name \"", name, "\" occurs twice"));
    }
  }
  return GuardTorch("write safetensors", [&]() -> absl::StatusOr<SafetensorsLayout> {
    SafetensorsLayout layout;
    nlohmann::json header = nlohmann::json::object();
    if (!contents.metadata.empty()) header["__metadata__"] = contents.metadata;
    uint64_t cursor = 0;
    for (const auto& [name, tensor] : sorted) {
      const std::optional<std::string_view> dtype = DtypeToName(tensor.scalar_type());
      if (!dtype) {
        return absl::InvalidArgumentError(
            absl::StrCat("safetensors tensor \"", name, "\": unsupported dtype ", c10::toString(tensor.scalar_type())));
      }
      const uint64_t end = cursor + static_cast<uint64_t>(tensor.nbytes());
      header[name] = {{"dtype", *dtype}, {"shape", tensor.sizes().vec()}, {"data_offsets", {cursor, end}}};
      cursor = end;
    }
    std::string json;
    try {
      json = header.dump();
    } catch (const nlohmann::json::exception& error) {
      return absl::InvalidArgumentError(absl::StrCat("safetensors: a name or metadata is not UTF-8: ", error.what()));
    }
    json.append((kHeaderAlignment - json.size() % kHeaderAlignment) % kHeaderAlignment, ' ');
    if (json.size() > kMaxHeaderBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("safetensors header: got ", json.size(), " bytes, expected at most ", kMaxHeaderBytes));
    }

    const uint64_t header_size = json.size();
    layout.header_.reserve(kLengthBytes + header_size);
    layout.header_.append(reinterpret_cast<const char*>(&header_size), kLengthBytes);
    layout.header_.append(json);
    layout.data_size_ = cursor;
    for (const auto& [name, tensor] : sorted) layout.tensors_.push_back(tensor);
    return layout;
  });
}

absl::Status SafetensorsLayout::Write(absl::FunctionRef<absl::Status(std::string_view)> sink) const {
  return GuardTorch("write safetensors", [&]() -> absl::Status {
    BOSS_RETURN_IF_ERROR(sink(header_));
    for (const at::Tensor& tensor : tensors_) {
      const at::Tensor plain = tensor.detach().to(at::kCPU).contiguous();
      if (plain.nbytes() == 0) continue;
      BOSS_RETURN_IF_ERROR(sink({static_cast<const char*>(plain.const_data_ptr()), plain.nbytes()}));
    }
    return absl::OkStatus();
  });
}

absl::StatusOr<std::string> SerializeSafetensors(const Safetensors& contents) {
  BOSS_ASSIGN_OR_RETURN(const SafetensorsLayout layout, SafetensorsLayout::Create(contents));
  std::string bytes;
  bytes.reserve(layout.file_size());
  BOSS_RETURN_IF_ERROR(layout.Write([&bytes](std::string_view piece) {
    bytes.append(piece);
    return absl::OkStatus();
  }));
  return bytes;
}

absl::Status WriteSafetensors(const std::string& path, const Safetensors& contents, const FileSystem& files) {
  BOSS_ASSIGN_OR_RETURN(const SafetensorsLayout layout, SafetensorsLayout::Create(contents));
  return WriteFileAtomically(
      path,
      [&layout](WritableFile& file) {
        return layout.Write([&file](std::string_view piece) { return file.Append(piece); });
      },
      files);
}

}  // namespace boss
