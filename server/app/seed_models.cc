#include "server/app/seed_models.h"

#include <filesystem>
#include <set>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "server/log/log.h"

namespace boss::server {

absl::Status ImportSeedModels(ModelStore& store, const std::string& folder, const absl::Notification* stop) {
  namespace fs = std::filesystem;
  std::error_code error;
  std::set<fs::path> candidates;
  for (fs::directory_iterator entry(folder, error); !error && entry != fs::directory_iterator();
       entry.increment(error)) {
    std::error_code unreadable;
    if (fs::exists(entry->path() / "manifest.json", unreadable)) candidates.insert(entry->path());
    if (unreadable) {
      LogWarn("cannot look into a folder of seed models",
              {{"folder", entry->path().string()}, {"error", unreadable.message()}});
    }
  }
  if (error)
    return absl::NotFoundError(absl::StrCat("cannot read the folder of seed models ", folder, ": ", error.message()));
  for (const fs::path& path : candidates) {
    if (stop != nullptr && stop->HasBeenNotified()) break;
    const std::string name = path.filename().string();
    if (store.GetModel(name).ok()) continue;
    const absl::StatusOr<VersionKey> key = store.ImportFolder(path.string(), name);
    if (key.ok()) {
      LogInfo("imported seed model", {{"version", key->ToString()}});
    } else {
      LogError("cannot import seed model", {{"folder", path.string()}, {"error", key.status()}});
    }
  }
  return absl::OkStatus();
}

}  // namespace boss::server
