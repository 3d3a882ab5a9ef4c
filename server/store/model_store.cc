#include "server/store/model_store.h"

#include <sys/stat.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/io/atomic_file.h"
#include "server/store/json_reader.h"
#include "server/store/sha256.h"
#include "server/store/store_files.h"

namespace boss::server {
namespace {

constexpr size_t kMaxNameSize = 63;
constexpr char kLatest[] = "latest";
constexpr char kAliasesFile[] = "aliases.json";
constexpr char kSchedulesFolder[] = "schedules";

// A version's decimal number, as it was written: no sign, no leading zero.
std::optional<int64_t> ParseVersion(absl::string_view text) {
  int64_t version = 0;
  if (text.empty() || text.front() < '1' || text.front() > '9' || !std::all_of(text.begin(), text.end(), ::isdigit))
    return std::nullopt;
  if (!absl::SimpleAtoi(text, &version)) return std::nullopt;
  return version;
}

absl::Status UnknownVersion(const VersionKey& key) {
  return absl::NotFoundError(absl::StrCat("model version ", key.ToString(), " does not exist"));
}
absl::Status UnknownModel(absl::string_view name) {
  return absl::NotFoundError(absl::StrCat("model ", name, " does not exist"));
}

absl::Status CheckScheduleSet(const ScheduleSet& set) {
  const size_t points = static_cast<size_t>(std::max(set.k_max, 0)) + 1;
  if (set.k_max < 1 || set.schedules.size() != points - 1 || set.cost_matrix.size() != points * points) {
    return absl::InvalidArgumentError(absl::StrCat("schedule set: got k_max ", set.k_max, ", ", set.schedules.size(),
                                                   " schedules and ", set.cost_matrix.size(),
                                                   " costs, expected k_max schedules and (k_max + 1)^2 costs"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckName(absl::string_view what, absl::string_view name) {
  const auto lower_or_digit = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  const bool valid = !name.empty() && name.size() <= kMaxNameSize && lower_or_digit(name.front()) &&
                     std::all_of(name.begin(), name.end(),
                                 [&](char c) { return lower_or_digit(c) || c == '.' || c == '_' || c == '-'; });
  if (valid) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      what, ": expected 1 to ", kMaxNameSize, " of a-z, 0-9, '.', '_' and '-' that begin with a letter or digit, got ",
      DumpJson(std::string(name.substr(0, 2 * kMaxNameSize)))));
}

std::string ModelStore::ModelFolder(absl::string_view name) const {
  return absl::StrCat(data_folder_, "/models/", name);
}
std::string ModelStore::VersionFolder(const VersionKey& key) const {
  return absl::StrCat(ModelFolder(key.name), "/", key.version);
}
std::string ModelStore::ScheduleFolder(const VersionKey& key) const {
  return absl::StrCat(ModelFolder(key.name), "/", kSchedulesFolder, "/", key.version);
}

// ---- Opening ----

absl::StatusOr<std::unique_ptr<ModelStore>> ModelStore::Open(const std::string& data_folder, const Clock& clock,
                                                             const FileSystem& files,
                                                             const ModelStoreOptions& options) {
  std::unique_ptr<ModelStore> store(new ModelStore(data_folder, clock, files, options));
  BOSS_RETURN_IF_ERROR(files.RemoveAll(absl::StrCat(data_folder, "/staging")));
  BOSS_RETURN_IF_ERROR(files.CreateFolders(absl::StrCat(data_folder, "/staging")));
  BOSS_RETURN_IF_ERROR(files.CreateFolders(absl::StrCat(data_folder, "/models")));
  BOSS_ASSIGN_OR_RETURN(const std::vector<std::string> names, files.ListFolder(absl::StrCat(data_folder, "/models")));
  absl::MutexLock lock(&store->mutex_);
  for (const std::string& name : names) {
    if (CheckName("model", name).ok()) BOSS_RETURN_IF_ERROR(store->ReadModel(name));
  }
  return store;
}

absl::Status ModelStore::ReadModel(const std::string& name) {
  Model& model = models_[name];
  BOSS_ASSIGN_OR_RETURN(const std::vector<std::string> entries, files_.ListFolder(ModelFolder(name)));
  for (const std::string& entry : entries) {
    const std::optional<int64_t> number = ParseVersion(entry);
    if (!number) continue;
    const VersionKey key{name, *number};
    Version& version = model.versions[key.version];
    const absl::StatusOr<std::string> text = files_.ReadFile(absl::StrCat(VersionFolder(key), "/", kManifestFile));
    version.manifest = text.ok() ? ManifestFromJson(*text) : absl::DataLossError(text.status().message());
    if (!version.manifest.ok()) {
      version.manifest = absl::Status(version.manifest.status().code(),
                                      absl::StrCat(key.ToString(), ": ", version.manifest.status().message()));
    } else {
      NameOwnRows(*version.manifest, key);
    }
    version.size_bytes = FolderSize(files_, VersionFolder(key));
    const absl::StatusOr<std::vector<std::string>> sets = files_.ListFolder(ScheduleFolder(key));
    if (!sets.ok()) continue;  // there is none
    for (const std::string& file : *sets) {
      if (file.size() < 5 || file.substr(file.size() - 5) != ".json") continue;
      const absl::StatusOr<std::string> set_text = files_.ReadFile(absl::StrCat(ScheduleFolder(key), "/", file));
      absl::StatusOr<StoredScheduleSet> set = set_text.ok() ? ScheduleSetFromJson(*set_text) : set_text.status();
      version.schedule_sets[file] =
          set.ok() ? absl::StatusOr<std::shared_ptr<const StoredScheduleSet>>(
                         std::make_shared<const StoredScheduleSet>(*std::move(set)))
                   : absl::DataLossError(absl::StrCat(key.ToString(), ": ", file, ": ", set.status().message()));
    }
  }
  if (!model.versions.empty()) model.next_version = model.versions.rbegin()->first + 1;
  const absl::StatusOr<std::string> text = files_.ReadFile(absl::StrCat(ModelFolder(name), "/", kAliasesFile));
  if (absl::IsNotFound(text.status())) return absl::OkStatus();
  BOSS_RETURN_IF_ERROR(text.status());
  const std::string what = absl::StrCat(name, "/", kAliasesFile);
  BOSS_ASSIGN_OR_RETURN(const Json json, ParseJsonObject(what, *text));
  int64_t next_version = 1;
  JsonReader reader(json, what);
  reader.Required("aliases", model.aliases);
  reader.Required("next_version", next_version);
  BOSS_RETURN_IF_ERROR(reader.status());
  model.next_version = std::max(model.next_version, next_version);
  std::erase_if(model.aliases, [&](const auto& alias) { return !model.versions.contains(alias.second); });
  return absl::OkStatus();
}

absl::Status ModelStore::WriteAliases(absl::string_view name, const Model& model) const {
  return WriteFileAtomically(absl::StrCat(ModelFolder(name), "/", kAliasesFile),
                             DumpJson({{"aliases", model.aliases}, {"next_version", model.next_version}}), files_);
}

// ---- Reading ----

std::vector<ModelInfo> ModelStore::ListModels() const {
  absl::ReaderMutexLock lock(&mutex_);
  std::vector<ModelInfo> infos;
  for (const auto& [name, model] : models_) {
    if (model.versions.empty()) continue;
    ModelInfo& info = infos.emplace_back();
    info.name = name;
    info.aliases = model.aliases;
    for (const auto& [version, unused] : model.versions) info.versions.push_back({name, version});
  }
  return infos;
}

absl::StatusOr<ModelInfo> ModelStore::GetModel(absl::string_view name) const {
  BOSS_RETURN_IF_ERROR(CheckName("model", name));
  for (ModelInfo& info : ListModels()) {
    if (info.name == name) return std::move(info);
  }
  return UnknownModel(name);
}

absl::StatusOr<VersionKey> ModelStore::Resolve(absl::string_view reference) const {
  const size_t at = reference.find('@');
  const absl::string_view name = reference.substr(0, at);
  const absl::string_view version =
      at == absl::string_view::npos ? absl::string_view(kLatest) : reference.substr(at + 1);
  BOSS_RETURN_IF_ERROR(CheckName("model", name));
  BOSS_RETURN_IF_ERROR(CheckName("model version", version));
  absl::ReaderMutexLock lock(&mutex_);
  const auto model = models_.find(name);
  if (model == models_.end() || model->second.versions.empty()) return UnknownModel(name);
  const auto& versions = model->second.versions;
  if (version == kLatest) {
    // The newest that can be loaded; if none can, asking for the newest says why.
    for (auto it = versions.rbegin(); it != versions.rend(); ++it) {
      if (it->second.manifest.ok()) return VersionKey{std::string(name), it->first};
    }
    return VersionKey{std::string(name), versions.rbegin()->first};
  }
  if (const std::optional<int64_t> number = ParseVersion(version)) {
    if (versions.contains(*number)) return VersionKey{std::string(name), *number};
  } else if (const auto alias = model->second.aliases.find(version); alias != model->second.aliases.end()) {
    return VersionKey{std::string(name), alias->second};
  }
  return absl::NotFoundError(absl::StrCat("model ", name, " has no version or alias ", version));
}

absl::StatusOr<const ModelStore::Version*> ModelStore::Find(const VersionKey& key) const {
  const auto model = models_.find(key.name);
  if (model == models_.end()) return UnknownVersion(key);
  const auto version = model->second.versions.find(key.version);
  if (version == model->second.versions.end()) return UnknownVersion(key);
  return &version->second;
}

absl::StatusOr<Manifest> ModelStore::ManifestOf(const VersionKey& key) const {
  absl::ReaderMutexLock lock(&mutex_);
  BOSS_ASSIGN_OR_RETURN(const Version* version, Find(key));
  return version->manifest;
}

absl::StatusOr<VersionInfo> ModelStore::GetVersion(const VersionKey& key) const {
  absl::ReaderMutexLock lock(&mutex_);
  BOSS_ASSIGN_OR_RETURN(const Version* version, Find(key));
  BOSS_RETURN_IF_ERROR(version->manifest.status());
  VersionInfo info{key, *version->manifest, version->size_bytes, {}};
  for (const auto& [alias, number] : models_.find(key.name)->second.aliases) {
    if (number == key.version) info.aliases.push_back(alias);
  }
  return info;
}

absl::StatusOr<VersionKey> ModelStore::FindByJob(absl::string_view name, absl::string_view job_id) const {
  absl::ReaderMutexLock lock(&mutex_);
  const auto model = models_.find(name);
  if (model != models_.end()) {
    for (const auto& [number, version] : model->second.versions) {
      if (version.manifest.ok() && version.manifest->job_id == job_id) return VersionKey{std::string(name), number};
    }
  }
  return absl::NotFoundError(absl::StrCat("job ", job_id, " has published no version of ", name));
}

absl::StatusOr<VersionKey> ModelStore::FindByUpload(absl::string_view name, absl::string_view upload_id) const {
  absl::ReaderMutexLock lock(&mutex_);
  const auto model = models_.find(name);
  if (model != models_.end() && !upload_id.empty()) {
    for (const auto& [number, version] : model->second.versions) {
      if (version.manifest.ok() && version.manifest->upload_id == upload_id)
        return VersionKey{std::string(name), number};
    }
  }
  return absl::NotFoundError(absl::StrCat("upload ", upload_id, " has published no version of ", name));
}

absl::StatusOr<VersionUse> ModelStore::Use(const VersionKey& key, std::string by) const {
  absl::ReaderMutexLock lock(&mutex_);
  BOSS_ASSIGN_OR_RETURN(const Version* version, Find(key));
  BOSS_RETURN_IF_ERROR(version->manifest.status());
  return VersionUse(uses_, key, std::move(by));
}

absl::Status ModelStore::CheckRoom(int64_t bytes) const {
  if (options_.max_bytes > 0) {
    int64_t used = FolderSize(files_, absl::StrCat(data_folder_, "/staging")) +
                   FolderSize(files_, absl::StrCat(data_folder_, "/", kUploadsFolder));
    absl::ReaderMutexLock lock(&mutex_);
    for (const auto& [name, model] : models_) {
      for (const auto& [number, version] : model.versions) used += version.size_bytes;
    }
    if (bytes > options_.max_bytes - used) {
      return absl::ResourceExhaustedError(absl::StrCat("model store: ", bytes, " more bytes do not fit: ", used,
                                                       " are in use, the limit is ", options_.max_bytes));
    }
  }
  BOSS_ASSIGN_OR_RETURN(const int64_t free, files_.FreeBytes(data_folder_));
  if (bytes > free - options_.min_free_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat("model store: ", bytes, " more bytes do not fit: the disk has ",
                                                     free, " free, of which ", options_.min_free_bytes,
                                                     " must stay free"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ModelStore::ReadVersionFile(const VersionKey& key, const Manifest& manifest,
                                                        const std::string& file_name) const {
  const auto expected = manifest.sha256.find(file_name);
  if (expected == manifest.sha256.end()) {
    return absl::DataLossError(absl::StrCat(key.ToString(), ": the manifest has no checksum of ", file_name));
  }
  absl::StatusOr<std::string> bytes = files_.ReadFile(absl::StrCat(VersionFolder(key), "/", file_name));
  if (absl::IsNotFound(bytes.status()))
    return absl::DataLossError(absl::StrCat(key.ToString(), ": ", bytes.status().message()));
  BOSS_RETURN_IF_ERROR(bytes.status());
  const std::string got = Sha256Hex(*bytes);
  if (got != expected->second) {
    return absl::DataLossError(absl::StrCat(key.ToString(), ": ", file_name, " is corrupt: its SHA-256 is ", got,
                                            ", expected ", expected->second));
  }
  return bytes;
}

absl::StatusOr<std::vector<ExportFile>> ModelStore::OpenForExport(const VersionKey& key) const {
  BOSS_ASSIGN_OR_RETURN(const Manifest manifest, ManifestOf(key));
  const std::string folder = VersionFolder(key);
  std::vector<ExportFile> files;
  BOSS_ASSIGN_OR_RETURN(const std::string text, files_.ReadFile(absl::StrCat(folder, "/", kManifestFile)));
  files.push_back(
      {kManifestFile, absl::StrCat(folder, "/", kManifestFile), static_cast<int64_t>(text.size()), Sha256Hex(text)});
  for (const auto& [name, digest] : manifest.sha256) {
    const std::string path = absl::StrCat(folder, "/", name);
    struct stat information;
    if (::stat(path.c_str(), &information) != 0)
      return absl::DataLossError(ErrnoToStatus(errno, "stat", path).message());
    files.push_back({name, path, static_cast<int64_t>(information.st_size), digest});
  }
  return files;
}

absl::StatusOr<std::string> ModelStore::AuxiliaryFile(const VersionKey& key, absl::string_view file_name) const {
  BOSS_ASSIGN_OR_RETURN(const Manifest manifest, ManifestOf(key));
  const std::string name(file_name);
  if (!manifest.sha256.contains(name)) return absl::NotFoundError(absl::StrCat(key.ToString(), " has no ", name));
  BOSS_RETURN_IF_ERROR(ReadVersionFile(key, manifest, name).status());
  return absl::StrCat(VersionFolder(key), "/", name);
}

// ---- Schedules ----

absl::Status ModelStore::AddScheduleSet(const VersionKey& key, const StoredScheduleSet& set) {
  BOSS_RETURN_IF_ERROR(CheckScheduleSet(set.set));
  auto stored = std::make_shared<StoredScheduleSet>(set);
  if (stored->create_time == absl::UnixEpoch()) stored->create_time = clock_.Now();
  const std::string file = absl::StrCat(stored->Name(), ".json");
  const std::string text = ScheduleSetToJson(*stored);
  // The lock is held while writing, so that the version cannot be deleted meanwhile.
  absl::MutexLock lock(&mutex_);
  BOSS_RETURN_IF_ERROR(Find(key).status());
  BOSS_RETURN_IF_ERROR(files_.CreateFolders(ScheduleFolder(key)));
  BOSS_RETURN_IF_ERROR(WriteFileAtomically(absl::StrCat(ScheduleFolder(key), "/", file), text, files_));
  models_[key.name].versions[key.version].schedule_sets[file] =
      std::shared_ptr<const StoredScheduleSet>(std::move(stored));
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const StoredScheduleSet>> ModelStore::FindScheduleSet(const VersionKey& key,
                                                                                     double guidance_scale,
                                                                                     int k_max) const {
  absl::ReaderMutexLock lock(&mutex_);
  BOSS_ASSIGN_OR_RETURN(const Version* version, Find(key));
  std::shared_ptr<const StoredScheduleSet> best;
  absl::Status corrupt;
  for (const auto& [file, set] : version->schedule_sets) {
    if (!set.ok()) {
      corrupt = set.status();
      continue;
    }
    if (FormatGuidance((*set)->set.guidance_scale) != FormatGuidance(guidance_scale)) continue;
    if (k_max != 0 && (*set)->set.k_max != k_max) continue;
    if (best == nullptr || (*set)->set.k_max > best->set.k_max) best = *set;
  }
  if (best != nullptr) return best;
  BOSS_RETURN_IF_ERROR(corrupt);
  return absl::NotFoundError(
      absl::StrCat(key.ToString(), " has no Bellman schedules for guidance scale ", FormatGuidance(guidance_scale),
                   k_max == 0 ? "" : absl::StrCat(" and k_max ", k_max), "; an OptimizeStepsizesJob makes them"));
}

absl::StatusOr<std::vector<std::shared_ptr<const StoredScheduleSet>>> ModelStore::ListScheduleSets(
    const VersionKey& key) const {
  absl::ReaderMutexLock lock(&mutex_);
  BOSS_ASSIGN_OR_RETURN(const Version* version, Find(key));
  std::vector<std::shared_ptr<const StoredScheduleSet>> sets;
  for (const auto& [file, set] : version->schedule_sets) {
    BOSS_RETURN_IF_ERROR(set.status());
    sets.push_back(*set);
  }
  std::sort(sets.begin(), sets.end(), [](const auto& a, const auto& b) {
    return std::pair(a->set.guidance_scale, a->set.k_max) < std::pair(b->set.guidance_scale, b->set.k_max);
  });
  return sets;
}

absl::StatusOr<NativeSchedule> ModelStore::FindSchedule(const VersionKey& key, int steps, double guidance_scale) const {
  BOSS_ASSIGN_OR_RETURN(const Manifest manifest, ManifestOf(key));
  for (const NativeSchedule& native : manifest.schedules) {
    if (native.schedule.time_grid.steps() == steps &&
        FormatGuidance(native.guidance_scale) == FormatGuidance(guidance_scale))
      return native;
  }
  BOSS_ASSIGN_OR_RETURN(const auto stored, FindScheduleSet(key, guidance_scale));
  const ScheduleSet& set = stored->set;
  if (steps < 1 || steps > set.k_max) {
    return absl::InvalidArgumentError(
        absl::StrCat("steps: got ", steps, ", expected 1 to ", set.k_max, " for a Bellman schedule"));
  }
  return NativeSchedule{"bellman", set.guidance_scale, set.k_max, set.schedules[steps - 1]};
}

// ---- Changing ----

absl::Status ModelStore::SetAlias(absl::string_view name, absl::string_view alias, int64_t version) {
  BOSS_RETURN_IF_ERROR(CheckName("alias", alias));
  if (alias == kLatest)
    return absl::InvalidArgumentError("alias: \"latest\" always is the newest version and cannot be set");
  if (std::isdigit(static_cast<unsigned char>(alias.front()))) {
    return absl::InvalidArgumentError(absl::StrCat("alias: expected a name that begins with a letter, got ", alias));
  }
  absl::MutexLock lock(&mutex_);
  const auto model = models_.find(name);
  if (model == models_.end() || model->second.versions.empty()) return UnknownModel(name);
  Model changed;
  changed.aliases = model->second.aliases;
  changed.next_version = model->second.next_version;
  if (version == 0) {
    if (changed.aliases.erase(std::string(alias)) == 0)
      return absl::NotFoundError(absl::StrCat("model ", name, " has no alias ", alias));
  } else {
    if (!model->second.versions.contains(version)) return UnknownVersion({std::string(name), version});
    changed.aliases[std::string(alias)] = version;
  }
  BOSS_RETURN_IF_ERROR(WriteAliases(name, changed));
  model->second.aliases = std::move(changed.aliases);
  return absl::OkStatus();
}

absl::Status ModelStore::DeleteVersion(const VersionKey& key, bool force) {
  BOSS_ASSIGN_OR_RETURN(const std::unique_ptr<StagingFolder> trash, NewStagingFolder());
  absl::MutexLock lock(&mutex_);
  BOSS_RETURN_IF_ERROR(Find(key).status());
  Model& model = models_[key.name];
  for (const auto& [other_name, other] : models_) {
    for (const auto& [number, version] : other.versions) {
      if (version.manifest.ok() && version.manifest->adapter && version.manifest->adapter->base == key) {
        return absl::FailedPreconditionError(absl::StrCat(key.ToString(), " is the base of the adapter ",
                                                          VersionKey{other_name, number}.ToString(),
                                                          ": delete that first"));
      }
    }
  }
  Model changed;
  changed.aliases = model.aliases;
  changed.next_version = model.next_version;
  for (const auto& [alias, number] : model.aliases) {
    if (number != key.version) continue;
    if (!force)
      return absl::FailedPreconditionError(
          absl::StrCat(key.ToString(), " has the alias ", alias, ": move it, or force the deletion"));
    changed.aliases.erase(alias);
  }
  // First what must not be forgotten: the numbers that are used up. Then the version is gone with one rename.
  BOSS_RETURN_IF_ERROR(WriteAliases(key.name, changed));
  BOSS_RETURN_IF_ERROR(files_.Rename(VersionFolder(key), absl::StrCat(trash->path(), "/version")));
  model.versions.erase(key.version);
  model.aliases = std::move(changed.aliases);
  BOSS_RETURN_IF_ERROR(files_.SyncFolder(ModelFolder(key.name)));
  return files_.RemoveAll(ScheduleFolder(key));
}

}  // namespace boss::server
