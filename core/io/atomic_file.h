// Files that are either there whole or not at all.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace boss {

// Writes a temporary file in the same folder, flushes it to the disk (fsync), renames it over `path`, and flushes the folder.
// \error what the system reports (RESOURCE_EXHAUSTED for a full disk or quota, PERMISSION_DENIED, NOT_FOUND, ...), naming the operation and the path; then no
// temporary file is left and an older file at `path` is untouched.
absl::Status WriteFileAtomically(const std::string& path, std::string_view contents);

// \error NOT_FOUND, PERMISSION_DENIED, ...
absl::StatusOr<std::string> ReadFile(const std::string& path);

// Flushes a folder's entries to the disk.
absl::Status SyncFolder(const std::string& path);

// A status from errno.
absl::Status ErrnoToStatus(int error_number, std::string_view operation, std::string_view path);

}  // namespace boss
