// How versions come into the store, and how their weights become models.
#include <ATen/ATen.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"
#include "core/finetune/lora.h"
#include "core/io/atomic_file.h"
#include "core/io/safetensors.h"
#include "server/store/model_store.h"
#include "server/store/sha256.h"
#include "server/store/store_files.h"

namespace boss::server {
namespace {

absl::StatusOr<Safetensors> ParseWeights(absl::string_view what, const std::string& bytes) {
  absl::StatusOr<Safetensors> contents = ParseSafetensors(bytes);
  if (!contents.ok())
    return absl::Status(contents.status().code(), absl::StrCat(what, ": ", contents.status().message()));
  return contents;
}

std::string WeightsFile(const Manifest& manifest) { return manifest.adapter ? kAdapterFile : kWeightsFile; }

}  // namespace

StagingFolder::~StagingFolder() { files_.RemoveAll(path_).IgnoreError(); }  // Open() removes what is left.

absl::StatusOr<std::unique_ptr<StagingFolder>> ModelStore::NewStagingFolder() {
  int64_t number = 0;
  {
    absl::MutexLock lock(&mutex_);
    number = next_staging_++;
  }
  auto folder = std::make_unique<StagingFolder>(files_, absl::StrCat(data_folder_, "/staging/", number));
  BOSS_RETURN_IF_ERROR(files_.CreateFolders(folder->path()));
  return folder;
}

absl::StatusOr<std::unique_ptr<VelocityModel>> ModelStore::BuildModel(const Manifest& manifest,
                                                                      const Safetensors& weights) const {
  if (!manifest.adapter) {
    BOSS_ASSIGN_OR_RETURN(std::unique_ptr<VelocityModel> model, CreateModel(manifest.architecture_json, /*seed=*/0));
    BOSS_RETURN_IF_ERROR(LoadWeights(*model, weights.tensors));
    return model;
  }
  // A base is older than its adapter, so this ends.
  BOSS_ASSIGN_OR_RETURN(std::unique_ptr<VelocityModel> model, LoadVersionModel(manifest.adapter->base));
  BOSS_RETURN_IF_ERROR(LoadAdapter(*model, weights));
  BOSS_RETURN_IF_ERROR(GuardTorch("merging an adapter", [&]() -> absl::Status {
    model->MergeLora();
    return absl::OkStatus();
  }));
  return model;
}

absl::StatusOr<std::unique_ptr<VelocityModel>> ModelStore::LoadVersionModel(const VersionKey& key) const {
  BOSS_ASSIGN_OR_RETURN(const Manifest manifest, ManifestOf(key));
  const std::string file = WeightsFile(manifest);
  BOSS_ASSIGN_OR_RETURN(std::string bytes, ReadVersionFile(key, manifest, file));
  BOSS_ASSIGN_OR_RETURN(const Safetensors weights, ParseWeights(absl::StrCat(key.ToString(), ": ", file), bytes));
  std::string().swap(bytes);
  absl::StatusOr<std::unique_ptr<VelocityModel>> model = BuildModel(manifest, weights);
  if (!model.ok())
    return absl::Status(model.status().code(), absl::StrCat(key.ToString(), ": ", model.status().message()));
  return model;
}

absl::Status ModelStore::CarryOver(const std::string& parent, const StagingFolder& staged, Manifest& manifest) const {
  const absl::StatusOr<VersionKey> key = Resolve(parent);
  if (!key.ok()) return absl::OkStatus();
  BOSS_ASSIGN_OR_RETURN(const Manifest parent_manifest, ManifestOf(*key));
  for (const auto& [file, digest] : parent_manifest.sha256) {
    if (file == kWeightsFile || file == kAdapterFile || manifest.sha256.contains(file)) continue;
    BOSS_RETURN_IF_ERROR(
        LinkOrCopy(files_, absl::StrCat(VersionFolder(*key), "/", file), absl::StrCat(staged.path(), "/", file)));
    manifest.sha256[file] = digest;
  }
  return absl::OkStatus();
}

absl::StatusOr<VersionKey> ModelStore::PublishFolder(absl::string_view name, Manifest manifest,
                                                     const StagingFolder& staged) {
  manifest.create_time = clock_.Now();
  BOSS_RETURN_IF_ERROR(
      WriteFileAtomically(absl::StrCat(staged.path(), "/", kManifestFile), ManifestToJson(manifest), files_));
  BOSS_RETURN_IF_ERROR(files_.SyncFolder(staged.path()));
  absl::MutexLock lock(&mutex_);
  BOSS_RETURN_IF_ERROR(files_.CreateFolders(ModelFolder(name)));
  Model& model = models_[std::string(name)];
  const VersionKey key{std::string(name), model.next_version};
  BOSS_RETURN_IF_ERROR(files_.Rename(staged.path(), VersionFolder(key)));
  ++model.next_version;
  Version& version = model.versions[key.version];
  NameOwnRows(manifest, key);
  version.manifest = std::move(manifest);
  version.size_bytes = FolderSize(files_, VersionFolder(key));
  BOSS_RETURN_IF_ERROR(files_.SyncFolder(ModelFolder(name)));
  return key;
}

absl::StatusOr<VersionKey> ModelStore::Publish(absl::string_view name, Manifest manifest, const NamedTensors& weights) {
  return Publish(name, std::move(manifest), Safetensors{weights, {}});
}

absl::StatusOr<VersionKey> ModelStore::Publish(absl::string_view name, Manifest manifest, const Safetensors& weights) {
  BOSS_RETURN_IF_ERROR(CheckName("model", name));
  Safetensors contents;
  contents.metadata = weights.metadata;
  for (const auto& [tensor_name, tensor] : weights.tensors) {
    contents.tensors.emplace_back(tensor_name, tensor.detach().to(at::kCPU).contiguous());
  }
  std::sort(contents.tensors.begin(), contents.tensors.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  const absl::StatusOr<std::unique_ptr<VelocityModel>> model = BuildModel(manifest, contents);
  if (!model.ok()) {
    // Weights that do not fit are the caller's mistake here, not a loss.
    const absl::StatusCode code =
        absl::IsDataLoss(model.status()) ? absl::StatusCode::kInvalidArgument : model.status().code();
    return absl::Status(code, model.status().message());
  }
  BOSS_ASSIGN_OR_RETURN(const std::string bytes, SerializeSafetensors(contents));
  BOSS_ASSIGN_OR_RETURN(const std::unique_ptr<StagingFolder> staged, NewStagingFolder());
  const std::string file = WeightsFile(manifest);
  manifest.sha256 = {{file, Sha256Hex(bytes)}};
  BOSS_RETURN_IF_ERROR(WriteFileAtomically(absl::StrCat(staged->path(), "/", file), bytes, files_));
  if (!manifest.parent.empty()) BOSS_RETURN_IF_ERROR(CarryOver(manifest.parent, *staged, manifest));
  return PublishFolder(name, std::move(manifest), *staged);
}

absl::StatusOr<VersionKey> ModelStore::ImportFolder(const std::string& folder, absl::string_view name) {
  BOSS_RETURN_IF_ERROR(CheckName("model", name));
  BOSS_ASSIGN_OR_RETURN(const std::string text, files_.ReadFile(absl::StrCat(folder, "/", kManifestFile)));
  BOSS_ASSIGN_OR_RETURN(Manifest manifest, ManifestFromJson(text));
  BOSS_ASSIGN_OR_RETURN(const std::vector<std::string> entries, files_.ListFolder(folder));
  BOSS_ASSIGN_OR_RETURN(const std::unique_ptr<StagingFolder> staged, NewStagingFolder());
  const std::string weights_file = WeightsFile(manifest);
  std::map<std::string, std::string> digests;
  for (const std::string& file : entries) {
    if (!absl::EndsWith(file, ".safetensors") || !CheckName("file", file).ok()) continue;
    BOSS_ASSIGN_OR_RETURN(const std::string bytes, files_.ReadFile(absl::StrCat(folder, "/", file)));
    digests[file] = Sha256Hex(bytes);
    const auto expected = manifest.sha256.find(file);
    if (expected != manifest.sha256.end() && expected->second != digests[file]) {
      return absl::DataLossError(
          absl::StrCat(file, ": its SHA-256 is ", digests[file], ", the manifest says ", expected->second));
    }
    if (file == weights_file) {
      BOSS_ASSIGN_OR_RETURN(const Safetensors weights, ParseWeights(file, bytes));
      BOSS_RETURN_IF_ERROR(BuildModel(manifest, weights).status());
    }
    BOSS_RETURN_IF_ERROR(WriteFileAtomically(absl::StrCat(staged->path(), "/", file), bytes, files_));
  }
  for (const auto& [file, digest] : manifest.sha256) {
    if (!digests.contains(file))
      return absl::DataLossError(absl::StrCat(folder, ": ", file, " is missing, the manifest lists it"));
  }
  if (!digests.contains(weights_file))
    return absl::NotFoundError(absl::StrCat(folder, ": ", weights_file, " is missing"));
  manifest.sha256 = std::move(digests);

  std::vector<StoredScheduleSet> sets;
  const std::string schedule_folder = absl::StrCat(folder, "/schedules");
  const absl::StatusOr<std::vector<std::string>> schedule_files = files_.ListFolder(schedule_folder);
  if (schedule_files.ok()) {
    for (const std::string& file : *schedule_files) {
      if (!absl::EndsWith(file, ".json")) continue;
      BOSS_ASSIGN_OR_RETURN(const std::string set_text, files_.ReadFile(absl::StrCat(schedule_folder, "/", file)));
      BOSS_ASSIGN_OR_RETURN(StoredScheduleSet set, ScheduleSetFromJson(set_text));
      sets.push_back(std::move(set));
    }
  }
  BOSS_ASSIGN_OR_RETURN(VersionKey key, PublishFolder(name, std::move(manifest), *staged));
  for (const StoredScheduleSet& set : sets) BOSS_RETURN_IF_ERROR(AddScheduleSet(key, set));
  return key;
}

}  // namespace boss::server
