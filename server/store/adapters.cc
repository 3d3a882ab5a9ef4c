// Versions that are low-rank deltas on others.
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/finetune/lora.h"
#include "server/store/model_store.h"
#include "server/store/store_files.h"

namespace boss::server {

absl::Status ModelStore::NoBase(const AdapterInfo& adapter) {
  return absl::FailedPreconditionError(absl::StrCat("the adapter's base ", adapter.base.ToString(), " does not exist"));
}

absl::Status ModelStore::NoAdapter(const VersionKey& key) {
  return absl::FailedPreconditionError(absl::StrCat(key.ToString(), " is no adapter"));
}

absl::StatusOr<Manifest> ModelStore::BaseOf(const AdapterInfo& adapter) const {
  absl::StatusOr<Manifest> base = ManifestOf(adapter.base);
  return absl::IsNotFound(base.status()) ? NoBase(adapter) : base;
}

absl::Status ModelStore::CheckAdapterFit(const AdapterInfo& adapter, const Safetensors& deltas) const {
  BOSS_ASSIGN_OR_RETURN(const Manifest base, BaseOf(adapter));
  // Names and shapes are all that is asked of the base.
  BOSS_ASSIGN_OR_RETURN(const std::unique_ptr<VelocityModel> model,
                        CreateModel(base.architecture_json, /*seed=*/std::nullopt));
  const absl::Status status = CheckAdapter(*model, deltas);
  // Deltas that do not fit are the caller's mistake here, not a loss.
  return absl::IsDataLoss(status) ? absl::InvalidArgumentError(status.message()) : status;
}

absl::StatusOr<Safetensors> ModelStore::WithBaseMetadata(const AdapterInfo& adapter, Safetensors deltas) const {
  BOSS_ASSIGN_OR_RETURN(const Manifest base, BaseOf(adapter));
  deltas.metadata[kAdapterBaseMetadata] = adapter.base.ToString();
  const auto digest = base.sha256.find(WeightsFile(base));
  if (digest != base.sha256.end()) deltas.metadata[kAdapterBaseDigestMetadata] = digest->second;
  return deltas;
}

absl::StatusOr<AdapterWeights> ModelStore::LoadAdapterWeights(const VersionKey& key) const {
  BOSS_ASSIGN_OR_RETURN(Manifest manifest, ManifestOf(key));
  if (!manifest.adapter) return NoAdapter(key);
  AdapterWeights adapter;
  BOSS_ASSIGN_OR_RETURN(adapter.deltas, ReadWeights(key, manifest));
  // A base is older than its adapter, so this ends.
  for (;;) {
    adapter.base = manifest.adapter->base;
    BOSS_ASSIGN_OR_RETURN(manifest, BaseOf(*manifest.adapter));
    if (!manifest.adapter) return adapter;
    BOSS_ASSIGN_OR_RETURN(const Safetensors lower, ReadWeights(adapter.base, manifest));
    BOSS_ASSIGN_OR_RETURN(adapter.deltas, StackAdapters(lower, adapter.deltas));
  }
}

absl::StatusOr<VersionKey> ModelStore::MergeAdapter(const VersionKey& key, absl::string_view name,
                                                    std::string description, VersionUse* use) {
  BOSS_ASSIGN_OR_RETURN(const VersionUse adapter_use, Use(key, "being merged"));
  BOSS_ASSIGN_OR_RETURN(Manifest manifest, ManifestOf(key));
  if (!manifest.adapter) return NoAdapter(key);
  BOSS_ASSIGN_OR_RETURN(const std::unique_ptr<VelocityModel> merged, LoadVersionModel(key));
  std::vector<StoredScheduleSet> sets;
  BOSS_ASSIGN_OR_RETURN(const auto stored, ListScheduleSets(key));
  for (const auto& set : stored) sets.push_back(*set);
  Safetensors weights = {.tensors = merged->State(), .metadata = {{"architecture", manifest.architecture_json}}};
  manifest.parent = key.ToString();
  manifest.adapter.reset();
  // These tell of the adapter version.
  manifest.job_id.clear();
  manifest.upload_id.clear();
  manifest.upload_digest.clear();
  manifest.evaluation.clear();
  manifest.description = std::move(description);
  return Publish(name, std::move(manifest), weights, sets, /*others=*/{}, use);
}

}  // namespace boss::server
