#include "server/rpc/model_import.h"

#include <zlib.h>

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/error_details.h"
#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"
#include "core/finetune/lora.h"
#include "core/io/safetensors.h"
#include "core/io/torch_checkpoint.h"
#include "core/nets/architecture.h"
#include "core/nets/factory.h"
#include "server/rpc/import_archives.h"
#include "server/store/sha256.h"
#include "server/store/store_files.h"

namespace boss::server {
namespace {

// The metadata entry of a safetensors file that describes its network.
constexpr char kArchitectureMetadata[] = "architecture";
constexpr size_t kMaxLabels = 64;
constexpr size_t kMaxLabelLength = 63;
constexpr size_t kSha256Digits = 64;

absl::Status CheckAlias(const std::string& alias) {
  if (alias.empty()) return absl::OkStatus();
  BOSS_RETURN_IF_ERROR(CheckName("start.alias", alias));
  if (alias == "latest" || absl::ascii_isdigit(static_cast<unsigned char>(alias.front()))) {
    return FieldError("start.alias", absl::StrCat("\"", alias, "\" cannot be set"));
  }
  return absl::OkStatus();
}

absl::Status CheckLabels(const std::map<std::string, std::string>& labels) {
  if (labels.size() > kMaxLabels) {
    return FieldError("start.labels", absl::StrCat("got ", labels.size(), ", expected at most ", kMaxLabels));
  }
  for (const auto& [key, value] : labels) {
    if (key.empty() || key.size() > kMaxLabelLength || value.size() > kMaxLabelLength) {
      return FieldError("start.labels", absl::StrCat("expected keys of 1 to ", kMaxLabelLength,
                                                     " characters and values of up to ", kMaxLabelLength));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckOptions(const ImportOptions& options, int64_t max_bytes) {
  BOSS_RETURN_IF_ERROR(CheckName("start.model", options.name));
  BOSS_RETURN_IF_ERROR(CheckAlias(options.alias));
  BOSS_RETURN_IF_ERROR(CheckLabels(options.labels));
  if (!options.upload_id.empty()) BOSS_RETURN_IF_ERROR(CheckName("start.upload_id", options.upload_id));
  if (!options.sha256.empty() && (options.sha256.size() != kSha256Digits ||
                                  !std::all_of(options.sha256.begin(), options.sha256.end(), absl::ascii_isxdigit))) {
    return FieldError("start.sha256", absl::StrCat("must be ", kSha256Digits, " hexadecimal digits"));
  }
  if (options.total_bytes < 1)
    return FieldError("start.total_bytes", absl::StrCat("must be at least 1, got ", options.total_bytes));
  if (options.decoder_bytes < 0 || options.decoder_bytes >= options.total_bytes) {
    return FieldError("start.decoder_bytes", absl::StrCat("must be in [0, ", options.total_bytes,
                                                          "), total_bytes, got ", options.decoder_bytes));
  }
  if (options.total_bytes > max_bytes) {
    return WithField(absl::ResourceExhaustedError(absl::StrCat("start.total_bytes: got ", options.total_bytes,
                                                               ", at most ", max_bytes, " are taken")),
                     "start.total_bytes");
  }
  return absl::OkStatus();
}

// Equal for equal options alone: every part stands behind its length.
std::string DigestOf(const ImportOptions& options) {
  Sha256 digest;
  const auto add = [&digest](absl::string_view part) {
    digest.Update(absl::StrCat(part.size(), ":"));
    digest.Update(part);
  };
  add(options.name);
  add(absl::StrCat(static_cast<int>(options.format), ",", options.total_bytes, ",", options.raw_weights, ",",
                   options.validate_only, ",", options.label_names.size(), ",", options.labels.size()));
  add(absl::AsciiStrToLower(options.sha256));
  for (const std::string* part : {&options.architecture_json, &options.alias, &options.description}) add(*part);
  if (!options.adapter_base.empty()) add(options.adapter_base);
  if (options.decoder_bytes > 0) add(absl::StrCat("decoder ", options.decoder_bytes));
  for (const std::string& name : options.label_names) add(name);
  for (const auto& [key, value] : options.labels) {
    add(key);
    add(value);
  }
  return digest.HexDigest();
}

// The version that the upload of this id has published, if any. \error ALREADY_EXISTS if it had another digest.
absl::StatusOr<std::optional<VersionKey>> FindPublished(const ModelStore& store, const std::string& upload_id,
                                                        const std::string& digest) {
  if (upload_id.empty()) return std::nullopt;
  for (const ModelInfo& model : store.ListModels()) {
    const absl::StatusOr<VersionKey> key = store.FindByUpload(model.name, upload_id);
    if (!key.ok()) continue;
    const absl::StatusOr<VersionInfo> info = store.GetVersion(*key);
    if (!info.ok()) continue;  // deleted meanwhile
    if (info->manifest.upload_digest != digest) {
      return WithField(absl::AlreadyExistsError(absl::StrCat("start.upload_id: \"", upload_id, "\" has published ",
                                                             key->ToString(), " from another upload")),
                       "start.upload_id");
    }
    return *key;
  }
  return std::nullopt;
}

absl::StatusOr<Safetensors> CheckpointTensors(const TorchCheckpoint& checkpoint, const std::string& architecture_json,
                                              bool raw, std::vector<std::string>& warnings) {
  BOSS_ASSIGN_OR_RETURN(const std::unique_ptr<VelocityModel> network,
                        CreateModel(architecture_json, /*seed=*/std::nullopt, MaxWeightsFor(checkpoint.model)));
  // Those of the model have names: which are missing or left over is told of them, not of averages that have none.
  BOSS_ASSIGN_OR_RETURN(const NamedTensors named, CheckpointWeights(checkpoint, {}, /*raw=*/true));
  if (const absl::Status fit = CheckWeights(*network, named); !fit.ok())
    return absl::InvalidArgumentError(fit.message());
  std::vector<std::string> parameters;
  for (const auto& [name, parameter] : network->Parameters()) parameters.push_back(name);
  Safetensors weights;
  BOSS_ASSIGN_OR_RETURN(weights.tensors, CheckpointWeights(checkpoint, parameters, raw));
  if (!raw && checkpoint.ema.empty() && checkpoint.named_ema.empty())
    warnings.emplace_back("the checkpoint has no averaged weights: the raw ones are taken");
  std::set<std::string> used;
  for (const auto& [name, tensor] : weights.tensors) used.insert(name);
  std::vector<std::string> dropped;
  for (const auto& [name, tensor] : checkpoint.model) {
    if (!used.contains(name)) dropped.push_back(name);
  }
  if (!dropped.empty())
    warnings.push_back(absl::StrCat("dropped, because no network uses it: ", absl::StrJoin(dropped, ", ")));
  return weights;
}

}  // namespace

absl::StatusOr<int64_t> ModelImport::Query(const Context& context, const ImportOptions& options) {
  BOSS_RETURN_IF_ERROR(CheckOptions(options, context.max_bytes));
  if (options.upload_id.empty()) return FieldError("start.upload_id", "is required for query_upload");
  const std::string digest = DigestOf(options);
  BOSS_ASSIGN_OR_RETURN(const int64_t committed,
                        context.uploads.Query({options.upload_id, digest, options.total_bytes}));
  // Asked afterwards: what has been published in between has no more bytes there.
  BOSS_ASSIGN_OR_RETURN(const auto published, FindPublished(context.store, options.upload_id, digest));
  return published ? options.total_bytes : committed;
}

absl::StatusOr<std::unique_ptr<ModelImport>> ModelImport::Begin(const Context& context, ImportOptions options) {
  BOSS_RETURN_IF_ERROR(CheckOptions(options, context.max_bytes));
  if (options.format == ImportFormat::kTorchScript || IsTorchScript(options.architecture_json)) {
    const absl::Status allowed = context.store.CheckTorchScriptAllowed("start.format");
    if (!allowed.ok()) return WithField(allowed, "start.format");
  }
  if (options.decoder_bytes > 0) {
    const absl::Status allowed = context.store.CheckTorchScriptAllowed("start.decoder_bytes");
    if (!allowed.ok()) return WithField(allowed, "start.decoder_bytes");
  }
  const UploadPlan plan = {options.upload_id, DigestOf(options), options.total_bytes};
  auto import = std::unique_ptr<ModelImport>(new ModelImport(context, std::move(options), plan.digest));
  BOSS_ASSIGN_OR_RETURN(import->published_, FindPublished(context.store, plan.id, plan.digest));
  if (!import->published_) {
    // What was given up must not take the room of what is asked for.
    context.uploads.Sweep();
    int64_t committed = 0;
    if (!plan.id.empty()) {
      BOSS_ASSIGN_OR_RETURN(committed, context.uploads.Query(plan));
    }
    BOSS_RETURN_IF_ERROR(context.store.CheckRoom(plan.total_bytes - committed + context.uploads.PromisedBytes()));
  }
  BOSS_ASSIGN_OR_RETURN(import->upload_, context.uploads.Take(plan));
  // Asked again: an import that was published in between has left nothing to go on with.
  BOSS_ASSIGN_OR_RETURN(import->published_, FindPublished(context.store, plan.id, plan.digest));
  if (import->published_) {
    // Bytes are left if the server ended between the publication and what follows it.
    if (import->upload_->resumed()) BOSS_RETURN_IF_ERROR(import->MoveAlias(*import->published_));
    import->upload_->Remove();
    import->upload_.reset();
  }
  return import;
}

absl::Status ModelImport::Append(int64_t offset, std::string_view data, std::optional<uint32_t> crc32) {
  if (offset != received_bytes()) {
    return FieldError("chunk.offset", absl::StrCat("got ", offset, ", expected ", received_bytes(),
                                                   ": chunks are in order without gaps, from the committed bytes on"));
  }
  if (static_cast<int64_t>(data.size()) > options_.total_bytes - received_bytes()) {
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
  return published_ ? absl::OkStatus() : upload_->Append(data);
}

absl::StatusOr<std::string> ModelImport::Architecture(const std::string& from_file) const {
  if (!options_.architecture_json.empty()) return options_.architecture_json;
  if (!from_file.empty()) return from_file;
  const absl::StatusOr<VersionKey> newest = context_.store.Resolve(options_.name);
  if (!newest.ok())
    return FieldError("start.architecture_json",
                      "is required: neither the file nor an older version describes the network");
  BOSS_ASSIGN_OR_RETURN(const VersionInfo info, context_.store.GetVersion(*newest));
  return info.manifest.architecture_json;
}

absl::StatusOr<std::string> ModelImport::ReadFile() const {
  std::string bytes;
  bytes.reserve(static_cast<size_t>(options_.total_bytes));
  Sha256 digest;
  BOSS_RETURN_IF_ERROR(upload_->Read([&](std::string_view piece) {
    if (!options_.sha256.empty()) digest.Update(absl::string_view(piece.data(), piece.size()));
    bytes += piece;
    return absl::OkStatus();
  }));
  if (options_.sha256.empty()) return bytes;
  const std::string actual = digest.HexDigest();
  if (absl::EqualsIgnoreCase(actual, options_.sha256)) return bytes;
  return absl::DataLossError(absl::StrCat("the upload has SHA-256 ", actual, ", expected ", options_.sha256));
}

absl::StatusOr<ModelImport::Files> ModelImport::ReadFiles() const {
  BOSS_ASSIGN_OR_RETURN(std::string bytes, ReadFile());
  Files files;
  if (options_.decoder_bytes > 0) {
    const size_t model_bytes = bytes.size() - static_cast<size_t>(options_.decoder_bytes);
    files.decoder = std::make_shared<const std::string>(bytes, model_bytes);
    bytes.resize(model_bytes);
  }
  files.model = std::make_shared<const std::string>(std::move(bytes));
  return files;
}

absl::StatusOr<bool> ModelImport::IsArchive(const std::string& model) const {
  const bool may_be = options_.format == ImportFormat::kTorchScript ||
                      (options_.format == ImportFormat::kDetect && absl::StartsWith(model, "PK"));
  if (!may_be) return false;
  BOSS_ASSIGN_OR_RETURN(const std::string architecture_json, Architecture(""));
  if (IsTorchScript(architecture_json)) return true;
  if (options_.format == ImportFormat::kDetect) return false;
  return FieldError("start.architecture_json", "describes no TorchScript module, which start.format says it is");
}

absl::Status ModelImport::CheckDecoder(const std::string& architecture_json) const {
  const bool is_described = HasDecoder(architecture_json);
  if (is_described && options_.decoder_bytes == 0)
    return FieldError("start.decoder_bytes", "is required: the architecture has a decoder");
  if (!is_described && options_.decoder_bytes > 0)
    return FieldError("start.decoder_bytes", "the architecture has no \"decoder\"");
  return absl::OkStatus();
}

absl::StatusOr<Safetensors> ModelImport::ReadWeights(const std::shared_ptr<const std::string>& bytes,
                                                     Manifest& manifest, std::vector<std::string>& warnings) const {
  const bool is_zip = absl::StartsWith(*bytes, "PK");
  if (options_.format == ImportFormat::kTorchCheckpoint || (options_.format == ImportFormat::kDetect && is_zip)) {
    BOSS_ASSIGN_OR_RETURN(manifest.architecture_json, Architecture(""));
    BOSS_ASSIGN_OR_RETURN(const TorchCheckpoint checkpoint, ParseTorchCheckpoint(bytes));
    return CheckpointTensors(checkpoint, manifest.architecture_json, options_.raw_weights, warnings);
  }
  BOSS_ASSIGN_OR_RETURN(Safetensors weights, ParseSafetensors(bytes));
  if (!options_.adapter_base.empty() || IsAdapter(weights)) {
    BOSS_RETURN_IF_ERROR(ReadAdapter(weights, manifest, warnings));
    return weights;
  }
  BOSS_ASSIGN_OR_RETURN(manifest.architecture_json, Architecture(weights.metadata[kArchitectureMetadata]));
  if (options_.raw_weights) warnings.emplace_back("raw_weights says nothing about a safetensors file");
  return weights;
}

absl::Status ModelImport::ReadAdapter(const Safetensors& deltas, Manifest& manifest,
                                      std::vector<std::string>& warnings) const {
  const auto metadata = [&](const char* key) {
    const auto found = deltas.metadata.find(key);
    return found == deltas.metadata.end() ? std::string() : found->second;
  };
  const std::string named = metadata(kAdapterBaseMetadata), digest = metadata(kAdapterBaseDigestMetadata);
  if (options_.adapter_base.empty()) {
    return FieldError("start.adapter_base", absl::StrCat("is required: the file is an adapter",
                                                         named.empty() ? "" : absl::StrCat(", of what was ", named)));
  }
  if (!options_.architecture_json.empty())
    return FieldError("start.architecture_json", "says nothing about an adapter: its base has one");
  BOSS_ASSIGN_OR_RETURN(const VersionKey base_key, context_.store.Resolve(options_.adapter_base));
  BOSS_ASSIGN_OR_RETURN(const VersionInfo base, context_.store.GetVersion(base_key));
  const absl::StatusOr<LoraOptions> lora = AdapterOptions(deltas);
  if (!lora.ok()) return absl::InvalidArgumentError(lora.status().message());
  if (digest.empty()) {
    warnings.push_back(
        absl::StrCat("the file does not say which weights it was made for: taken for those of ", base_key.ToString()));
  } else if (const std::string& actual = base.manifest.sha256.at(WeightsFile(base.manifest)); digest != actual) {
    return WithField(absl::FailedPreconditionError(absl::StrCat("start.adapter_base: ", base_key.ToString(),
                                                                " has weights of SHA-256 ", actual,
                                                                ", expected those of ", named, ", ", digest)),
                     "start.adapter_base");
  }
  manifest.adapter = AdapterInfo{base_key, lora->rank, lora->alpha};
  manifest.parent = base_key.ToString();
  manifest.architecture_json = base.manifest.architecture_json;
  if (manifest.label_names.empty()) manifest.label_names = base.manifest.label_names;
  return absl::OkStatus();
}

absl::Status ModelImport::MoveAlias(const VersionKey& key) const {
  if (options_.alias.empty()) return absl::OkStatus();
  return context_.store.SetAlias(key.name, options_.alias, key.version);
}

absl::StatusOr<ImportResult> ModelImport::CheckAndPublish() const {
  ImportResult result;
  result.committed_bytes = options_.total_bytes;
  Manifest manifest;
  manifest.label_names = options_.label_names;
  manifest.description = options_.description;
  manifest.labels = options_.labels;
  manifest.upload_id = options_.upload_id;
  if (!options_.upload_id.empty()) manifest.upload_digest = digest_;
  BOSS_ASSIGN_OR_RETURN(const Files files, ReadFiles());
  BOSS_ASSIGN_OR_RETURN(const bool is_archive, IsArchive(*files.model));
  Safetensors weights;
  if (is_archive) {
    BOSS_ASSIGN_OR_RETURN(manifest.architecture_json, Architecture(""));
    BOSS_RETURN_IF_ERROR(context_.store.CheckTorchScriptAllowed("start.format"));
  } else {
    BOSS_ASSIGN_OR_RETURN(weights, ReadWeights(files.model, manifest, result.warnings));
  }
  if (!manifest.adapter) BOSS_RETURN_IF_ERROR(CheckDecoder(manifest.architecture_json));
  BOSS_RETURN_IF_ERROR(CheckArchives(manifest.architecture_json, is_archive ? files.model : nullptr, files.decoder));
  if (options_.validate_only) {
    if (!is_archive) BOSS_RETURN_IF_ERROR(context_.store.CheckFit(manifest, weights));
    return result;
  }
  VersionFiles others;
  if (files.decoder != nullptr) others.emplace_back(kDecoderFile, *files.decoder);
  VersionUse use;  // until its alias holds it
  if (is_archive) {
    BOSS_ASSIGN_OR_RETURN(result.version, context_.store.PublishArchive(options_.name, std::move(manifest),
                                                                        *files.model, others, &use));
  } else {
    // What is exported describes itself, an adapter by its base.
    if (!manifest.adapter) weights.metadata[kArchitectureMetadata] = manifest.architecture_json;
    BOSS_ASSIGN_OR_RETURN(result.version, context_.store.Publish(options_.name, std::move(manifest), weights,
                                                                 /*sets=*/{}, others, &use));
  }
  BOSS_RETURN_IF_ERROR(MoveAlias(*result.version));
  return result;
}

absl::StatusOr<ImportResult> ModelImport::Finish() {
  if (published_) return ImportResult{published_, options_.total_bytes, {}};
  if (received_bytes() < options_.total_bytes) {
    return absl::DataLossError(
        absl::StrCat("the upload is truncated: got ", received_bytes(), " bytes, expected ", options_.total_bytes));
  }
  BOSS_RETURN_IF_ERROR(upload_->Seal());
  absl::StatusOr<ImportResult> result = GuardTorch("import", [this] { return CheckAndPublish(); });
  // What is wrong with the file stays wrong; a full disk may have room again.
  if (result.ok() || absl::IsDataLoss(result.status()) || absl::IsInvalidArgument(result.status()) ||
      absl::IsFailedPrecondition(result.status()))
    upload_->Remove();
  return result;
}

}  // namespace boss::server
