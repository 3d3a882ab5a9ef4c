// Versions that come with code: TorchScript modules as models and as decoders.
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/nets/torch_script_model.h"
#include "server/store/model_store.h"
#include "server/store/store_files.h"

namespace boss::server {
namespace {

absl::Status Prefixed(const VersionKey& key, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(key.ToString(), ": ", status.message()));
}

}  // namespace

absl::Status ModelStore::CheckTorchScriptAllowed(absl::string_view what) const {
  if (options_.allow_torchscript) return absl::OkStatus();
  return absl::PermissionDeniedError(
      absl::StrCat(what,
                   ": TorchScript modules run code that came with them; this server loads none, unless it is started "
                   "with --allow-torchscript"));
}

absl::StatusOr<std::shared_ptr<const std::string>> ModelStore::ReadArchive(const VersionKey& key,
                                                                           const Manifest& manifest,
                                                                           const std::string& file_name) const {
  BOSS_RETURN_IF_ERROR(CheckTorchScriptAllowed(key.ToString()));
  BOSS_ASSIGN_OR_RETURN(std::string bytes, ReadVersionFile(key, manifest, file_name));
  return std::make_shared<const std::string>(std::move(bytes));
}

absl::StatusOr<std::unique_ptr<VelocityModel>> ModelStore::LoadArchive(const VersionKey& key,
                                                                       const Manifest& manifest) const {
  BOSS_ASSIGN_OR_RETURN(const auto archive, ReadArchive(key, manifest, kTorchScriptFile));
  absl::StatusOr<std::unique_ptr<VelocityModel>> model = LoadTorchScriptModel(manifest.architecture_json, archive);
  if (!model.ok()) return Prefixed(key, model.status());
  return model;
}

absl::StatusOr<std::unique_ptr<Decoder>> ModelStore::LoadVersionDecoder(const VersionKey& key) const {
  BOSS_ASSIGN_OR_RETURN(const Manifest manifest, ManifestOf(key));
  const absl::StatusOr<DecoderConfig> config = DecoderConfig::FromArchitecture(manifest.architecture_json);
  if (absl::IsNotFound(config.status())) return nullptr;
  if (!config.ok()) return Prefixed(key, config.status());
  // A base is older than its adapter, so this ends.
  if (manifest.adapter && !manifest.sha256.contains(kDecoderFile)) return LoadVersionDecoder(manifest.adapter->base);
  if (!manifest.sha256.contains(kDecoderFile))
    return absl::FailedPreconditionError(absl::StrCat(key.ToString(), ": the decoder's file is missing"));
  BOSS_ASSIGN_OR_RETURN(const auto archive, ReadArchive(key, manifest, kDecoderFile));
  absl::StatusOr<std::unique_ptr<Decoder>> decoder = Decoder::Load(*config, archive);
  if (!decoder.ok()) return Prefixed(key, decoder.status());
  return decoder;
}

absl::StatusOr<VersionKey> ModelStore::PublishArchive(absl::string_view name, Manifest manifest,
                                                      absl::string_view archive, const VersionFiles& others,
                                                      VersionUse* use) {
  BOSS_RETURN_IF_ERROR(CheckName("model", name));
  BOSS_RETURN_IF_ERROR(CheckTorchScriptAllowed(name));
  BOSS_RETURN_IF_ERROR(DescribeTorchScript(manifest.architecture_json).status());
  const std::string_view bytes(archive.data(), archive.size());
  return PublishWeights(
      name, std::move(manifest), static_cast<int64_t>(archive.size()),
      [&](const std::function<absl::Status(std::string_view)>& append) { return append(bytes); }, /*sets=*/{}, others,
      use);
}

}  // namespace boss::server
