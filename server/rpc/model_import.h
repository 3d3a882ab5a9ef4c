// An upload of weights on its way into the store.
#pragma once

#include <cstdint>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/store/model_store.h"

namespace boss::server {

enum class ImportFormat { kDetect, kSafetensors, kTorchCheckpoint };

struct ImportOptions {
  std::string name;  // of the model
  ImportFormat format = ImportFormat::kDetect;
  std::string architecture_json;  // empty: the file's metadata "architecture", else that of the model's newest version
  int64_t total_bytes = 0;        // of the file
  std::string sha256;             // hexadecimal; empty: not checked
  bool raw_weights = false;       // of a torch checkpoint, in place of the averaged ones
  std::string alias;              // set to the new version; empty: none
  std::vector<std::string> label_names;
  std::string description;
};

// Not thread-safe. What is not published leaves nothing behind.
class ModelImport {
 public:
  // `store` outlives the import. \error INVALID_ARGUMENT with the field; RESOURCE_EXHAUSTED if total_bytes is above
  // `max_bytes`.
  static absl::StatusOr<std::unique_ptr<ModelImport>> Begin(ModelStore& store, ImportOptions options,
                                                            int64_t max_bytes);

  // The file's next bytes. `crc32` is zlib's. \error INVALID_ARGUMENT for a gap, DATA_LOSS for a wrong checksum,
  // RESOURCE_EXHAUSTED for a full disk.
  absl::Status Append(int64_t offset, std::string_view data, std::optional<uint32_t> crc32);

  // Checks the whole file and publishes it. \error DATA_LOSS if it is short, its digest is another or it is corrupt;
  // INVALID_ARGUMENT if its weights do not fit the architecture.
  absl::StatusOr<VersionKey> Publish();

  int64_t received_bytes() const { return received_bytes_; }

 private:
  ModelImport(ModelStore& store, ImportOptions options, std::unique_ptr<StagingFolder> folder);
  absl::StatusOr<std::string> Architecture(const std::string& from_file) const;

  ModelStore& store_;
  const ImportOptions options_;
  const std::unique_ptr<StagingFolder> folder_;
  const std::string path_;
  std::ofstream file_;
  int64_t received_bytes_ = 0;
};

}  // namespace boss::server
