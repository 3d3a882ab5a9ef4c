// The schedule sets of versions.
#include <algorithm>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/io/atomic_file.h"
#include "server/store/model_store.h"
#include "server/store/schedule_choice.h"
#include "server/store/store_files.h"

namespace boss::server {
namespace {

std::string FileOf(absl::string_view name) { return absl::StrCat(name, ".json"); }

absl::Status NoSearchedSet(const VersionKey& key, double guidance_scale, SolverKind solver, absl::string_view grid) {
  const char* const kind = solver == SolverKind::kMultistep ? "multistep" : "Bellman";
  return absl::NotFoundError(absl::StrCat(key.ToString(), " has no ", kind, " schedules for guidance scale ",
                                          FormatGuidance(guidance_scale), grid,
                                          "; an OptimizeStepsizesJob makes them"));
}

}  // namespace

absl::StatusOr<std::string> ModelStore::WriteScheduleSet(const VersionKey& key, const StoredScheduleSet& set) const {
  std::string file = FileOf(set.Name());
  BOSS_RETURN_IF_ERROR(files_.CreateFolders(ScheduleFolder(key)));
  BOSS_RETURN_IF_ERROR(CheckFolder(files_, ScheduleFolder(key)));
  BOSS_RETURN_IF_ERROR(
      WriteFileAtomically(absl::StrCat(ScheduleFolder(key), "/", file), ScheduleSetToJson(set), files_));
  return file;
}

absl::Status ModelStore::AddScheduleSet(const VersionKey& key, const StoredScheduleSet& set, bool replace) {
  BOSS_RETURN_IF_ERROR(CheckScheduleSet(set));
  auto stored = std::make_shared<StoredScheduleSet>(set);
  if (stored->create_time == absl::UnixEpoch()) stored->create_time = clock_.Now();
  // The lock is held while writing, so that the version cannot be deleted meanwhile.
  absl::MutexLock lock(&mutex_);
  BOSS_ASSIGN_OR_RETURN(Version* const version, FindPublished(key));
  const auto earlier = version->schedule_sets.find(FileOf(set.Name()));
  if (!replace && earlier != version->schedule_sets.end())
    return absl::AlreadyExistsError(absl::StrCat(key.ToString(), " has a schedule set ", set.Name()));
  const absl::StatusOr<std::string> file = WriteScheduleSet(key, *stored);
  if (!file.ok()) {
    // The new file may be in place, with its folder not flushed: the next start must not find what was refused.
    if (earlier != version->schedule_sets.end()) {
      WriteScheduleSet(key, *earlier->second).IgnoreError();
    } else {
      files_.RemoveAll(absl::StrCat(ScheduleFolder(key), "/", FileOf(set.Name()))).IgnoreError();
      files_.SyncFolder(ScheduleFolder(key)).IgnoreError();
    }
    return file.status();
  }
  version->schedule_sets[*file] = std::move(stored);
  return absl::OkStatus();
}

absl::Status ModelStore::RemoveScheduleSet(const VersionKey& key, absl::string_view name) {
  absl::MutexLock lock(&mutex_);
  BOSS_ASSIGN_OR_RETURN(Version* const version, FindPublished(key));
  const auto found = version->schedule_sets.find(FileOf(name));
  if (found == version->schedule_sets.end())
    return absl::NotFoundError(absl::StrCat(key.ToString(), " has no schedule set ", name));
  const std::string path = absl::StrCat(ScheduleFolder(key), "/", found->first);
  const StagingFolder gone(files_, NewStagingPath());  // removes the file
  const absl::Status moved = MoveAndSync(files_, path, gone.path());
  // What might be back after a crash is not deleted, unless it cannot even be put back now.
  const bool is_back = !moved.ok() && (files_.Rename(gone.path(), path).ok() || !files_.Stat(gone.path()).ok());
  if (is_back) return moved;
  version->schedule_sets.erase(found);
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const StoredScheduleSet>> ModelStore::FindScheduleSet(const VersionKey& key,
                                                                                     double guidance_scale,
                                                                                     SolverKind solver,
                                                                                     int steps) const {
  absl::ReaderMutexLock lock(&mutex_);
  BOSS_ASSIGN_OR_RETURN(const Version* version, FindPublished(key));
  std::vector<std::shared_ptr<const StoredScheduleSet>> sets;
  for (const auto& [file, stored] : version->schedule_sets) sets.push_back(stored);
  std::shared_ptr<const StoredScheduleSet> chosen = ChooseScheduleSet(sets, guidance_scale, solver, steps);
  if (chosen != nullptr) return chosen;
  return NoSearchedSet(key, guidance_scale, solver, "");
}

absl::StatusOr<std::shared_ptr<const StoredScheduleSet>> ModelStore::FindScheduleSet(const VersionKey& key,
                                                                                     double guidance_scale,
                                                                                     const TimeGrid& fine_grid) const {
  absl::ReaderMutexLock lock(&mutex_);
  BOSS_ASSIGN_OR_RETURN(const Version* version, FindPublished(key));
  for (const auto& [file, stored] : version->schedule_sets) {
    const bool is_euler = IsSearchedFor(*stored, guidance_scale, SolverKind::kEuler);
    if (is_euler && stored->set.FineGrid() == fine_grid) return stored;
  }
  return NoSearchedSet(key, guidance_scale, SolverKind::kEuler,
                       absl::StrCat(" and this fine grid of ", fine_grid.steps(), " intervals"));
}

absl::StatusOr<std::shared_ptr<const StoredScheduleSet>> ModelStore::FindScheduleSet(const VersionKey& key,
                                                                                     absl::string_view name) const {
  absl::ReaderMutexLock lock(&mutex_);
  BOSS_ASSIGN_OR_RETURN(const Version* version, FindPublished(key));
  for (const auto& [file, stored] : version->schedule_sets) {
    if (stored->Name() == name) return stored;
  }
  return absl::NotFoundError(absl::StrCat(key.ToString(), " has no schedule set ", name));
}

absl::StatusOr<std::vector<std::shared_ptr<const StoredScheduleSet>>> ModelStore::ListScheduleSets(
    const VersionKey& key) const {
  absl::ReaderMutexLock lock(&mutex_);
  BOSS_ASSIGN_OR_RETURN(const Version* version, FindPublished(key));
  std::vector<std::tuple<double, int, std::string, std::shared_ptr<const StoredScheduleSet>>> ordered;
  for (const auto& [file, stored] : version->schedule_sets)
    ordered.emplace_back(stored->set.guidance_scale, stored->set.k_max, stored->Name(), stored);
  std::sort(ordered.begin(), ordered.end());
  std::vector<std::shared_ptr<const StoredScheduleSet>> sets;
  for (auto& item : ordered) sets.push_back(std::move(std::get<3>(item)));
  return sets;
}

absl::StatusOr<NativeSchedule> ModelStore::FindSchedule(const VersionKey& key, int steps, double guidance_scale) const {
  BOSS_ASSIGN_OR_RETURN(const Manifest manifest, ManifestOf(key));
  if (const NativeSchedule* const native = FindNativeSchedule(manifest, steps, guidance_scale)) return *native;
  BOSS_ASSIGN_OR_RETURN(const auto stored, FindScheduleSet(key, guidance_scale));
  const ScheduleSet& set = stored->set;
  if (steps < 1 || steps > set.k_max) {
    return absl::InvalidArgumentError(
        absl::StrCat("steps: got ", steps, ", expected 1 to ", set.k_max, " for a Bellman schedule"));
  }
  return NativeSchedule{"bellman", set.guidance_scale, set.k_max, set.schedules[steps - 1]};
}

}  // namespace boss::server
