// How versions come into the store, and how their weights become models.
#include <ATen/ATen.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"
#include "core/finetune/lora.h"
#include "core/io/atomic_file.h"
#include "core/io/safetensors.h"
#include "core/nets/torch_script_model.h"
#include "server/store/manifest_json.h"
#include "server/store/model_store.h"
#include "server/store/sha256.h"
#include "server/store/store_files.h"

namespace boss::server {
namespace {

// Shares the bytes with the tensors.
absl::StatusOr<Safetensors> ParseWeights(absl::string_view what, std::string bytes) {
  absl::StatusOr<Safetensors> contents = ParseSafetensors(std::make_shared<const std::string>(std::move(bytes)));
  if (!contents.ok())
    return absl::Status(contents.status().code(), absl::StrCat(what, ": ", contents.status().message()));
  return contents;
}

// A network of that architecture whose weights are still undefined, for weights like these. One that would need far
// more than there are is refused; one that needs somewhat more is built, to say which are missing.
absl::StatusOr<std::unique_ptr<VelocityModel>> EmptyModel(const Manifest& manifest, const Safetensors& weights) {
  return CreateModel(manifest.architecture_json, /*seed=*/std::nullopt, MaxWeightsFor(weights.tensors));
}

bool SameDecoder(const Manifest& a, const Manifest& b) {
  const auto ours = DecoderConfig::FromArchitecture(a.architecture_json);
  const auto theirs = DecoderConfig::FromArchitecture(b.architecture_json);
  return ours.ok() && theirs.ok() && *ours == *theirs;
}

}  // namespace

StagingFolder::~StagingFolder() { files_.RemoveAll(path_).IgnoreError(); }  // Open() removes what is left.

absl::StatusOr<std::unique_ptr<StagingFolder>> ModelStore::NewStagingFolder() {
  auto folder = std::make_unique<StagingFolder>(files_, NewStagingPath());
  BOSS_RETURN_IF_ERROR(files_.CreateFolders(folder->path()));
  return folder;
}

absl::StatusOr<std::unique_ptr<VelocityModel>> ModelStore::BuildModel(const Manifest& manifest,
                                                                      const Safetensors& weights) const {
  if (!manifest.adapter) {
    BOSS_ASSIGN_OR_RETURN(std::unique_ptr<VelocityModel> model, EmptyModel(manifest, weights));
    BOSS_RETURN_IF_ERROR(LoadWeights(*model, weights.tensors));
    return model;
  }
  // A base is older than its adapter, so this ends.
  absl::StatusOr<std::unique_ptr<VelocityModel>> model = LoadVersionModel(manifest.adapter->base);
  if (absl::IsNotFound(model.status())) return NoBase(*manifest.adapter);
  BOSS_RETURN_IF_ERROR(model.status());
  BOSS_RETURN_IF_ERROR(LoadAdapter(**model, weights));
  BOSS_RETURN_IF_ERROR(GuardTorch("merging an adapter", [&]() -> absl::Status {
    (*model)->MergeLora();
    return absl::OkStatus();
  }));
  return model;
}

absl::Status ModelStore::CheckFit(const Manifest& manifest, const Safetensors& weights) const {
  if (manifest.adapter) return CheckAdapterFit(*manifest.adapter, weights);
  // Nothing is copied: a model of a gigabyte is checked in no memory.
  BOSS_ASSIGN_OR_RETURN(const std::unique_ptr<VelocityModel> model, EmptyModel(manifest, weights));
  const absl::Status status = CheckWeights(*model, weights.tensors);
  // Weights that do not fit are the caller's mistake here, not a loss.
  return absl::IsDataLoss(status) ? absl::InvalidArgumentError(status.message()) : status;
}

absl::StatusOr<Safetensors> ModelStore::ReadWeights(const VersionKey& key, const Manifest& manifest) const {
  const std::string file = WeightsFile(manifest);
  BOSS_ASSIGN_OR_RETURN(std::string bytes, ReadVersionFile(key, manifest, file));
  return ParseWeights(absl::StrCat(key.ToString(), ": ", file), std::move(bytes));
}

absl::StatusOr<std::unique_ptr<VelocityModel>> ModelStore::LoadVersionModel(const VersionKey& key) const {
  BOSS_ASSIGN_OR_RETURN(const Manifest manifest, ManifestOf(key));
  if (WeightsFile(manifest) == kTorchScriptFile) return LoadArchive(key, manifest);
  BOSS_ASSIGN_OR_RETURN(const Safetensors weights, ReadWeights(key, manifest));
  absl::StatusOr<std::unique_ptr<VelocityModel>> model = BuildModel(manifest, weights);
  if (!model.ok())
    return absl::Status(model.status().code(), absl::StrCat(key.ToString(), ": ", model.status().message()));
  return model;
}

absl::Status ModelStore::CarryOver(const std::string& parent, const StagingFolder& staged, Manifest& manifest) const {
  const absl::StatusOr<VersionKey> key = Resolve(parent);
  if (!key.ok()) return absl::OkStatus();
  const absl::StatusOr<Manifest> parent_manifest = ManifestOf(*key);
  if (!parent_manifest.ok()) return absl::OkStatus();
  for (const auto& [file, digest] : parent_manifest->sha256) {
    const bool is_own = file == kWeightsFile || file == kAdapterFile || file == kTorchScriptFile;
    // Another description may have no decoder, or one that this does not suit.
    const bool is_other_decoder = file == kDecoderFile && !SameDecoder(manifest, *parent_manifest);
    if (is_own || is_other_decoder || manifest.sha256.contains(file)) continue;
    const absl::Status whole = ReadVersionFile(*key, *parent_manifest, file).status();
    if (absl::IsDataLoss(whole) || absl::IsNotFound(whole)) return absl::OkStatus();
    BOSS_RETURN_IF_ERROR(whole);
    BOSS_RETURN_IF_ERROR(
        LinkOrCopy(files_, absl::StrCat(VersionFolder(*key), "/", file), absl::StrCat(staged.path(), "/", file)));
    manifest.sha256[file] = digest;
  }
  return absl::OkStatus();
}

absl::StatusOr<VersionKey> ModelStore::PublishFolder(absl::string_view name, Manifest manifest,
                                                     const StagingFolder& staged,
                                                     const std::vector<StoredScheduleSet>& sets, VersionUse* use) {
  for (const NativeSchedule& native : manifest.schedules) {
    if (native.schedule.solver == SolverKind::kMultistep) BOSS_RETURN_IF_ERROR(CheckFitted(native.schedule));
  }
  manifest.create_time = clock_.Now();
  BOSS_RETURN_IF_ERROR(
      WriteFileAtomically(absl::StrCat(staged.path(), "/", kManifestFile), ManifestToJson(manifest), files_));
  BOSS_RETURN_IF_ERROR(files_.SyncFolder(staged.path()));
  absl::StatusOr<VersionKey> key;
  {
    absl::MutexLock lock(&mutex_);
    key = MoveIntoPlace(name, staged, sets, Version{std::move(manifest), FolderSize(files_, staged.path()), {}});
    if (key.ok() && use != nullptr) *use = VersionUse(uses_, *key, "just published");
  }
  if (key.ok()) CollectGarbageOf(name);
  return key;
}

absl::StatusOr<VersionKey> ModelStore::MoveIntoPlace(absl::string_view name, const StagingFolder& staged,
                                                     const std::vector<StoredScheduleSet>& sets, Version version) {
  BOSS_RETURN_IF_ERROR(CheckQuota(StoredBytes(), version.size_bytes));
  if (version.manifest->adapter && !FindPublished(version.manifest->adapter->base).ok())
    return NoBase(*version.manifest->adapter);
  BOSS_RETURN_IF_ERROR(files_.CreateFolders(ModelFolder(name)));
  BOSS_RETURN_IF_ERROR(CheckFolder(files_, ModelFolder(name)));
  VersionKey key{std::string(name), 1};
  if (const auto model = models_.find(name); model != models_.end()) {
    BOSS_RETURN_IF_ERROR(model->second.unreadable);
    key.version = model->second.next_version;
  }
  // Nothing is where this goes, unless an earlier failure could not be undone.
  absl::StatusOr<FileInfo> occupied = files_.Stat(VersionFolder(key));
  while (occupied.ok()) {
    ++key.version;
    occupied = files_.Stat(VersionFolder(key));
  }
  if (!absl::IsNotFound(occupied.status())) return occupied.status();

  // Schedules without a version mean nothing: they go first.
  BOSS_RETURN_IF_ERROR(files_.RemoveAll(ScheduleFolder(key)));
  const auto publish = [&]() -> absl::Status {
    for (const StoredScheduleSet& set : sets) {
      BOSS_ASSIGN_OR_RETURN(const std::string file, WriteScheduleSet(key, set));
      version.schedule_sets[file] = std::make_shared<const StoredScheduleSet>(set);
    }
    BOSS_RETURN_IF_ERROR(files_.Rename(staged.path(), VersionFolder(key)));
    return files_.SyncFolder(ModelFolder(name));
  };
  const absl::Status status = publish();
  if (!status.ok()) {
    // Whether the rename is on the disk is not known: it must not come to light later.
    files_.Rename(VersionFolder(key), staged.path()).IgnoreError();
    files_.RemoveAll(ScheduleFolder(key)).IgnoreError();
    return status;
  }
  NameOwnRows(*version.manifest, key);
  Model& model = models_[key.name];
  model.versions.insert_or_assign(key.version, std::move(version));
  model.next_version = key.version + 1;
  return key;
}

absl::StatusOr<VersionKey> ModelStore::Publish(absl::string_view name, Manifest manifest, const NamedTensors& weights) {
  return Publish(name, std::move(manifest), Safetensors{weights, {}});
}

absl::StatusOr<VersionKey> ModelStore::Publish(absl::string_view name, Manifest manifest, const Safetensors& weights,
                                               const std::vector<StoredScheduleSet>& sets, const VersionFiles& others,
                                               VersionUse* use) {
  BOSS_RETURN_IF_ERROR(CheckName("model", name));
  BOSS_RETURN_IF_ERROR(CheckFit(manifest, weights));
  Safetensors contents = weights;
  if (manifest.adapter) {
    BOSS_ASSIGN_OR_RETURN(contents, WithBaseMetadata(*manifest.adapter, std::move(contents)));
  }
  BOSS_ASSIGN_OR_RETURN(const SafetensorsLayout layout, SafetensorsLayout::Create(contents));
  return PublishWeights(
      name, std::move(manifest), static_cast<int64_t>(layout.file_size()),
      [&](const std::function<absl::Status(std::string_view)>& append) { return layout.Write(append); }, sets, others,
      use);
}

absl::Status ModelStore::WriteStaged(const StagingFolder& staged, const std::string& file_name, const FileWriter& write,
                                     Manifest& manifest) const {
  Sha256 digest;
  BOSS_RETURN_IF_ERROR(WriteFileAtomically(
      absl::StrCat(staged.path(), "/", file_name),
      [&](WritableFile& file) {
        return write([&](std::string_view piece) {
          digest.Update(absl::string_view(piece.data(), piece.size()));
          return file.Append(piece);
        });
      },
      files_));
  manifest.sha256[file_name] = digest.HexDigest();
  return absl::OkStatus();
}

absl::StatusOr<VersionKey> ModelStore::PublishWeights(absl::string_view name, Manifest manifest, int64_t size,
                                                      const FileWriter& write,
                                                      const std::vector<StoredScheduleSet>& sets,
                                                      const VersionFiles& others, VersionUse* use) {
  BOSS_ASSIGN_OR_RETURN(const std::unique_ptr<StagingFolder> staged, NewStagingFolder());
  for (const auto& [file, contents] : others) size += static_cast<int64_t>(contents.size());
  BOSS_RETURN_IF_ERROR(CheckQuota(Totals().bytes, size));
  BOSS_RETURN_IF_ERROR(CheckDisk(size, /*reserve=*/0));
  manifest.sha256.clear();
  BOSS_RETURN_IF_ERROR(WriteStaged(*staged, WeightsFile(manifest), write, manifest));
  for (const auto& [file, contents] : others) {
    const std::string_view bytes(contents.data(), contents.size());
    BOSS_RETURN_IF_ERROR(WriteStaged(
        *staged, file, [&](const auto& append) { return append(bytes); }, manifest));
  }
  if (!manifest.parent.empty()) BOSS_RETURN_IF_ERROR(CarryOver(manifest.parent, *staged, manifest));
  return PublishFolder(name, std::move(manifest), *staged, sets, use);
}

absl::StatusOr<VersionKey> ModelStore::ImportFolder(const std::string& folder, absl::string_view name) {
  BOSS_RETURN_IF_ERROR(CheckName("model", name));
  BOSS_ASSIGN_OR_RETURN(const std::string text, files_.ReadFile(absl::StrCat(folder, "/", kManifestFile)));
  BOSS_ASSIGN_OR_RETURN(Manifest manifest, ManifestFromJson(text));
  BOSS_ASSIGN_OR_RETURN(const std::vector<std::string> entries, files_.ListFolder(folder));
  BOSS_ASSIGN_OR_RETURN(const std::unique_ptr<StagingFolder> staged, NewStagingFolder());
  const std::string weights_file = WeightsFile(manifest);
  std::map<std::string, std::string> digests;
  int64_t total_bytes = 0;
  for (const std::string& file : entries) {
    const bool is_archive = absl::EndsWith(file, ".torchscript");
    if (!(is_archive || absl::EndsWith(file, ".safetensors")) || !CheckName("file", file).ok()) continue;
    if (is_archive) BOSS_RETURN_IF_ERROR(CheckTorchScriptAllowed(file));
    BOSS_ASSIGN_OR_RETURN(std::string bytes, files_.ReadFile(absl::StrCat(folder, "/", file)));
    digests[file] = Sha256Hex(bytes);
    const auto expected = manifest.sha256.find(file);
    if (expected != manifest.sha256.end() && expected->second != digests[file]) {
      return absl::DataLossError(
          absl::StrCat(file, ": its SHA-256 is ", digests[file], ", the manifest says ", expected->second));
    }
    total_bytes += static_cast<int64_t>(bytes.size());
    BOSS_RETURN_IF_ERROR(CheckQuota(Totals().bytes, total_bytes));
    BOSS_RETURN_IF_ERROR(CheckDisk(static_cast<int64_t>(bytes.size()), /*reserve=*/0));
    BOSS_RETURN_IF_ERROR(WriteFileAtomically(absl::StrCat(staged->path(), "/", file), bytes, files_));
    if (file == weights_file && is_archive) {
      const auto archive = std::make_shared<const std::string>(std::move(bytes));
      BOSS_RETURN_IF_ERROR(LoadTorchScriptModel(manifest.architecture_json, archive).status());
    } else if (file == weights_file) {
      BOSS_ASSIGN_OR_RETURN(const Safetensors weights, ParseWeights(file, std::move(bytes)));
      BOSS_RETURN_IF_ERROR(BuildModel(manifest, weights).status());
    }
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
      if (set.create_time == absl::UnixEpoch()) set.create_time = clock_.Now();
      sets.push_back(std::move(set));
    }
  }
  return PublishFolder(name, std::move(manifest), *staged, sets, /*use=*/nullptr);
}

}  // namespace boss::server
