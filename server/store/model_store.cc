#include "server/store/model_store.h"

#include <algorithm>
#include <cctype>
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

absl::Status UnknownVersion(const VersionKey& key) {
  return absl::NotFoundError(absl::StrCat("model version ", key.ToString(), " does not exist"));
}
absl::Status UnknownModel(absl::string_view name) {
  return absl::NotFoundError(absl::StrCat("model ", name, " does not exist"));
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

absl::Status CheckAlias(absl::string_view what, absl::string_view alias) {
  BOSS_RETURN_IF_ERROR(CheckName(what, alias));
  if (alias == kLatest)
    return absl::InvalidArgumentError(absl::StrCat(what, ": \"latest\" always is the newest version and cannot be set"));
  if (std::isdigit(static_cast<unsigned char>(alias.front())))
    return absl::InvalidArgumentError(absl::StrCat(what, ": expected a name that begins with a letter, got ", alias));
  return absl::OkStatus();
}

std::string ModelStore::ModelFolder(absl::string_view name) const {
  return absl::StrCat(data_folder_, "/", kModelsFolder, "/", name);
}
std::string ModelStore::VersionFolder(const VersionKey& key) const {
  return absl::StrCat(ModelFolder(key.name), "/", key.version);
}
std::string ModelStore::ScheduleFolder(const VersionKey& key) const {
  return absl::StrCat(ModelFolder(key.name), "/", kSchedulesFolder, "/", key.version);
}
std::string ModelStore::QuarantineFolder(absl::string_view name) const {
  return absl::StrCat(data_folder_, "/", kQuarantineFolder, "/", name);
}
std::string ModelStore::QuarantinedFolder(const VersionKey& key) const {
  return absl::StrCat(QuarantineFolder(key.name), "/", key.version);
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
    info.latest = LatestOf(model);
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
    // If none can be loaded, asking for the newest says why.
    const int64_t latest = LatestOf(model->second);
    return VersionKey{std::string(name), latest > 0 ? latest : versions.rbegin()->first};
  }
  if (const std::optional<int64_t> number = ParseVersion(version)) {
    if (versions.contains(*number)) return VersionKey{std::string(name), *number};
  } else if (const auto alias = model->second.aliases.find(version); alias != model->second.aliases.end()) {
    return VersionKey{std::string(name), alias->second};
  }
  return absl::NotFoundError(absl::StrCat("model ", name, " has no version or alias ", version));
}

absl::StatusOr<ModelStore::Version*> ModelStore::Find(const VersionKey& key) const {
  const auto model = models_.find(key.name);
  if (model == models_.end()) return UnknownVersion(key);
  const auto version = model->second.versions.find(key.version);
  if (version == model->second.versions.end()) return UnknownVersion(key);
  return &version->second;
}

absl::StatusOr<ModelStore::Version*> ModelStore::FindPublished(const VersionKey& key) const {
  BOSS_ASSIGN_OR_RETURN(Version* const version, Find(key));
  BOSS_RETURN_IF_ERROR(version->manifest.status());
  return version;
}

bool ModelStore::CanBeLoaded(const Version& version) const {
  // A base is older than its adapter, so this ends.
  for (const Version* part = &version; part->manifest.ok();) {
    if (!part->manifest->adapter) return true;
    const absl::StatusOr<Version*> base = Find(part->manifest->adapter->base);
    if (!base.ok()) return false;
    part = *base;
  }
  return false;
}

int64_t ModelStore::LatestOf(const Model& model) const {
  const auto latest = std::find_if(model.versions.rbegin(), model.versions.rend(),
                                   [this](const auto& version) { return CanBeLoaded(version.second); });
  return latest == model.versions.rend() ? 0 : latest->first;
}

absl::StatusOr<Manifest> ModelStore::ManifestOf(const VersionKey& key) const {
  absl::ReaderMutexLock lock(&mutex_);
  BOSS_ASSIGN_OR_RETURN(const Version* version, Find(key));
  return version->manifest;
}

absl::StatusOr<VersionInfo> ModelStore::GetVersion(const VersionKey& key) const {
  absl::ReaderMutexLock lock(&mutex_);
  BOSS_ASSIGN_OR_RETURN(const Version* version, FindPublished(key));
  VersionInfo info{key, *version->manifest, version->size_bytes, {}};
  for (const auto& [alias, number] : models_.find(key.name)->second.aliases) {
    if (number == key.version) info.aliases.push_back(alias);
  }
  return info;
}

absl::StatusOr<VersionKey> ModelStore::FindWhere(absl::string_view name,
                                                 const std::function<bool(const Manifest&)>& matches) const {
  absl::ReaderMutexLock lock(&mutex_);
  const auto model = models_.find(name);
  if (model == models_.end()) return UnknownModel(name);
  for (const auto& [number, version] : model->second.versions) {
    if (version.manifest.ok() && matches(*version.manifest)) return VersionKey{std::string(name), number};
  }
  return absl::NotFoundError(absl::StrCat("model ", name, " has no such version"));
}

absl::StatusOr<VersionKey> ModelStore::FindByJob(absl::string_view name, absl::string_view job_id) const {
  absl::StatusOr<VersionKey> key = FindWhere(name, [&](const Manifest& manifest) { return manifest.job_id == job_id; });
  if (key.ok()) return key;
  return absl::NotFoundError(absl::StrCat("job ", job_id, " has published no version of ", name));
}

absl::StatusOr<VersionKey> ModelStore::FindByUpload(absl::string_view name, absl::string_view upload_id) const {
  absl::StatusOr<VersionKey> key =
      FindWhere(name, [&](const Manifest& manifest) { return !upload_id.empty() && manifest.upload_id == upload_id; });
  if (key.ok()) return key;
  return absl::NotFoundError(absl::StrCat("upload ", upload_id, " has published no version of ", name));
}

absl::StatusOr<VersionUse> ModelStore::Use(const VersionKey& key, std::string by) const {
  // Deletion holds the lock exclusively: it sees the use, or this does not see the version.
  absl::ReaderMutexLock lock(&mutex_);
  BOSS_RETURN_IF_ERROR(FindPublished(key).status());
  return VersionUse(uses_, key, std::move(by));
}

absl::Status ModelStore::OnCorrupt(const VersionKey& key, const absl::Status& why) const {
  absl::MutexLock lock(&mutex_);
  BOSS_ASSIGN_OR_RETURN(Version* const version, Find(key));
  if (version->manifest.ok()) Quarantine(key, *version, why);
  return version->manifest.status();
}

absl::StatusOr<std::string> ModelStore::ReadVersionFile(const VersionKey& key, const Manifest& manifest,
                                                        const std::string& file_name) const {
  const auto digest = manifest.sha256.find(file_name);
  if (digest == manifest.sha256.end())
    return absl::InternalError(absl::StrCat(key.ToString(), ": the manifest has no checksum of ", file_name));
  absl::StatusOr<std::string> bytes = ReadCheckedFile(files_, VersionFolder(key), file_name, digest->second);
  return absl::IsDataLoss(bytes.status()) ? OnCorrupt(key, bytes.status()) : bytes;
}

absl::StatusOr<std::vector<ExportFile>> ModelStore::OpenForExport(const VersionKey& key) const {
  BOSS_ASSIGN_OR_RETURN(const Manifest manifest, ManifestOf(key));
  std::map<std::string, std::string> digests = manifest.sha256;
  const absl::StatusOr<std::string> text = ReadStoredFile(files_, VersionFolder(key), kManifestFile);
  if (absl::IsDataLoss(text.status())) return OnCorrupt(key, text.status());
  BOSS_RETURN_IF_ERROR(text.status());
  digests[kManifestFile] = Sha256Hex(*text);
  std::vector<ExportFile> files;
  for (const auto& [name, digest] : digests) {
    const absl::StatusOr<int64_t> size = SizeOfFile(files_, VersionFolder(key), name);
    if (absl::IsDataLoss(size.status())) return OnCorrupt(key, size.status());
    BOSS_RETURN_IF_ERROR(size.status());
    files.push_back({name, absl::StrCat(VersionFolder(key), "/", name), *size, digest});
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

// ---- Changing ----

absl::Status ModelStore::SetAlias(absl::string_view name, absl::string_view alias, int64_t version) {
  BOSS_RETURN_IF_ERROR(CheckAlias("alias", alias));
  absl::MutexLock lock(&mutex_);
  const auto model = models_.find(name);
  if (model == models_.end() || model->second.versions.empty()) return UnknownModel(name);
  BOSS_RETURN_IF_ERROR(model->second.unreadable);
  Model changed;
  changed.aliases = model->second.aliases;
  changed.next_version = model->second.next_version;
  if (version == 0) {
    if (changed.aliases.erase(std::string(alias)) == 0)
      return absl::NotFoundError(absl::StrCat("model ", name, " has no alias ", alias));
  } else {
    BOSS_RETURN_IF_ERROR(FindPublished({std::string(name), version}).status());
    changed.aliases[std::string(alias)] = version;
  }
  if (absl::Status status = WriteAliases(name, changed); !status.ok()) {
    // The new file may be in place, with its folder not flushed: the next start must not find what was refused.
    WriteAliases(name, model->second).IgnoreError();
    return status;
  }
  model->second.aliases = std::move(changed.aliases);
  return absl::OkStatus();
}

}  // namespace boss::server
