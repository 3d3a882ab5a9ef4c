// What the store does with files and folders, and their names.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/io/file_system.h"
#include "server/store/manifest.h"

namespace boss::server {

// In a version's folder.
inline constexpr char kManifestFile[] = "manifest.json";
inline constexpr char kWeightsFile[] = "model.safetensors";
inline constexpr char kAdapterFile[] = "adapter.safetensors";
inline constexpr char kTorchScriptFile[] = "model.torchscript";    // in place of kWeightsFile
inline constexpr char kDecoderFile[] = "decoder.torchscript";      // beside the weights
// The one of these that holds the version's own weights.
std::string WeightsFile(const Manifest& manifest);
// In the metadata of an adapter's file: NAME@VERSION of its base, and the digest of that one's weights, hexadecimal.
inline constexpr char kAdapterBaseMetadata[] = "base";
inline constexpr char kAdapterBaseDigestMetadata[] = "base_sha256";
// In a model's folder.
inline constexpr char kAliasesFile[] = "aliases.json";
inline constexpr char kSchedulesFolder[] = "schedules";
inline constexpr char kUsedFolder[] = "used";
// In the data folder. What clients are uploading counts for the quota; the store itself never touches it.
inline constexpr char kModelsFolder[] = "models";
inline constexpr char kStagingFolder[] = "staging";
inline constexpr char kQuarantineFolder[] = "quarantine";
inline constexpr char kUploadsFolder[] = "uploads";

// A version's decimal number, as it was written: no sign, no leading zero.
std::optional<int64_t> ParseVersion(absl::string_view text);

// Bytes of the regular files in a folder and those below it; links and what cannot be read count nothing.
int64_t FolderSize(const FileSystem& files, const std::string& path);
// \error DATA_LOSS if there is something else than a folder, NOT_FOUND if there is nothing; what the system reports.
absl::Status CheckFolder(const FileSystem& files, const std::string& path);
// Bytes of a file that must be there. \error DATA_LOSS if it is not, or is no regular file in a folder; what the system
// reports.
absl::StatusOr<int64_t> SizeOfFile(const FileSystem& files, const std::string& folder, const std::string& name);
// Its contents; a link is not followed. \error as SizeOfFile.
absl::StatusOr<std::string> ReadStoredFile(const FileSystem& files, const std::string& folder, const std::string& name);
// \error also DATA_LOSS if its SHA-256 is not `digest`.
absl::StatusOr<std::string> ReadCheckedFile(const FileSystem& files, const std::string& folder, const std::string& name,
                                            const std::string& digest);

// A second name for the bytes of an immutable file: a hard link, or a flushed copy where the file system has none.
absl::Status LinkOrCopy(const FileSystem& files, const std::string& from, const std::string& to);
// Renames, and flushes both parent folders.
absl::Status MoveAndSync(const FileSystem& files, const std::string& from, const std::string& to);

}  // namespace boss::server
