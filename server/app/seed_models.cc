#include "server/app/seed_models.h"

#include <spdlog/spdlog.h>

#include <filesystem>
#include <set>
#include <system_error>

#include "absl/strings/str_cat.h"

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
      spdlog::info("imported seed model version={}", key->ToString());
    } else {
      spdlog::error("cannot import seed model folder={} error={}", path.string(), key.status().ToString());
    }
  }
  return absl::OkStatus();
}

}  // namespace boss::server
