// Published model versions on disk.
//
//   <data>/models/<name>/<version>/   immutable: manifest.json, model.safetensors, adapter.safetensors or model.torchscript, other files
//   <data>/models/<name>/aliases.json    {"aliases": {alias: version}, "next_version": n}, replaced atomically
//   <data>/models/<name>/schedules/<version>/<set's name>.json
//   <data>/models/<name>/used/<version>/    empty: a number that is used up although no version here has it any more
//   <data>/quarantine/<name>/<version>/     a version that was found corrupt; beside it, in <version>.json, why
//   <data>/quarantine/<name>/files/         other files and folders that were found corrupt
//   <data>/staging/                         what is not yet published or no longer; emptied by Open
//
// A version appears whole or not at all: its files are written to <data>/staging and flushed, the folder is flushed,
// renamed into place, and the parent folder flushed. A version number is never used twice. Symbolic links below models/
// are not followed: where a file or a folder should be, a link counts as corrupt.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "core/base/clock.h"
#include "core/flow/schedule.h"
#include "core/flow/velocity_model.h"
#include "core/io/file_system.h"
#include "core/io/safetensors.h"
#include "core/nets/decoder.h"
#include "core/nets/factory.h"
#include "server/store/manifest.h"
#include "server/store/schedule_set.h"
#include "server/store/store_files.h"
#include "server/store/version_use.h"

namespace boss::server {

// Weights of a feature network (core/evaluate/classifier.h) beside the model's.
inline constexpr char kClassifierFile[] = "classifier.safetensors";

// [a-z0-9][a-z0-9._-]{0,62}: what a model or an alias may be called, so that a name is always one folder's name. \error
// INVALID_ARGUMENT.
absl::Status CheckName(absl::string_view what, absl::string_view name);
// A name that an alias can have: it begins with a letter and is not "latest". \error INVALID_ARGUMENT.
absl::Status CheckAlias(absl::string_view what, absl::string_view alias);

struct VersionInfo {
  VersionKey key;
  Manifest manifest;
  int64_t size_bytes = 0;            // of all files
  std::vector<std::string> aliases;  // sorted; without the implicit "latest"
};

struct ModelInfo {
  std::string name;
  std::vector<VersionKey> versions;                     // ascending, quarantined ones included
  int64_t latest = 0;                                   // the newest that can be loaded; 0: none can
  std::map<std::string, int64_t, std::less<>> aliases;  // without the implicit "latest"
};

struct ExportFile {
  std::string name;  // inside the version's folder
  std::string path;
  int64_t size_bytes = 0;
  std::string sha256;
};

// An adapter version's deltas on a version that is no adapter, for LoadAdapter (core/finetune/lora.h). Where the
// version's own base is an adapter, both deltas are in it.
struct AdapterWeights {
  VersionKey base;
  Safetensors deltas;
};

struct StoreTotals {
  int64_t published = 0, quarantined = 0;  // versions
  int64_t bytes = 0;                       // of the files of both
};

struct ModelStoreOptions {
  // Newest published versions of each model that are kept; older ones go unless something holds them. 0: all.
  int keep_versions = 0;
  int64_t max_bytes = 0;       // quota for the files of all versions, quarantined ones included; 0: none
  int64_t min_free_bytes = 0;  // of the disk, which uploads leave free for work that has begun
  // Whether TorchScript modules, which run code of their authors', are loaded and taken.
  bool allow_torchscript = false;
};

// Files to publish beside a version's weights, by name.
using VersionFiles = std::vector<std::pair<std::string, absl::string_view>>;

// A folder under <data>/staging for files on their way in or out; removed with all it holds when this goes away.
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
// A version is quarantined if it is found corrupt, when the store opens or when it is read: it is moved aside, stays
// listed, and asking for what is in it is DATA_LOSS that says what is wrong, over restarts too, until it is deleted.
// What cannot be moved, or cannot be read for another reason, stays where it is, is treated alike, and is read again by
// the next Open. If an operator has put a good copy in its place, that is served.
//
// Every method that takes a key: \error NOT_FOUND if there is no such version; DATA_LOSS if it is quarantined, unless
// said otherwise.
class ModelStore {
 public:
  // Creates the folders, removes what is half-finished, reads everything and quarantines what is corrupt. Nothing that
  // is wrong with one model stops the others.
  static absl::StatusOr<std::unique_ptr<ModelStore>> Open(const std::string& data_folder, const Clock& clock,
                                                          const FileSystem& files = PosixFileSystem(),
                                                          const ModelStoreOptions& options = {});

  // By name.
  std::vector<ModelInfo> ListModels() const;
  absl::StatusOr<ModelInfo> GetModel(absl::string_view name) const;

  // "name" (its newest version), "name@version", "name@alias", "name@latest". \error NOT_FOUND, INVALID_ARGUMENT for a
  // malformed name.
  absl::StatusOr<VersionKey> Resolve(absl::string_view reference) const;
  absl::StatusOr<VersionInfo> GetVersion(const VersionKey& key) const;

  // A new model on the CPU with the version's weights, adapters merged; its caller owns it. Files are checked against
  // the manifest's SHA-256. \error DATA_LOSS for a corrupt, truncated or missing file, which quarantines the version;
  // FAILED_PRECONDITION for an adapter whose base was deleted.
  // PERMISSION_DENIED for a TorchScript module where the options do not allow them.
  absl::StatusOr<std::unique_ptr<VelocityModel>> LoadVersionModel(const VersionKey& key) const;
  // The version's decoder, on the CPU; null if it has none. \error as LoadVersionModel.
  absl::StatusOr<std::unique_ptr<Decoder>> LoadVersionDecoder(const VersionKey& key) const;

  // Publishes the next version of `name`. `weights` are the model's State(), or, if manifest.adapter is set, an adapter
  // (see core/finetune/lora.h). The auxiliary files of manifest.parent are carried over. The store fills in sha256 and
  // create_time, and an adapter's file says what its base is (store_files.h). `sets` are the version's schedule sets from
  // the beginning, `others` files beside the weights. Older versions that the options do not keep are deleted then. \error INVALID_ARGUMENT for a bad name
  // or weights that do not fit the architecture; RESOURCE_EXHAUSTED above the quota (of versions alone: this may be
  // what was uploaded) and for a full disk; nothing is published then.
  // `use`, if it is not null: a use of the new version from its beginning, for who has yet to point at it.
  absl::StatusOr<VersionKey> Publish(absl::string_view name, Manifest manifest, const Safetensors& weights,
                                     const std::vector<StoredScheduleSet>& sets = {}, const VersionFiles& others = {},
                                     VersionUse* use = nullptr);
  absl::StatusOr<VersionKey> Publish(absl::string_view name, Manifest manifest, const NamedTensors& weights);

  // Publishes a version whose weights are a TorchScript archive. \error as Publish; PERMISSION_DENIED.
  absl::StatusOr<VersionKey> PublishArchive(absl::string_view name, Manifest manifest, absl::string_view archive,
                                            const VersionFiles& others = {}, VersionUse* use = nullptr);
  // OK if TorchScript modules may be loaded. \error PERMISSION_DENIED; `what` leads the message.
  absl::Status CheckTorchScriptAllowed(absl::string_view what) const;

  // Whether Publish takes weights of that manifest. \error INVALID_ARGUMENT naming what does not fit, in the words of
  // CheckWeights (core/nets/factory.h); FAILED_PRECONDITION for an adapter whose base was deleted.
  absl::Status CheckFit(const Manifest& manifest, const Safetensors& weights) const;

  // \error as LoadVersionModel; FAILED_PRECONDITION if the version is no adapter.
  absl::StatusOr<AdapterWeights> LoadAdapterWeights(const VersionKey& key) const;
  // Publishes an adapter version with its deltas merged as the next version of `name`: a full version with the adapter's
  // schedules, whose parent it is. \error as LoadAdapterWeights and Publish.
  absl::StatusOr<VersionKey> MergeAdapter(const VersionKey& key, absl::string_view name, std::string description,
                                          VersionUse* use = nullptr);

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
  // "job 12ab" or "loaded". The use may outlive the store.
  absl::StatusOr<VersionUse> Use(const VersionKey& key, std::string by) const;

  // Whether `bytes` more may be uploaded: into the quota, beside what is stored, staged and uploaded, and onto the
  // disk, less what must stay free. \error RESOURCE_EXHAUSTED; what the file system reports.
  absl::Status CheckRoom(int64_t bytes) const;
  StoreTotals Totals() const;

  // The files to copy for a version that ImportFolder takes elsewhere; an adapter is exported as it is. Paths stay
  // valid until the version is deleted.
  absl::StatusOr<std::vector<ExportFile>> OpenForExport(const VersionKey& key) const;
  // The path of a file beside the weights. NOT_FOUND if the version has none of that name; DATA_LOSS if it does not
  // match its SHA-256, which quarantines the version.
  absl::StatusOr<std::string> AuxiliaryFile(const VersionKey& key, absl::string_view file_name) const;

  // Attaches a schedule set, in place of an earlier one of the same name: a search that is run again replaces its
  // result. \error INVALID_ARGUMENT for a set that is not complete; ALREADY_EXISTS if there is one and `replace` is
  // false.
  absl::Status AddScheduleSet(const VersionKey& key, const StoredScheduleSet& set, bool replace = true);
  // Those who have the set go on with it. \error NOT_FOUND if the version has no set of that name.
  absl::Status RemoveScheduleSet(const VersionKey& key, absl::string_view name);
  // Of the searched sets that no client named, the one for that solver and guidance scale, and for `steps` if they are
  // not 0, as ChooseScheduleSet takes it: it need not have a schedule of so many. \error NOT_FOUND.
  absl::StatusOr<std::shared_ptr<const StoredScheduleSet>> FindScheduleSet(const VersionKey& key, double guidance_scale,
                                                                           SolverKind solver = SolverKind::kEuler,
                                                                           int steps = 0) const;
  // The one for Euler over exactly that fine grid. \error NOT_FOUND.
  absl::StatusOr<std::shared_ptr<const StoredScheduleSet>> FindScheduleSet(const VersionKey& key, double guidance_scale,
                                                                           const TimeGrid& fine_grid) const;
  // \error NOT_FOUND.
  absl::StatusOr<std::shared_ptr<const StoredScheduleSet>> FindScheduleSet(const VersionKey& key,
                                                                           absl::string_view name) const;
  // All sets of the version, by guidance scale, then k_max, then name.
  absl::StatusOr<std::vector<std::shared_ptr<const StoredScheduleSet>>> ListScheduleSets(const VersionKey& key) const;
  // What sampling with `steps` solver steps on the best schedule uses: the version's native schedule of as many steps
  // and that guidance scale, else that of FindScheduleSet. \error NOT_FOUND; INVALID_ARGUMENT if a set exists and steps
  // is outside [1, k_max].
  absl::StatusOr<NativeSchedule> FindSchedule(const VersionKey& key, int steps, double guidance_scale) const;

  // Points `alias` at a version, or removes it if `version` is 0. \error INVALID_ARGUMENT for "latest" or a name that
  // does not begin with a letter.
  absl::Status SetAlias(absl::string_view name, absl::string_view alias, int64_t version);

  // Also of a quarantined version. Its aliases go, too. \error unless `force`, FAILED_PRECONDITION naming what holds
  // it: a use, an alias, or an adapter that builds on it.
  absl::Status DeleteVersion(const VersionKey& key, bool force);
  // Deletes the versions that the options do not keep and nothing holds. For after the start, once everybody who needs
  // versions uses them; Publish does it for the model that it adds to.
  void CollectGarbage();

 private:
  struct Version {
    absl::StatusOr<Manifest> manifest;  // an error: quarantined
    int64_t size_bytes = 0;
    std::map<std::string, std::shared_ptr<const StoredScheduleSet>> schedule_sets;  // by file name
  };
  struct Model {
    std::map<int64_t, Version> versions;
    std::map<std::string, int64_t, std::less<>> aliases;
    int64_t next_version = 1;
    // Why some of it could not be read: until that is mended, nothing may be added or overwritten.
    absl::Status unreadable;
  };

  ModelStore(std::string data_folder, const Clock& clock, const FileSystem& files, const ModelStoreOptions& options)
      : data_folder_(std::move(data_folder)), clock_(clock), files_(files), options_(options) {}

  // ---- store_recovery.cc: what is found on the disk ----
  void ReadModel(const std::string& name) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status ReadModelFolder(const std::string& name, Model& model) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ReadVersion(const VersionKey& key, Model& model) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ReadQuarantine(const std::string& name, Model& model) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status ReadAliases(const std::string& name, Model& model) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Also removes those of versions that are gone.
  void ReadSchedules(const std::string& name, Model& model) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ReadScheduleSet(const VersionKey& key, const std::string& file, Version& version)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Moves the version's folder to the quarantine, if that is possible.
  void Quarantine(const VersionKey& key, Version& version, const absl::Status& why) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Moves a corrupt file or folder that is no version to quarantine/<name>/files/<label>. \return whether it could be.
  bool SetAside(const std::string& name, const std::string& path, const std::string& label,
                const absl::Status& why) const;
  // Puts the number down as used, for when the version is no longer in its place.
  absl::Status KeepNumber(const VersionKey& key, const Model& model) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);

  // ---- adapters.cc ----
  static absl::Status NoBase(const AdapterInfo& adapter);
  static absl::Status NoAdapter(const VersionKey& key);
  // \error FAILED_PRECONDITION if it was deleted.
  absl::StatusOr<Manifest> BaseOf(const AdapterInfo& adapter) const;
  // \error as CheckFit.
  absl::Status CheckAdapterFit(const AdapterInfo& adapter, const Safetensors& deltas) const;
  // The same tensors, and metadata that says what they are deltas on.
  absl::StatusOr<Safetensors> WithBaseMetadata(const AdapterInfo& adapter, Safetensors deltas) const;

  // ---- archives.cc ----
  absl::StatusOr<std::unique_ptr<VelocityModel>> LoadArchive(const VersionKey& key, const Manifest& manifest) const;
  // \error PERMISSION_DENIED before anything is read.
  absl::StatusOr<std::shared_ptr<const std::string>> ReadArchive(const VersionKey& key, const Manifest& manifest,
                                                                 const std::string& file_name) const;

  // ---- publish.cc ----
  // Passes the contents of a file, piece by piece, to its argument.
  using FileWriter = std::function<absl::Status(const std::function<absl::Status(std::string_view)>&)>;
  // Writes a file into a staged folder, and its digest into `manifest`.
  absl::Status WriteStaged(const StagingFolder& staged, const std::string& file_name, const FileWriter& write,
                           Manifest& manifest) const;
  // Publishes weights, `size` bytes in the file of WeightsFile(manifest), with the other files.
  absl::StatusOr<VersionKey> PublishWeights(absl::string_view name, Manifest manifest, int64_t size,
                                            const FileWriter& write, const std::vector<StoredScheduleSet>& sets,
                                            const VersionFiles& others, VersionUse* use);
  // Writes the manifest into a staged folder whose other files are flushed, and moves it into place as the next
  // version, with its schedule sets.
  absl::StatusOr<VersionKey> PublishFolder(absl::string_view name, Manifest manifest, const StagingFolder& staged,
                                           const std::vector<StoredScheduleSet>& sets, VersionUse* use);
  absl::StatusOr<VersionKey> MoveIntoPlace(absl::string_view name, const StagingFolder& staged,
                                           const std::vector<StoredScheduleSet>& sets, Version version)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Puts the auxiliary files of `parent` into a staged folder, and their digests into `manifest`. A parent that is gone
  // or corrupt has none.
  absl::Status CarryOver(const std::string& parent, const StagingFolder& staged, Manifest& manifest) const;
  // The version's weights file, parsed.
  absl::StatusOr<Safetensors> ReadWeights(const VersionKey& key, const Manifest& manifest) const;
  // A new model with these weights (those of an adapter: merged into its base). \error DATA_LOSS if they do not fit.
  absl::StatusOr<std::unique_ptr<VelocityModel>> BuildModel(const Manifest& manifest, const Safetensors& weights) const;

  // ---- schedule_store.cc ----
  // Writes a set that is complete. \return the file's name.
  absl::StatusOr<std::string> WriteScheduleSet(const VersionKey& key, const StoredScheduleSet& set) const;

  // ---- store_policy.cc ----
  int64_t StoredBytes() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  // RESOURCE_EXHAUSTED if so many bytes more do not fit beside the `used` ones.
  absl::Status CheckQuota(int64_t used, int64_t bytes) const;
  // RESOURCE_EXHAUSTED if the disk has no room for so many bytes more and `reserve` after that.
  absl::Status CheckDisk(int64_t bytes, int64_t reserve) const;
  // What keeps the version from being deleted; empty: nothing.
  std::string HeldBy(const VersionKey& key) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  using Trash = std::vector<std::unique_ptr<StagingFolder>>;
  // Deletes it, whatever holds it. Its files are gone when `trash` is.
  absl::Status Remove(const VersionKey& key, Trash& trash) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Of one model, or of all if `only` is empty.
  void CollectGarbageOf(absl::string_view only) ABSL_LOCKS_EXCLUDED(mutex_);

  // ---- model_store.cc ----
  absl::Status WriteAliases(absl::string_view name, const Model& model) const;
  absl::StatusOr<Manifest> ManifestOf(const VersionKey& key) const ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<Version*> Find(const VersionKey& key) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  // A version that is not quarantined.
  absl::StatusOr<Version*> FindPublished(const VersionKey& key) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  // Neither it nor, for an adapter, its base is quarantined or gone.
  bool CanBeLoaded(const Version& version) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  int64_t LatestOf(const Model& model) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<VersionKey> FindWhere(absl::string_view name,
                                       const std::function<bool(const Manifest&)>& matches) const
      ABSL_LOCKS_EXCLUDED(mutex_);
  // The file's bytes, checked. \error DATA_LOSS, which quarantines the version.
  absl::StatusOr<std::string> ReadVersionFile(const VersionKey& key, const Manifest& manifest,
                                              const std::string& file_name) const ABSL_LOCKS_EXCLUDED(mutex_);
  // Quarantines the version because of what reading it said, unless it was deleted meanwhile. \return what asking for
  // it says from now on.
  absl::Status OnCorrupt(const VersionKey& key, const absl::Status& why) const ABSL_LOCKS_EXCLUDED(mutex_);

  std::string NewStagingPath() { return absl::StrCat(data_folder_, "/", kStagingFolder, "/", next_staging_++); }
  std::string ModelFolder(absl::string_view name) const;
  std::string VersionFolder(const VersionKey& key) const;
  std::string ScheduleFolder(const VersionKey& key) const;
  std::string QuarantineFolder(absl::string_view name) const;
  std::string QuarantinedFolder(const VersionKey& key) const;

  const std::string data_folder_;
  const Clock& clock_;
  const FileSystem& files_;
  const ModelStoreOptions options_;
  const std::shared_ptr<VersionUses> uses_ = std::make_shared<VersionUses>();
  std::atomic<int64_t> next_staging_ = 1;
  mutable absl::Mutex mutex_;
  // Reading may find that a version is corrupt.
  mutable std::map<std::string, Model, std::less<>> models_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace boss::server
