// Files that bossctl reads and writes.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "boss/v1/sampling.pb.h"

namespace boss::client {

// \error as the system reports, naming the path.
absl::StatusOr<std::string> ReadTextFile(const std::string& path);
absl::Status WriteBinaryFile(const std::string& path, absl::string_view bytes);
// With its parents; it may exist.
absl::Status MakeFolder(const std::string& path);

// Writes FOLDER/NAME.png for a PNG and FOLDER/NAME.npy (NumPy's format, version 1.0) for everything else; returns the
// path.
absl::StatusOr<std::string> WriteSample(const std::string& folder, const std::string& name,
                                        const google::protobuf::RepeatedField<int64_t>& shape,
                                        boss::v1::OutputFormat format, absl::string_view data);

}  // namespace boss::client
