#include "server/rpc/model_catalog.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/error_details.h"
#include "core/base/status_macros.h"

namespace boss::server {

VersionView ModelCatalog::Version(const VersionKey& key) const {
  VersionView view = {.key = key, .info = store_.GetVersion(key), .status = devices_.Status(key)};
  if (auto sets = store_.ListScheduleSets(key); sets.ok()) view.schedule_sets = *std::move(sets);
  return view;
}

ModelView ModelCatalog::View(ModelInfo info, const std::vector<VersionKey>& newest_first) const {
  ModelView view = {.info = std::move(info), .shape = absl::DataLossError("every version is corrupt")};
  for (const VersionKey& key : newest_first) {
    view.versions.push_back(Version(key));
    if (!view.shape.ok() && view.versions.back().info.ok()) view.shape = devices_.Shape(key);
  }
  return view;
}

ModelView ModelCatalog::ModelOf(ModelInfo info) const {
  const std::vector<VersionKey> newest_first(info.versions.rbegin(), info.versions.rend());
  return View(std::move(info), newest_first);
}

absl::StatusOr<ModelView> ModelCatalog::Model(const std::string& reference) const {
  if (reference.empty()) return FieldError("model", "is required");
  const size_t at = reference.find('@');
  if (at == std::string::npos) {
    BOSS_ASSIGN_OR_RETURN(ModelInfo info, store_.GetModel(reference));
    return ModelOf(std::move(info));
  }
  BOSS_ASSIGN_OR_RETURN(const VersionKey key, store_.Resolve(reference));
  BOSS_ASSIGN_OR_RETURN(ModelInfo info, store_.GetModel(key.name));
  return View(std::move(info), {key});
}

}  // namespace boss::server
