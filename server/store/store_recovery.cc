// What a store finds on the disk when it opens: whole versions, what was never finished, and what is corrupt.
#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "core/base/status_macros.h"
#include "core/io/atomic_file.h"
#include "server/log/log.h"
#include "server/store/json_reader.h"
#include "server/store/model_store.h"
#include "server/store/store_files.h"

namespace boss::server {
namespace {

constexpr char kSetAsideFolder[] = "files";

std::string Message(const absl::Status& status) { return std::string(status.message()); }

// What cannot be removed is in nobody's way.
void RemoveUnfinished(const FileSystem& files, const std::string& path) {
  const absl::Status status = files.RemoveAll(path);
  if (status.ok()) {
    LogWarn("removed what was never finished", {{"path", path}});
  } else {
    LogError("cannot remove what was never finished", {{"path", path}, {"error", status}});
  }
}

// Names in a folder that is there or not, without the temporary files that were left, which are removed.
absl::StatusOr<std::vector<std::string>> ListAndTidy(const FileSystem& files, const std::string& folder) {
  const absl::Status there = CheckFolder(files, folder);
  if (absl::IsNotFound(there)) return std::vector<std::string>();
  BOSS_RETURN_IF_ERROR(there);
  BOSS_ASSIGN_OR_RETURN(std::vector<std::string> names, files.ListFolder(folder));
  std::erase_if(names, [&](const std::string& name) {
    if (!IsTemporary(name)) return false;
    RemoveUnfinished(files, absl::StrCat(folder, "/", name));
    return true;
  });
  return names;
}

// Its manifest, if every file that this lists is what it says. \error DATA_LOSS if the version is corrupt;
// FAILED_PRECONDITION for a newer program's; what the system reports.
absl::StatusOr<Manifest> VerifyVersion(const FileSystem& files, const std::string& folder) {
  BOSS_RETURN_IF_ERROR(CheckFolder(files, folder));
  BOSS_ASSIGN_OR_RETURN(const std::string text, ReadStoredFile(files, folder, kManifestFile));
  BOSS_ASSIGN_OR_RETURN(Manifest manifest, ManifestFromJson(text));
  if (!manifest.sha256.contains(WeightsFile(manifest)))
    return absl::DataLossError(absl::StrCat("the manifest does not list ", WeightsFile(manifest)));
  for (const auto& [file, digest] : manifest.sha256) {
    const absl::Status name = CheckName("the manifest's file", file);
    if (!name.ok()) return absl::DataLossError(name.message());
    BOSS_RETURN_IF_ERROR(ReadCheckedFile(files, folder, file, digest).status());
  }
  return manifest;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ModelStore>> ModelStore::Open(const std::string& data_folder, const Clock& clock,
                                                             const FileSystem& files,
                                                             const ModelStoreOptions& options) {
  std::unique_ptr<ModelStore> store(new ModelStore(data_folder, clock, files, options));
  BOSS_RETURN_IF_ERROR(files.CreateFolders(absl::StrCat(data_folder, "/", kModelsFolder)));
  // The folder itself stays: a full disk may have no room for another.
  const std::string staging = absl::StrCat(data_folder, "/", kStagingFolder);
  BOSS_RETURN_IF_ERROR(files.CreateFolders(staging));
  BOSS_ASSIGN_OR_RETURN(const std::vector<std::string> unfinished, files.ListFolder(staging));
  for (const std::string& entry : unfinished) {
    RemoveUnfinished(files, absl::StrCat(staging, "/", entry));
    // What could not be removed is in nobody's way either.
    if (const std::optional<int64_t> number = ParseVersion(entry))
      store->next_staging_ = std::max<int64_t>(store->next_staging_, *number + 1);
  }
  std::set<std::string> names;
  for (const char* folder : {kModelsFolder, kQuarantineFolder}) {
    const std::string path = absl::StrCat(data_folder, "/", folder);
    absl::StatusOr<std::vector<std::string>> entries = files.ListFolder(path);
    if (absl::IsNotFound(entries.status())) continue;
    BOSS_RETURN_IF_ERROR(entries.status());
    for (std::string& entry : *entries) {
      if (CheckName("model", entry).ok()) {
        names.insert(std::move(entry));
      } else {
        LogWarn("ignored what is no model's folder", {{"path", absl::StrCat(path, "/", entry)}});
      }
    }
  }
  absl::MutexLock lock(&store->mutex_);
  for (const std::string& name : names) store->ReadModel(name);
  return store;
}

void ModelStore::ReadModel(const std::string& name) {
  Model& model = models_[name];
  model.unreadable = ReadModelFolder(name, model);
  if (absl::IsDataLoss(model.unreadable) && SetAside(name, ModelFolder(name), "model", model.unreadable))
    model.unreadable = absl::OkStatus();
  ReadQuarantine(name, model);
  ReadSchedules(name, model);
  if (!model.versions.empty()) model.next_version = std::max(model.next_version, model.versions.rbegin()->first + 1);
  if (model.unreadable.ok()) model.unreadable = ReadAliases(name, model);
  if (!model.unreadable.ok())
    LogError("cannot read all of a model", {{"name", name}, {"error", model.unreadable}});
}

absl::Status ModelStore::ReadModelFolder(const std::string& name, Model& model) {
  BOSS_ASSIGN_OR_RETURN(const std::vector<std::string> entries, ListAndTidy(files_, ModelFolder(name)));
  for (const std::string& entry : entries) {
    if (const std::optional<int64_t> number = ParseVersion(entry)) ReadVersion({name, *number}, model);
  }
  const std::string used_folder = absl::StrCat(ModelFolder(name), "/", kUsedFolder);
  BOSS_ASSIGN_OR_RETURN(const std::vector<std::string> used, ListAndTidy(files_, used_folder));
  for (const std::string& entry : used) {
    if (const std::optional<int64_t> number = ParseVersion(entry))
      model.next_version = std::max(model.next_version, *number + 1);
  }
  for (const std::string& entry : used) {  // the highest says it all
    const std::optional<int64_t> number = ParseVersion(entry);
    if (number && *number + 1 < model.next_version)
      files_.RemoveAll(absl::StrCat(used_folder, "/", entry)).IgnoreError();
  }
  return absl::OkStatus();
}

void ModelStore::ReadVersion(const VersionKey& key, Model& model) {
  Version& version = model.versions[key.version];
  model.next_version = std::max(model.next_version, key.version + 1);
  version.size_bytes = FolderSize(files_, VersionFolder(key));
  version.manifest = VerifyVersion(files_, VersionFolder(key));
  if (version.manifest.ok()) {
    NameOwnRows(*version.manifest, key);
    return;
  }
  const absl::Status why = version.manifest.status();
  if (absl::IsDataLoss(why)) return Quarantine(key, version, why);
  // Nothing says that it is corrupt: it stays where it is.
  const std::string message = absl::StrCat(key.ToString(), ": ", Message(why));
  version.manifest =
      absl::IsFailedPrecondition(why) ? absl::FailedPreconditionError(message) : absl::DataLossError(message);
  LogError("cannot read model version", {{"version", key.ToString()}, {"error", why}});
}

void ModelStore::ReadQuarantine(const std::string& name, Model& model) {
  const absl::StatusOr<std::vector<std::string>> entries = ListAndTidy(files_, QuarantineFolder(name));
  if (!entries.ok()) {
    LogError("cannot read the quarantine of a model", {{"name", name}, {"error", entries.status()}});
    return;
  }
  const std::set<std::string> there(entries->begin(), entries->end());
  for (const std::string& entry : *entries) {
    const absl::string_view stem = absl::StripSuffix(entry, ".json");
    const std::optional<int64_t> number = ParseVersion(stem);
    if (!number) continue;
    if (stem != entry) {  // the reason of a version that has gone, or was not moved
      if (!there.contains(std::string(stem)))
        RemoveUnfinished(files_, absl::StrCat(QuarantineFolder(name), "/", entry));
      continue;
    }
    const VersionKey key{name, *number};
    const auto [version, is_new] = model.versions.try_emplace(key.version);
    if (!is_new) {
      if (version->second.manifest.ok())
        LogWarn("a quarantined model version was put back", {{"version", key.ToString()}});
      continue;
    }
    std::string reason = absl::StrCat(key.ToString(), ": found corrupt earlier");
    const absl::StatusOr<std::string> text =
        ReadStoredFile(files_, QuarantineFolder(name), absl::StrCat(entry, ".json"));
    if (text.ok()) {
      const absl::StatusOr<Json> json = ParseJsonObject("reason", *text);
      if (json.ok()) JsonReader(*json, "reason").Optional("reason", reason);
    }
    version->second.manifest = absl::DataLossError(reason);
    version->second.size_bytes = FolderSize(files_, QuarantinedFolder(key));
    LogError("model version is in quarantine", {{"version", key.ToString()}, {"reason", reason}});
  }
}

absl::Status ModelStore::ReadAliases(const std::string& name, Model& model) {
  if (absl::IsNotFound(files_.Stat(absl::StrCat(ModelFolder(name), "/", kAliasesFile)).status()))
    return absl::OkStatus();
  const std::string what = absl::StrCat(name, "/", kAliasesFile);
  std::map<std::string, int64_t, std::less<>> aliases;
  int64_t next_version = 1;
  const absl::Status status = [&]() -> absl::Status {
    BOSS_ASSIGN_OR_RETURN(const std::string text, ReadStoredFile(files_, ModelFolder(name), kAliasesFile));
    BOSS_ASSIGN_OR_RETURN(const Json json, ParseJsonObject(what, text));
    JsonReader reader(json, what);
    reader.Required("aliases", aliases);
    reader.Required("next_version", next_version);
    return reader.status();
  }();
  if (absl::IsDataLoss(status) &&
      SetAside(name, absl::StrCat(ModelFolder(name), "/", kAliasesFile), kAliasesFile, status))
    return absl::OkStatus();
  BOSS_RETURN_IF_ERROR(status);
  model.next_version = std::max(model.next_version, next_version);
  std::erase_if(aliases, [&](const auto& alias) { return !model.versions.contains(alias.second); });
  model.aliases = std::move(aliases);
  return absl::OkStatus();
}

void ModelStore::ReadSchedules(const std::string& name, Model& model) {
  const std::string folder = absl::StrCat(ModelFolder(name), "/", kSchedulesFolder);
  const absl::StatusOr<std::vector<std::string>> entries = ListAndTidy(files_, folder);
  if (absl::IsDataLoss(entries.status())) SetAside(name, folder, kSchedulesFolder, entries.status());
  if (!entries.ok()) return;
  for (const std::string& entry : *entries) {
    const std::optional<int64_t> number = ParseVersion(entry);
    if (!number) continue;
    const VersionKey key{name, *number};
    const auto version = model.versions.find(*number);
    // Unless something of the model could not be read: then the version may be there after all.
    if (version == model.versions.end()) {
      if (model.unreadable.ok()) RemoveUnfinished(files_, ScheduleFolder(key));
      continue;
    }
    if (!version->second.manifest.ok()) continue;
    const absl::StatusOr<std::vector<std::string>> sets = ListAndTidy(files_, ScheduleFolder(key));
    if (absl::IsDataLoss(sets.status()))
      SetAside(name, ScheduleFolder(key), absl::StrCat(kSchedulesFolder, "-", entry), sets.status());
    if (!sets.ok()) continue;
    for (const std::string& file : *sets) {
      if (absl::EndsWith(file, ".json")) ReadScheduleSet(key, file, version->second);
    }
  }
}

void ModelStore::ReadScheduleSet(const VersionKey& key, const std::string& file, Version& version) {
  const absl::StatusOr<StoredScheduleSet> set = [&]() -> absl::StatusOr<StoredScheduleSet> {
    BOSS_ASSIGN_OR_RETURN(const std::string text, ReadStoredFile(files_, ScheduleFolder(key), file));
    return ScheduleSetFromJson(text);
  }();
  if (set.ok()) {
    version.schedule_sets[file] = std::make_shared<const StoredScheduleSet>(*set);
  } else if (absl::IsDataLoss(set.status())) {
    SetAside(key.name, absl::StrCat(ScheduleFolder(key), "/", file),
             absl::StrCat(kSchedulesFolder, "-", key.version, "-", file), set.status());
  } else {
    LogError("cannot read schedule set", {{"version", key.ToString()}, {"file", file}, {"error", set.status()}});
  }
}

void ModelStore::Quarantine(const VersionKey& key, Version& version, const absl::Status& why) const {
  const std::string reason = absl::StrCat(key.ToString(), ": ", Message(why));
  version.manifest = absl::DataLossError(reason);
  version.schedule_sets.clear();
  const absl::Status moved = [&]() -> absl::Status {
    BOSS_RETURN_IF_ERROR(KeepNumber(key, models_[key.name]));
    BOSS_RETURN_IF_ERROR(files_.CreateFolders(QuarantineFolder(key.name)));
    BOSS_RETURN_IF_ERROR(
        WriteFileAtomically(absl::StrCat(QuarantinedFolder(key), ".json"), DumpJson({{"reason", reason}}), files_));
    BOSS_RETURN_IF_ERROR(files_.RemoveAll(QuarantinedFolder(key)));
    return MoveAndSync(files_, VersionFolder(key), QuarantinedFolder(key));
  }();
  LogError("quarantined model version", {{"version", key.ToString()}, {"reason", reason}});
  if (!moved.ok())
    LogError("cannot move a quarantined model version", {{"version", key.ToString()}, {"error", moved}});
}

bool ModelStore::SetAside(const std::string& name, const std::string& path, const std::string& label,
                          const absl::Status& why) const {
  const std::string folder = absl::StrCat(QuarantineFolder(name), "/", kSetAsideFolder);
  const std::string target = absl::StrCat(folder, "/", label);
  const absl::Status moved = [&]() -> absl::Status {
    BOSS_RETURN_IF_ERROR(files_.CreateFolders(folder));
    BOSS_RETURN_IF_ERROR(files_.RemoveAll(target));
    return MoveAndSync(files_, path, target);
  }();
  LogError("quarantined a file of a model", {{"path", path}, {"reason", Message(why)}});
  if (!moved.ok()) LogError("cannot move a corrupt file", {{"path", path}, {"error", moved}});
  return moved.ok();
}

}  // namespace boss::server
