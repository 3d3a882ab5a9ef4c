// A few uploads into a store of their own: any file, any options, chunks in and out of order, connections that end or
// hang, servers that begin anew. The input is: the number of bytes that choose all this, those bytes,
// and the file.
#include <spdlog/spdlog.h>
#include <stdlib.h>
#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "server/rpc/model_import.h"
#include "server/store/sha256.h"
#include "tests/fuzz/check.h"
#include "tests/support/manual_clock.h"
#include "tests/support/temp_folder.h"

namespace boss::server {
namespace {

using boss::testing::FuzzCheck;
using boss::testing::FuzzCheckError;

constexpr int64_t kMaxBytes = 1 << 16;
constexpr int kMaxImports = 4;
constexpr char kFitting[] = R"({"model":{"architecture":"mlp","dim":1,"hidden":1,"layers":1}})";
constexpr char kHuge[] = R"({"model":{"architecture":"mlp","dim":1,"hidden":65536,"layers":64}})";

// One byte a choice; zeros when there are no more.
class Choices {
 public:
  explicit Choices(std::string_view bytes) : rest_(bytes) {}
  bool empty() const { return rest_.empty(); }
  uint8_t Byte() {
    if (rest_.empty()) return 0;
    const auto byte = static_cast<uint8_t>(rest_.front());
    rest_.remove_prefix(1);
    return byte;
  }
  // The next choices, as many as the first of them says.
  Choices Part() {
    const size_t size = std::min<size_t>(Byte(), rest_.size());
    const Choices part(rest_.substr(0, size));
    rest_.remove_prefix(size);
    return part;
  }
  // One of the values.
  template <typename T>
  T Of(std::initializer_list<T> values) {
    return values.begin()[Byte() % values.size()];
  }

 private:
  std::string_view rest_;
};

uint32_t Checksum(std::string_view data) {
  return static_cast<uint32_t>(crc32(0, reinterpret_cast<const Bytef*>(data.data()), static_cast<uInt>(data.size())));
}

class Server {
 public:
  explicit Server(std::string_view file) : file_(file) { Start(); }

  void Restart() {
    hanging_.reset();
    uploads_.reset();
    store_.reset();
    Start();
  }

  void Import(Choices choices) {
    const ImportOptions options = ReadOptions(choices);
    const bool query = choices.Byte() % 4 == 1;
    if (query && !Query(options)) return;
    auto begun = ModelImport::Begin(Context(), options);
    if (!begun.ok()) {
      FuzzCheckError(begun.status(), absl::StatusCode::kInvalidArgument, absl::StatusCode::kAlreadyExists,
                     absl::StatusCode::kResourceExhausted);
      return;
    }
    ModelImport& import = **begun;
    FuzzCheck(import.received_bytes() >= 0 && import.received_bytes() <= options.total_bytes, "a size is outside");
    if (import.is_published()) FuzzCheck(published_.contains(options.upload_id), "published without an upload");
    for (int chunks = choices.Byte() % 8; chunks > 0; --chunks) {
      if (!SendChunk(import, options, choices)) return;
    }
    const auto end =
        choices.Of({End::kSendRestAndFinish, End::kFinish, End::kLeave, End::kSendRestAndLeave, End::kHang});
    if (end == End::kSendRestAndFinish || end == End::kSendRestAndLeave)
      FuzzCheck(SendRest(import, options).ok(), "the rest is refused");
    if (end == End::kSendRestAndFinish || end == End::kFinish) Finish(import, options, /*may_be_taken=*/false);
    if (end == End::kHang) hanging_ = Hanging{*std::move(begun), options};
  }

  // Goes on with the import that was left hanging, if there is one. Another one may have taken its upload.
  void GoOnWithHanging() {
    if (!hanging_) return;
    const Hanging hanging = *std::exchange(hanging_, std::nullopt);
    const absl::Status status = SendRest(*hanging.import, hanging.options);
    if (status.ok()) {
      Finish(*hanging.import, hanging.options, /*may_be_taken=*/true);
    } else {
      FuzzCheckError(status, absl::StatusCode::kAborted);
    }
  }

  void CheckWhatIsLeft() {
    Restart();
    int versions = 0;
    for (const ModelInfo& model : store_->ListModels()) {
      for (const VersionKey& key : model.versions) {
        ++versions;
        FuzzCheck(store_->GetVersion(key).ok(), "a published version is corrupt");
      }
    }
    FuzzCheck(versions == versions_,
              "got " + std::to_string(versions) + " versions after a restart, expected " + std::to_string(versions_));
    FuzzCheck(std::filesystem::is_empty(folder_ / "staging"), "the staging folder is not empty");
    for (const auto& entry : std::filesystem::directory_iterator(folder_ / "uploads"))
      FuzzCheck(!entry.path().filename().string().starts_with("."), "an upload without an id is left");
  }

 private:
  enum class End { kSendRestAndFinish, kFinish, kLeave, kSendRestAndLeave, kHang };
  struct Hanging {
    std::unique_ptr<ModelImport> import;
    ImportOptions options;
  };

  void Start() {
    auto store = ModelStore::Open(folder_.path(), clock_);
    FuzzCheck(store.ok(), "the store does not open: " + store.status().ToString());
    store_ = *std::move(store);
    auto uploads = UploadStore::Open(folder_ / "uploads", PosixFileSystem(), clock_);
    FuzzCheck(uploads.ok(), "the uploads do not open: " + uploads.status().ToString());
    uploads_ = *std::move(uploads);
  }
  ModelImport::Context Context() { return {*store_, *uploads_, kMaxBytes}; }

  ImportOptions ReadOptions(Choices& choices) const {
    const auto size = static_cast<int64_t>(file_.size());
    ImportOptions options;
    options.name = choices.Of<const char*>({"toy", "other", "", "latest", "../up", "a@1"});
    options.format = choices.Of({ImportFormat::kDetect, ImportFormat::kSafetensors, ImportFormat::kTorchCheckpoint});
    options.architecture_json =
        choices.Of({std::string(), std::string(kFitting), std::string(kHuge), std::string(file_.substr(0, 64))});
    options.total_bytes =
        choices.Of<int64_t>({size, size + 1, size - 1, 0, -1, kMaxBytes, kMaxBytes + 1,
                             std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min()});
    const std::string digest = Sha256Hex(absl::string_view(file_.data(), file_.size()));
    options.sha256 = choices.Of({std::string(), digest, std::string(digest.size(), '0'), std::string("short")});
    options.upload_id = choices.Of<const char*>({"", "a", "b", ".hidden", "a/b"});
    options.alias = choices.Of<const char*>({"", "best", "latest", "7"});
    const uint8_t flags = choices.Byte();
    options.raw_weights = (flags & 1) != 0;
    options.validate_only = (flags & 2) != 0;
    if ((flags & 4) != 0) options.label_names = {"a", "b"};
    if ((flags & 8) != 0) options.labels = {{"key", "value"}};
    return options;
  }

  // Whether an import may begin.
  bool Query(const ImportOptions& options) {
    const auto committed = ModelImport::Query(Context(), options);
    if (committed.ok()) {
      FuzzCheck(*committed >= 0 && *committed <= options.total_bytes, "more is committed than there is");
      return true;
    }
    FuzzCheckError(committed.status(), absl::StatusCode::kInvalidArgument, absl::StatusCode::kAlreadyExists,
                   absl::StatusCode::kResourceExhausted);
    return false;
  }

  // The file, then zeros, as long as the options say that it is. \pre inside.
  std::string Part(int64_t offset, int64_t size) const {
    std::string part;
    if (offset < static_cast<int64_t>(file_.size())) part = file_.substr(offset, size);
    part.resize(size);
    return part;
  }

  // Whether the import goes on.
  bool SendChunk(ModelImport& import, const ImportOptions& options, Choices& choices) {
    const int64_t received = import.received_bytes(), left = options.total_bytes - received;
    int64_t size = std::min<int64_t>(left, choices.Byte());
    size += choices.Of({0, 0, 0, 1});
    const int64_t offset =
        choices.Of<int64_t>({received, received, received, received + 1, received - 1, 0,
                             std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min()});
    const std::string data = Part(received, size);
    const auto checksum =
        choices.Of<std::optional<uint32_t>>({std::nullopt, Checksum(data), Checksum(data), Checksum(data) ^ 1});
    const bool fits = offset == received && size <= left && (!checksum || *checksum == Checksum(data));
    const absl::Status status = import.Append(offset, data, checksum);
    FuzzCheck(status.ok() == fits, "a chunk that fits: " + std::to_string(fits) + ", but " + status.ToString());
    if (!fits) {
      FuzzCheckError(status, absl::StatusCode::kInvalidArgument, absl::StatusCode::kDataLoss);
    } else if (!import.is_published()) {
      FuzzCheck(import.received_bytes() == received + size, "received bytes are not counted");
    }
    return fits;
  }

  absl::Status SendRest(ModelImport& import, const ImportOptions& options) {
    const int64_t received = import.received_bytes();
    const std::string rest = Part(received, options.total_bytes - received);
    return import.Append(received, rest, Checksum(rest));
  }

  void Finish(ModelImport& import, const ImportOptions& options, bool may_be_taken) {
    const bool whole = import.received_bytes() == options.total_bytes, was_published = import.is_published();
    const auto result = import.Finish();
    if (!result.ok()) {
      FuzzCheck(!was_published, "what was published is no more: " + result.status().ToString());
      if (may_be_taken && absl::IsAborted(result.status())) return;
      FuzzCheckError(result.status(), absl::StatusCode::kInvalidArgument, absl::StatusCode::kDataLoss);
      return;
    }
    FuzzCheck(whole, "an upload that is not whole is taken");
    FuzzCheck(result->committed_bytes == options.total_bytes, "bytes are missing");
    FuzzCheck(result->version.has_value() != options.validate_only, "published what was only to be checked, or not");
    if (!result->version) return;
    if (was_published) {
      FuzzCheck(published_.at(options.upload_id) == *result->version, "an upload has published two versions");
      return;
    }
    ++versions_;
    if (!options.upload_id.empty()) {
      FuzzCheck(published_.emplace(options.upload_id, *result->version).second, "an upload has published two versions");
    }
    const auto model = store_->LoadVersionModel(*result->version);
    FuzzCheck(model.ok(), "a published version does not load: " + model.status().ToString());
    if (options.alias.empty()) return;
    const auto alias = store_->Resolve(options.name + "@" + options.alias);
    FuzzCheck(alias.ok() && *alias == *result->version, "the alias points elsewhere");
  }

  const std::string file_;
  const boss::testing::TempFolder folder_;
  const boss::testing::ManualClock clock_;
  std::unique_ptr<ModelStore> store_;
  std::unique_ptr<UploadStore> uploads_;
  int versions_ = 0;
  std::map<std::string, VersionKey> published_;  // by upload id
  std::optional<Hanging> hanging_;
};

}  // namespace
}  // namespace boss::server

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  setenv("TMPDIR", "/dev/shm", /*overwrite=*/0);
  spdlog::set_level(spdlog::level::off);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace boss::server;
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t num_choices = std::min<size_t>(data[0], rest.size());
  Choices choices(rest.substr(0, num_choices));
  Server server(rest.substr(num_choices));
  for (int i = 0; i < kMaxImports && !choices.empty(); ++i) {
    server.Import(choices.Part());
    const uint8_t next = choices.Byte() % 4;
    if (next == 1) server.Restart();
    if (next == 2) server.GoOnWithHanging();
  }
  server.CheckWhatIsLeft();
  return 0;
}
