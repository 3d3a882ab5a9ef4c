// Folders on disk with absl::Status, and the names of a version's files.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace boss::server {

inline constexpr char kManifestFile[] = "manifest.json";
inline constexpr char kWeightsFile[] = "model.safetensors";
inline constexpr char kAdapterFile[] = "adapter.safetensors";

// \error what the system reports, naming the path.
absl::Status CreateFolders(const std::string& path);
// Not an error if there is nothing.
absl::Status RemoveAll(const std::string& path);
absl::Status Rename(const std::string& from, const std::string& to);
// Names of the entries, sorted. \error NOT_FOUND, ...
absl::StatusOr<std::vector<std::string>> ListFolder(const std::string& path);
// Bytes of the regular files in a folder; what cannot be read counts nothing.
int64_t FolderSize(const std::string& path);
// A second name for the bytes of an immutable file: a hard link, or a flushed copy where the file system has none.
absl::Status LinkOrCopy(const std::string& from, const std::string& to);

}  // namespace boss::server
