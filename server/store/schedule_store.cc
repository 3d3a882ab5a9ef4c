// The schedule sets of versions.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/io/atomic_file.h"
#include "server/store/model_store.h"
#include "server/store/store_files.h"

namespace boss::server {
namespace {

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

absl::StatusOr<std::string> ModelStore::WriteScheduleSet(const VersionKey& key, const StoredScheduleSet& set) const {
  std::string file = absl::StrCat(set.Name(), ".json");
  BOSS_RETURN_IF_ERROR(files_.CreateFolders(ScheduleFolder(key)));
  BOSS_RETURN_IF_ERROR(CheckFolder(files_, ScheduleFolder(key)));
  BOSS_RETURN_IF_ERROR(
      WriteFileAtomically(absl::StrCat(ScheduleFolder(key), "/", file), ScheduleSetToJson(set), files_));
  return file;
}

absl::Status ModelStore::AddScheduleSet(const VersionKey& key, const StoredScheduleSet& set) {
  BOSS_RETURN_IF_ERROR(CheckScheduleSet(set.set));
  auto stored = std::make_shared<StoredScheduleSet>(set);
  if (stored->create_time == absl::UnixEpoch()) stored->create_time = clock_.Now();
  // The lock is held while writing, so that the version cannot be deleted meanwhile.
  absl::MutexLock lock(&mutex_);
  BOSS_ASSIGN_OR_RETURN(Version* const version, FindPublished(key));
  BOSS_ASSIGN_OR_RETURN(const std::string file, WriteScheduleSet(key, *stored));
  version->schedule_sets[file] = std::move(stored);
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const StoredScheduleSet>> ModelStore::FindScheduleSet(const VersionKey& key,
                                                                                     double guidance_scale,
                                                                                     int k_max) const {
  absl::ReaderMutexLock lock(&mutex_);
  BOSS_ASSIGN_OR_RETURN(const Version* version, FindPublished(key));
  std::shared_ptr<const StoredScheduleSet> best;
  for (const auto& [file, stored] : version->schedule_sets) {
    if (FormatGuidance(stored->set.guidance_scale) != FormatGuidance(guidance_scale)) continue;
    if (k_max != 0 && stored->set.k_max != k_max) continue;
    if (best == nullptr || stored->set.k_max > best->set.k_max) best = stored;
  }
  if (best != nullptr) return best;
  return absl::NotFoundError(
      absl::StrCat(key.ToString(), " has no Bellman schedules for guidance scale ", FormatGuidance(guidance_scale),
                   k_max == 0 ? "" : absl::StrCat(" and k_max ", k_max), "; an OptimizeStepsizesJob makes them"));
}

absl::StatusOr<std::vector<std::shared_ptr<const StoredScheduleSet>>> ModelStore::ListScheduleSets(
    const VersionKey& key) const {
  absl::ReaderMutexLock lock(&mutex_);
  BOSS_ASSIGN_OR_RETURN(const Version* version, FindPublished(key));
  std::vector<std::shared_ptr<const StoredScheduleSet>> sets;
  for (const auto& [file, stored] : version->schedule_sets) sets.push_back(stored);
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

}  // namespace boss::server
