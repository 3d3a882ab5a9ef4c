#include "server/app/seed_models.h"

#include <filesystem>
#include <set>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "server/log/log.h"

namespace boss::server {

absl::Status ImportSeedModels(ModelStore& store, const std::string& folder) {
  namespace fs = std::filesystem;
  std::error_code error;
  std::set<fs::path> candidates;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    if (fs::exists(entry.path() / "manifest.json")) candidates.insert(entry.path());
  }
  if (error)
    return absl::NotFoundError(absl::StrCat("cannot read the folder of seed models ", folder, ": ", error.message()));
  for (const fs::path& path : candidates) {
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
