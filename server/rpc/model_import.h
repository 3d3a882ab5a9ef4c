// An upload of weights on its way into the store.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/store/model_store.h"
#include "server/store/upload_store.h"

namespace boss::server {

enum class ImportFormat { kDetect, kSafetensors, kTorchCheckpoint, kTorchScript };

struct ImportOptions {
  std::string name;  // of the model
  ImportFormat format = ImportFormat::kDetect;
  std::string architecture_json;  // empty: the file's metadata "architecture", else that of the model's newest version
  int64_t total_bytes = 0;        // of the file
  int64_t decoder_bytes = 0;      // of them: those at the end that are the decoder's archive; one upload, so that both come or none
  std::string sha256;             // hexadecimal; empty: not checked
  bool raw_weights = false;       // of a torch checkpoint, in place of the averaged ones
  std::string alias;              // set to the new version; empty: none
  std::string adapter_base;       // the version that the file's deltas are for; empty: it is no adapter
  std::vector<std::string> label_names;
  std::string description;
  std::map<std::string, std::string> labels;
  std::string upload_id;       // under which an interrupted upload goes on; empty: it begins anew
  bool validate_only = false;  // publishes nothing
};

struct ImportResult {
  std::optional<VersionKey> version;  // that was published; nothing if nothing was to be
  int64_t committed_bytes = 0;
  std::vector<std::string> warnings;
};

// Not thread-safe. What is not published leaves nothing behind, except under an upload id. Finish holds the file in memory
// once, and little beside it.
class ModelImport {
 public:
  // What imports work with; all of it outlives them.
  struct Context {
    ModelStore& store;
    UploadStore& uploads;
    int64_t max_bytes = 0;  // of one file
  };

  // Goes on with the upload of options.upload_id if there is one, which ends an earlier import under that id.
  // \error INVALID_ARGUMENT with the field; RESOURCE_EXHAUSTED if the file is above max_bytes or there is no room, then
  // nothing was written; ALREADY_EXISTS if the upload id belongs to other contents or options; UNAVAILABLE while the
  // upload of that id is being published; PERMISSION_DENIED for TorchScript where the store does not allow it.
  static absl::StatusOr<std::unique_ptr<ModelImport>> Begin(const Context& context, ImportOptions options);

  // How many bytes Begin would go on after: total_bytes if the upload has been published. Ends an import under the id
  // that is under way. \error as of Begin, without RESOURCE_EXHAUSTED for room.
  static absl::StatusOr<int64_t> Query(const Context& context, const ImportOptions& options);

  // Whether an earlier import under the same id has published the version already: no more bytes are needed.
  bool is_published() const { return published_.has_value(); }
  int64_t received_bytes() const { return published_ ? options_.total_bytes : upload_->size(); }

  // The file's next bytes. `crc32` is zlib's. \error INVALID_ARGUMENT for a gap, DATA_LOSS for a wrong checksum,
  // ABORTED if another import goes on under the id, RESOURCE_EXHAUSTED for a full disk. Then the import is over, and an
  // upload id keeps what is on the disk.
  absl::Status Append(int64_t offset, std::string_view data, std::optional<uint32_t> crc32);

  // Checks the whole file and publishes it. FAILED_PRECONDITION for an adapter of another base. \error DATA_LOSS if it is short (an upload id keeps it then), its digest is
  // another or it is corrupt; INVALID_ARGUMENT if its weights do not fit the architecture; RESOURCE_EXHAUSTED.
  absl::StatusOr<ImportResult> Finish();

 private:
  ModelImport(const Context& context, ImportOptions options, std::string digest)
      : context_(context), options_(std::move(options)), digest_(std::move(digest)) {}

  absl::StatusOr<std::string> Architecture(const std::string& from_file) const;
  // The whole file, checked against the digest of the options.
  absl::StatusOr<std::string> ReadFile() const;
  struct Files {
    std::shared_ptr<const std::string> model;
    std::shared_ptr<const std::string> decoder;  // null: none
  };
  // The file's two parts.
  absl::StatusOr<Files> ReadFiles() const;
  // Whether the model's part is a TorchScript module.
  absl::StatusOr<bool> IsArchive(const std::string& model) const;
  // Whether a decoder is there exactly if the architecture has one.
  absl::Status CheckDecoder(const std::string& architecture_json) const;
  // The weights in the file, views of it; fills in the manifest's architecture and what is noteworthy.
  absl::StatusOr<Safetensors> ReadWeights(const std::shared_ptr<const std::string>& bytes, Manifest& manifest,
                                          std::vector<std::string>& warnings) const;
  // As ReadWeights, for a file of deltas: checks that they were made for a base with these weights, and takes from it
  // what the options do not say.
  absl::Status ReadAdapter(const Safetensors& deltas, Manifest& manifest, std::vector<std::string>& warnings) const;
  absl::StatusOr<ImportResult> CheckAndPublish() const;
  absl::Status MoveAlias(const VersionKey& key) const;

  const Context context_;
  const ImportOptions options_;
  const std::string digest_;  // of the options
  std::optional<VersionKey> published_;
  std::unique_ptr<Upload> upload_;  // null if it is published
};

}  // namespace boss::server
