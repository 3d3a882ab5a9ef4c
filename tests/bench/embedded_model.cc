#include "tests/bench/embedded_model.h"

#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/io/safetensors.h"
#include "core/nets/factory.h"
#include "nlohmann/json.hpp"

namespace boss {

std::string EmbeddedModelFolder() { return BOSS_SOURCE_DIR "/deploy/models/fashion-mnist"; }

absl::StatusOr<std::unique_ptr<VelocityModel>> LoadEmbeddedModel() {
  const std::string folder = EmbeddedModelFolder();
  std::ifstream file(folder + "/manifest.json");
  const nlohmann::json manifest = nlohmann::json::parse(file, nullptr, /*allow_exceptions=*/false);
  if (!manifest.is_object() || !manifest.contains("architecture"))
    return absl::NotFoundError(absl::StrCat(folder, ": no manifest with an architecture"));
  BOSS_ASSIGN_OR_RETURN(auto model, CreateModel(manifest["architecture"].dump(), 1));
  BOSS_ASSIGN_OR_RETURN(const Safetensors weights, ReadSafetensors(folder + "/model.safetensors"));
  BOSS_RETURN_IF_ERROR(LoadWeights(*model, weights.tensors));
  return model;
}

}  // namespace boss
