// How much is stored, and what is deleted.
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/status_macros.h"
#include "server/log/log.h"
#include "server/store/model_store.h"
#include "server/store/store_files.h"

namespace boss::server {

// ---- Room ----

int64_t ModelStore::StoredBytes() const {
  int64_t bytes = 0;
  for (const auto& [name, model] : models_) {
    for (const auto& [number, version] : model.versions) bytes += version.size_bytes;
  }
  return bytes;
}

StoreTotals ModelStore::Totals() const {
  absl::ReaderMutexLock lock(&mutex_);
  StoreTotals totals;
  totals.bytes = StoredBytes();
  for (const auto& [name, model] : models_) {
    for (const auto& [number, version] : model.versions) {
      ++(version.manifest.ok() ? totals.published : totals.quarantined);
    }
  }
  return totals;
}

absl::Status ModelStore::CheckQuota(int64_t used, int64_t bytes) const {
  if (options_.max_bytes <= 0 || bytes <= options_.max_bytes - used) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("model store: got ", bytes, " more bytes beside the ", used,
                                                   " in use, expected at most ", options_.max_bytes, " in all"));
}

absl::Status ModelStore::CheckDisk(int64_t bytes, int64_t reserve) const {
  BOSS_ASSIGN_OR_RETURN(const int64_t free, files_.FreeBytes(data_folder_));
  if (bytes <= free - reserve) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("model store: got ", bytes, " more bytes for a disk with ", free,
                                                   " free, of which ", reserve, " must stay free"));
}

absl::Status ModelStore::CheckRoom(int64_t bytes) const {
  if (options_.max_bytes > 0) {
    int64_t used = Totals().bytes;
    for (const char* folder : {kStagingFolder, kUploadsFolder})
      used += FolderSize(files_, absl::StrCat(data_folder_, "/", folder));
    BOSS_RETURN_IF_ERROR(CheckQuota(used, bytes));
  }
  return CheckDisk(bytes, options_.min_free_bytes);
}

// ---- Deletion ----

std::string ModelStore::HeldBy(const VersionKey& key) const {
  std::vector<std::string> holders;
  const std::vector<std::string> users = uses_->Of(key);
  if (!users.empty()) holders.push_back(absl::StrCat("in use (", absl::StrJoin(users, ", "), ")"));
  for (const auto& [alias, number] : models_.find(key.name)->second.aliases) {
    if (number == key.version) holders.push_back(absl::StrCat("what the alias ", alias, " points at"));
  }
  for (const auto& [name, model] : models_) {
    for (const auto& [number, version] : model.versions) {
      if (version.manifest.ok() && version.manifest->adapter && version.manifest->adapter->base == key)
        holders.push_back(absl::StrCat("the base of the adapter ", VersionKey{name, number}.ToString()));
    }
  }
  return absl::StrJoin(holders, ", ");
}

absl::Status ModelStore::DeleteVersion(const VersionKey& key, bool force) {
  Trash trash;  // emptied after the lock
  // One lock over the checks and the deletion: nobody can begin to use the version in between.
  absl::MutexLock lock(&mutex_);
  BOSS_RETURN_IF_ERROR(Find(key).status());
  const std::string held_by = HeldBy(key);
  if (!held_by.empty() && !force) {
    return absl::FailedPreconditionError(
        absl::StrCat(key.ToString(), " is ", held_by, ": end that first, or force the deletion"));
  }
  return Remove(key, trash);
}

absl::Status ModelStore::KeepNumber(const VersionKey& key, const Model& model) const {
  if (key.version + 1 < model.next_version) return absl::OkStatus();  // a later one says as much
  return files_.CreateFolders(absl::StrCat(ModelFolder(key.name), "/", kUsedFolder, "/", key.version));
}

absl::Status ModelStore::Remove(const VersionKey& key, Trash& trash) {
  Model& model = models_[key.name];
  // First what must not be forgotten: that the number is used up. Then the version is gone with one rename.
  BOSS_RETURN_IF_ERROR(KeepNumber(key, model));
  for (const std::string& folder : {QuarantinedFolder(key), VersionFolder(key)}) {
    const absl::StatusOr<FileInfo> info = files_.Stat(folder);
    if (absl::IsNotFound(info.status())) continue;
    BOSS_RETURN_IF_ERROR(info.status());
    // Straight into the staging folder: a full disk may have no room for another folder.
    const std::string& gone = trash.emplace_back(std::make_unique<StagingFolder>(files_, NewStagingPath()))->path();
    const absl::Status moved = MoveAndSync(files_, folder, gone);
    // What might be back after a crash is not deleted, unless it cannot even be put back now.
    const bool is_back = !moved.ok() && (files_.Rename(gone, folder).ok() || !files_.Stat(gone).ok());
    if (is_back) return moved;
  }
  model.versions.erase(key.version);
  const bool had_alias =
      std::erase_if(model.aliases, [&](const auto& alias) { return alias.second == key.version; }) > 0;
  // What cannot be removed of these is without meaning from now on, and the next Open tries again.
  absl::Status leftover;
  if (had_alias) leftover.Update(WriteAliases(key.name, model));
  leftover.Update(files_.RemoveAll(ScheduleFolder(key)));
  leftover.Update(files_.RemoveAll(absl::StrCat(QuarantinedFolder(key), ".json")));
  if (!leftover.ok())
    LogWarn("deleted model version leaves files", {{"version", key.ToString()}, {"error", leftover}});
  return absl::OkStatus();
}

// ---- Garbage ----

void ModelStore::CollectGarbage() { CollectGarbageOf(""); }

void ModelStore::CollectGarbageOf(absl::string_view only) {
  if (options_.keep_versions <= 0) return;
  Trash trash;  // emptied after the lock
  absl::MutexLock lock(&mutex_);
  std::vector<VersionKey> old;
  for (const auto& [name, model] : models_) {
    if (!only.empty() && name != only) continue;
    int newer = 0;
    for (auto version = model.versions.rbegin(); version != model.versions.rend(); ++version) {
      if (!version->second.manifest.ok()) continue;  // quarantined: an operator decides
      if (newer++ >= options_.keep_versions) old.push_back({name, version->first});
    }
  }
  // With an adapter goes what held its base.
  for (bool changed = true; changed;) {
    changed = false;
    for (auto key = old.begin(); key != old.end();) {
      if (!HeldBy(*key).empty()) {
        ++key;
        continue;
      }
      const absl::Status removed = Remove(*key, trash);
      if (removed.ok()) {
        LogInfo("deleted old model version", {{"version", key->ToString()}, {"keep_versions", options_.keep_versions}});
        changed = true;
      } else {
        LogError("cannot delete old model version", {{"version", key->ToString()}, {"error", removed}});
      }
      key = old.erase(key);
    }
  }
}

}  // namespace boss::server
