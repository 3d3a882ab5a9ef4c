// What the store does with folders, and the names of its files.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "core/io/file_system.h"

namespace boss::server {

inline constexpr char kManifestFile[] = "manifest.json";
inline constexpr char kWeightsFile[] = "model.safetensors";
inline constexpr char kAdapterFile[] = "adapter.safetensors";
// <data>/uploads: what clients are uploading. It counts for the quota; the store itself never touches it.
inline constexpr char kUploadsFolder[] = "uploads";

// Bytes of the regular files in a folder and those below it; what cannot be read counts nothing.
int64_t FolderSize(const FileSystem& files, const std::string& path);
// A second name for the bytes of an immutable file: a hard link, or a flushed copy where the file system has none.
absl::Status LinkOrCopy(const FileSystem& files, const std::string& from, const std::string& to);

}  // namespace boss::server
