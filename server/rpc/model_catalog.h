// What the server knows of its models, from the store and the devices together.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/engine/device_pool.h"
#include "server/store/model_store.h"

namespace boss::server {

struct VersionView {
  VersionKey key;
  absl::StatusOr<VersionInfo> info;  // an error for a corrupt version
  ModelStatus status;
  std::vector<std::shared_ptr<const StoredScheduleSet>> schedule_sets;
};

struct ModelView {
  ModelInfo info;
  std::vector<VersionView> versions;  // newest first
  absl::StatusOr<ModelShape> shape;   // of the newest version that is not corrupt; an error if there is none
};

// Thread-safe. The methods block on the disk. `store` and `devices` outlive it.
class ModelCatalog {
 public:
  ModelCatalog(const ModelStore& store, DevicePool& devices) : store_(store), devices_(devices) {}

  VersionView Version(const VersionKey& key) const;
  // All versions for NAME, one for NAME@VERSION and NAME@ALIAS. \error NOT_FOUND, INVALID_ARGUMENT.
  absl::StatusOr<ModelView> Model(const std::string& reference) const;
  ModelView ModelOf(ModelInfo info) const;

 private:
  ModelView View(ModelInfo info, const std::vector<VersionKey>& newest_first) const;

  const ModelStore& store_;
  DevicePool& devices_;
};

}  // namespace boss::server
