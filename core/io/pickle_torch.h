// What the globals and persistent ids of torch.save mean.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/io/unpickler.h"

namespace boss {

// OK for the few names that Unpickle() lets through; INVALID_ARGUMENT naming any other.
absl::Status CheckGlobal(const std::string& name);

// The result of calling an allowed global. \error DATA_LOSS for arguments that torch.save does not write.
absl::StatusOr<PickleValue> CallGlobal(const PickleGlobal& function, const PickleTuple& arguments);

// A new object, whose attributes may be set afterwards: of argparse.Namespace, an empty dictionary. \error
// INVALID_ARGUMENT for any other.
absl::StatusOr<PickleValue> NewObject(const PickleGlobal& type, const PickleTuple& arguments);

// The storage behind the persistent id ('storage', type, key, location, numel). \error DATA_LOSS for anything else.
absl::StatusOr<PickleValue> StorageFromPersistentId(const PickleValue& id);

}  // namespace boss
