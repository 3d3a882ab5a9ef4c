// Files that are either there whole or not at all.
#pragma once

#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/io/file_system.h"

namespace boss {

// Writes a temporary file in the same folder, flushes it to the disk (fsync), renames it over `path`, and flushes the
// folder. \error what the file system reports; then no temporary file is left, unless it cannot be removed either, and
// an older file at `path` is untouched, unless the folder alone could not be flushed.
absl::Status WriteFileAtomically(const std::string& path, std::string_view contents,
                                 const FileSystem& files = PosixFileSystem());
// The same, with contents that `write` appends piece by piece. Its error is returned and no file is left.
absl::Status WriteFileAtomically(const std::string& path, absl::FunctionRef<absl::Status(WritableFile&)> write,
                                 const FileSystem& files = PosixFileSystem());

// Whether a file of this name is one that a WriteFileAtomically left which did not come to its end.
bool IsTemporary(std::string_view file_name);

// \error NOT_FOUND, PERMISSION_DENIED, ...
inline absl::StatusOr<std::string> ReadFile(const std::string& path) { return PosixFileSystem().ReadFile(path); }

}  // namespace boss
