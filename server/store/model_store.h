// Published model versions on disk.
//
//   <data>/models/<name>/<version>/      immutable: manifest.json, model.safetensors or adapter.safetensors, other
//   files <data>/models/<name>/aliases.json    {"aliases": {alias: version}, "next_version": n}, replaced atomically
//   <data>/models/<name>/schedules/<version>/<set's name>.json
//   <data>/staging/                      what is not yet published; emptied by Open
//
// A version appears whole or not at all: its files are written to <data>/staging and flushed, the folder is flushed,
// renamed into place, and the parent folder flushed. A version number is never used twice.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "core/base/clock.h"
#include "core/flow/schedule.h"
#include "core/flow/velocity_model.h"
#include "core/io/file_system.h"
#include "core/io/safetensors.h"
#include "core/nets/factory.h"
#include "server/store/manifest.h"
#include "server/store/version_use.h"

namespace boss::server {

// Weights of a feature network (core/evaluate/classifier.h) beside the model's.
inline constexpr char kClassifierFile[] = "classifier.safetensors";

// [a-z0-9][a-z0-9._-]{0,62}: what a model or an alias may be called, so that a name is always one folder's name. \error
// INVALID_ARGUMENT.
absl::Status CheckName(absl::string_view what, absl::string_view name);

struct VersionInfo {
  VersionKey key;
  Manifest manifest;
  int64_t size_bytes = 0;            // of all files
  std::vector<std::string> aliases;  // sorted; without the implicit "latest"
};

struct ModelInfo {
  std::string name;
  std::vector<VersionKey> versions;                     // ascending, corrupt ones included
  std::map<std::string, int64_t, std::less<>> aliases;  // without the implicit "latest"
};

struct ExportFile {
  std::string name;  // inside the version's folder
  std::string path;
  int64_t size_bytes = 0;
  std::string sha256;
};

struct ModelStoreOptions {
  // Newest published versions of each model that are kept; older ones go unless something holds them. 0: all.
  int keep_versions = 0;
  int64_t max_bytes = 0;       // quota for the files of all versions, quarantined ones included; 0: none
  int64_t min_free_bytes = 0;  // of the disk, which versions and uploads leave free
};

// A folder under <data>/staging for files on their way in; removed with all it holds when this goes away.
class StagingFolder {
 public:
  StagingFolder(const FileSystem& files, std::string path) : files_(files), path_(std::move(path)) {}
  ~StagingFolder();
  StagingFolder(const StagingFolder&) = delete;
  StagingFolder& operator=(const StagingFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  const FileSystem& files_;
  const std::string path_;
};

// Thread-safe. One store a data folder.
//
// Every method that takes a key: \error NOT_FOUND if there is no such version.
class ModelStore {
 public:
  // Creates the folders, removes what is half-finished, reads all manifests. A corrupt manifest does not stop the
  // others: its version is listed, and asking for it is DATA_LOSS.
  static absl::StatusOr<std::unique_ptr<ModelStore>> Open(const std::string& data_folder, const Clock& clock,
                                                          const FileSystem& files = PosixFileSystem(),
                                                          const ModelStoreOptions& options = {});

  // By name.
  std::vector<ModelInfo> ListModels() const;
  absl::StatusOr<ModelInfo> GetModel(absl::string_view name) const;

  // "name" (its newest version), "name@version", "name@alias", "name@latest". \error NOT_FOUND, INVALID_ARGUMENT for a
  // malformed name.
  absl::StatusOr<VersionKey> Resolve(absl::string_view reference) const;
  // \error DATA_LOSS if the manifest is corrupt.
  absl::StatusOr<VersionInfo> GetVersion(const VersionKey& key) const;

  // A new model on the CPU with the version's weights, adapters merged; its caller owns it. Files are checked against
  // the manifest's SHA-256. \error DATA_LOSS for a corrupt, truncated or missing file.
  absl::StatusOr<std::unique_ptr<VelocityModel>> LoadVersionModel(const VersionKey& key) const;

  // Publishes the next version of `name`. `weights` are the model's State(), or, if manifest.adapter is set, an adapter
  // (see core/finetune/lora.h). The auxiliary files of manifest.parent are carried over. The store fills in sha256 and
  // create_time. \error INVALID_ARGUMENT for a bad name or weights that do not fit the architecture; RESOURCE_EXHAUSTED
  // for a full disk; nothing is published then.
  absl::StatusOr<VersionKey> Publish(absl::string_view name, Manifest manifest, const Safetensors& weights);
  absl::StatusOr<VersionKey> Publish(absl::string_view name, Manifest manifest, const NamedTensors& weights);

  // Publishes the folder {model.safetensors, manifest.json, optional auxiliary *.safetensors} as the next version of
  // `name`; manifest.json may leave out sha256 and create_time. Schedule sets in a sub-folder schedules/*.json come
  // along. \error NOT_FOUND, INVALID_ARGUMENT, DATA_LOSS.
  absl::StatusOr<VersionKey> ImportFolder(const std::string& folder, absl::string_view name);

  absl::StatusOr<std::unique_ptr<StagingFolder>> NewStagingFolder();

  // The version of `name` that `job_id` published. NOT_FOUND if it has not: so a job that is run again does not publish
  // twice.
  absl::StatusOr<VersionKey> FindByJob(absl::string_view name, absl::string_view job_id) const;
  // The version of `name` that the upload of this id published; its manifest has the upload's digest. NOT_FOUND if
  // there is none, also for the empty id: so an upload that is repeated finds its version.
  absl::StatusOr<VersionKey> FindByUpload(absl::string_view name, absl::string_view upload_id) const;

  // Keeps the version from being deleted, unless that is forced, until the use goes away. `by` says who it is, e.g.
  // "job 12ab" or "loaded". The use may outlive the store. \error DATA_LOSS if the version is quarantined.
  absl::StatusOr<VersionUse> Use(const VersionKey& key, std::string by) const;

  // Whether `bytes` more may be written: into the quota, beside what is stored, staged and uploaded, and onto the disk.
  // \error RESOURCE_EXHAUSTED; what the file system reports.
  absl::Status CheckRoom(int64_t bytes) const;

  // The files to copy for a version that ImportFolder takes elsewhere; an adapter is exported as it is. Paths stay
  // valid until the version is deleted.
  absl::StatusOr<std::vector<ExportFile>> OpenForExport(const VersionKey& key) const;
  // The path of a file beside the weights. NOT_FOUND if the version has none of that name; DATA_LOSS if it does not
  // match its SHA-256.
  absl::StatusOr<std::string> AuxiliaryFile(const VersionKey& key, absl::string_view file_name) const;

  // Attaches a schedule set, in place of an earlier one of the same name: a search that is run again replaces its
  // result. \error INVALID_ARGUMENT for a set that is not complete.
  absl::Status AddScheduleSet(const VersionKey& key, const StoredScheduleSet& set);
  // The set for that guidance scale (compared as FormatGuidance writes it) and k_max, or for the largest k_max if
  // `k_max` is 0. \error NOT_FOUND.
  absl::StatusOr<std::shared_ptr<const StoredScheduleSet>> FindScheduleSet(const VersionKey& key, double guidance_scale,
                                                                           int k_max = 0) const;
  // All sets of the version, by guidance scale, then k_max.
  absl::StatusOr<std::vector<std::shared_ptr<const StoredScheduleSet>>> ListScheduleSets(const VersionKey& key) const;
  // What sampling with `steps` solver steps on the best schedule uses: the version's native schedule of as many steps
  // and that guidance scale, else that of FindScheduleSet. \error NOT_FOUND; INVALID_ARGUMENT if a set exists and steps
  // is outside [1, k_max].
  absl::StatusOr<NativeSchedule> FindSchedule(const VersionKey& key, int steps, double guidance_scale) const;

  // Points `alias` at a version, or removes it if `version` is 0. \error INVALID_ARGUMENT for "latest" or a name that
  // does not begin with a letter.
  absl::Status SetAlias(absl::string_view name, absl::string_view alias, int64_t version);

  // \error FAILED_PRECONDITION if an alias points at it (unless `force`; then the alias goes too) or an adapter builds
  // on it.
  absl::Status DeleteVersion(const VersionKey& key, bool force);

 private:
  struct Version {
    absl::StatusOr<Manifest> manifest;
    int64_t size_bytes = 0;
    std::map<std::string, absl::StatusOr<std::shared_ptr<const StoredScheduleSet>>> schedule_sets;  // by file name
  };
  struct Model {
    std::map<int64_t, Version> versions;
    std::map<std::string, int64_t, std::less<>> aliases;
    int64_t next_version = 1;
  };

  ModelStore(std::string data_folder, const Clock& clock, const FileSystem& files, const ModelStoreOptions& options)
      : data_folder_(std::move(data_folder)), clock_(clock), files_(files), options_(options) {}

  absl::Status ReadModel(const std::string& name) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status WriteAliases(absl::string_view name, const Model& model) const;
  // Writes the manifest into a staged folder whose other files are flushed, and moves it into place as the next
  // version.
  absl::StatusOr<VersionKey> PublishFolder(absl::string_view name, Manifest manifest, const StagingFolder& staged);
  // Puts the auxiliary files of `parent` into a staged folder, and their digests into `manifest`. A parent that is gone
  // has none.
  absl::Status CarryOver(const std::string& parent, const StagingFolder& staged, Manifest& manifest) const;
  // A new model with these weights (those of an adapter: merged into its base). \error DATA_LOSS if they do not fit.
  absl::StatusOr<std::unique_ptr<VelocityModel>> BuildModel(const Manifest& manifest, const Safetensors& weights) const;
  absl::StatusOr<Manifest> ManifestOf(const VersionKey& key) const ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<const Version*> Find(const VersionKey& key) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  // The file's bytes, checked.
  absl::StatusOr<std::string> ReadVersionFile(const VersionKey& key, const Manifest& manifest,
                                              const std::string& file_name) const;

  std::string ModelFolder(absl::string_view name) const;
  std::string VersionFolder(const VersionKey& key) const;
  std::string ScheduleFolder(const VersionKey& key) const;

  const std::string data_folder_;
  const Clock& clock_;
  const FileSystem& files_;
  const ModelStoreOptions options_;
  const std::shared_ptr<VersionUses> uses_ = std::make_shared<VersionUses>();
  mutable absl::Mutex mutex_;
  std::map<std::string, Model, std::less<>> models_ ABSL_GUARDED_BY(mutex_);
  int64_t next_staging_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace boss::server
