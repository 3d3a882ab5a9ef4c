#include "server/rpc/model_import.h"

#include <zlib.h>

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/base/error_details.h"
#include "core/base/status_macros.h"
#include "core/io/atomic_file.h"
#include "core/io/safetensors.h"
#include "core/io/torch_checkpoint.h"
#include "core/nets/factory.h"
#include "server/store/sha256.h"

namespace boss::server {
namespace {

// The metadata entry of a safetensors file that describes its network.
constexpr char kArchitectureMetadata[] = "architecture";

absl::Status CheckAlias(const std::string& alias) {
  if (alias.empty()) return absl::OkStatus();
  if (alias == "latest" || std::all_of(alias.begin(), alias.end(), absl::ascii_isdigit)) {
    return FieldError("start.alias", absl::StrCat("\"", alias, "\" cannot be set"));
  }
  return CheckName("alias", alias);
}

absl::StatusOr<NamedTensors> CheckpointTensors(const TorchCheckpoint& checkpoint, const std::string& architecture_json,
                                               bool raw) {
  BOSS_ASSIGN_OR_RETURN(const std::unique_ptr<VelocityModel> network, CreateModel(architecture_json, /*seed=*/0));
  std::vector<std::string> names;
  for (const auto& [name, parameter] : network->Parameters()) names.push_back(name);
  return CheckpointWeights(checkpoint, names, raw);
}

}  // namespace

ModelImport::ModelImport(ModelStore& store, ImportOptions options, std::unique_ptr<StagingFolder> folder)
    : store_(store),
      options_(std::move(options)),
      folder_(std::move(folder)),
      path_(absl::StrCat(folder_->path(), "/upload")),
      file_(path_, std::ios::binary) {}

absl::StatusOr<std::unique_ptr<ModelImport>> ModelImport::Begin(ModelStore& store, ImportOptions options,
                                                                int64_t max_bytes) {
  BOSS_RETURN_IF_ERROR(CheckName("model", options.name));
  BOSS_RETURN_IF_ERROR(CheckAlias(options.alias));
  if (options.total_bytes < 1)
    return FieldError("start.total_bytes", absl::StrCat("must be at least 1, got ", options.total_bytes));
  if (options.total_bytes > max_bytes) {
    return WithField(absl::ResourceExhaustedError(absl::StrCat("start.total_bytes: got ", options.total_bytes,
                                                               ", at most ", max_bytes, " are taken")),
                     "start.total_bytes");
  }
  BOSS_ASSIGN_OR_RETURN(std::unique_ptr<StagingFolder> folder, store.NewStagingFolder());
  return std::unique_ptr<ModelImport>(new ModelImport(store, std::move(options), std::move(folder)));
}

absl::Status ModelImport::Append(int64_t offset, std::string_view data, std::optional<uint32_t> crc32) {
  if (offset != received_bytes_) {
    return FieldError("chunk.offset", absl::StrCat("got ", offset, ", expected ", received_bytes_,
                                                   ": chunks are in order without gaps"));
  }
  if (static_cast<int64_t>(data.size()) > options_.total_bytes - received_bytes_) {
    return FieldError("chunk.data", absl::StrCat("goes beyond total_bytes, ", options_.total_bytes));
  }
  if (crc32) {
    const auto actual =
        static_cast<uint32_t>(::crc32(0, reinterpret_cast<const Bytef*>(data.data()), static_cast<uInt>(data.size())));
    if (actual != *crc32) {
      return absl::DataLossError(absl::StrCat("chunk at offset ", offset, ": got CRC-32 ", absl::Hex(actual),
                                              ", expected ", absl::Hex(*crc32)));
    }
  }
  if (!file_.write(data.data(), static_cast<std::streamsize>(data.size()))) {
    return absl::ResourceExhaustedError(absl::StrCat("cannot write the upload after ", received_bytes_, " bytes"));
  }
  received_bytes_ += static_cast<int64_t>(data.size());
  return absl::OkStatus();
}

absl::StatusOr<std::string> ModelImport::Architecture(const std::string& from_file) const {
  if (!options_.architecture_json.empty()) return options_.architecture_json;
  if (!from_file.empty()) return from_file;
  const absl::StatusOr<VersionKey> newest = store_.Resolve(options_.name);
  if (!newest.ok())
    return FieldError("start.architecture_json",
                      "is required: neither the file nor an older version describes the network");
  BOSS_ASSIGN_OR_RETURN(const VersionInfo info, store_.GetVersion(*newest));
  return info.manifest.architecture_json;
}

absl::StatusOr<VersionKey> ModelImport::Publish() {
  if (received_bytes_ != options_.total_bytes) {
    return absl::DataLossError(
        absl::StrCat("the upload is truncated: got ", received_bytes_, " bytes, expected ", options_.total_bytes));
  }
  file_.close();
  if (!file_) return absl::ResourceExhaustedError("cannot write the upload");
  BOSS_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path_));
  if (!options_.sha256.empty()) {
    const std::string digest = Sha256Hex(bytes);
    if (!absl::EqualsIgnoreCase(digest, options_.sha256)) {
      return absl::DataLossError(absl::StrCat("the upload has SHA-256 ", digest, ", expected ", options_.sha256));
    }
  }
  Manifest manifest;
  manifest.label_names = options_.label_names;
  manifest.description = options_.description;
  NamedTensors weights;
  const bool is_zip = absl::StartsWith(bytes, "PK");
  if (options_.format == ImportFormat::kTorchCheckpoint || (options_.format == ImportFormat::kDetect && is_zip)) {
    BOSS_ASSIGN_OR_RETURN(manifest.architecture_json, Architecture(""));
    BOSS_ASSIGN_OR_RETURN(const TorchCheckpoint checkpoint, ReadTorchCheckpoint(path_));
    BOSS_ASSIGN_OR_RETURN(weights, CheckpointTensors(checkpoint, manifest.architecture_json, options_.raw_weights));
  } else {
    BOSS_ASSIGN_OR_RETURN(Safetensors contents, ParseSafetensors(bytes));
    BOSS_ASSIGN_OR_RETURN(manifest.architecture_json, Architecture(contents.metadata[kArchitectureMetadata]));
    weights = std::move(contents.tensors);
  }
  BOSS_ASSIGN_OR_RETURN(const VersionKey key, store_.Publish(options_.name, std::move(manifest), weights));
  if (!options_.alias.empty()) BOSS_RETURN_IF_ERROR(store_.SetAlias(key.name, options_.alias, key.version));
  return key;
}

}  // namespace boss::server
