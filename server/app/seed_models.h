// Models that a server comes with.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/synchronization/notification.h"
#include "server/store/model_store.h"

namespace boss::server {

// Imports each sub-folder of `folder` that has a manifest.json as a model of the sub-folder's name, unless the store
// has a model of that name. A folder that cannot be read or imported is logged and left out. Ends before the next one
// once `stop`, unless it is null, is notified. \error NOT_FOUND if there is no `folder`.
absl::Status ImportSeedModels(ModelStore& store, const std::string& folder, const absl::Notification* stop = nullptr);

}  // namespace boss::server
