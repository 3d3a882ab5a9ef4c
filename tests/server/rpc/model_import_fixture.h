// Imports into a store on a disk that does as the test says.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "core/base/status_macros.h"
#include "core/io/safetensors.h"
#include "server/rpc/model_import.h"
#include "server/store/sha256.h"
#include "tests/support/manual_clock.h"
#include "tests/support/scripted_disk.h"
#include "tests/support/temp_folder.h"
#include "tests/support/tiny_models.h"

namespace boss::server::testing {

using ::boss::testing::kTinyVectorArchitecture;
using ::boss::testing::TinyModel;

class ModelImportTest : public ::testing::Test {
 protected:
  ModelImportTest() {
    bytes_ = *SerializeSafetensors({TinyModel(kTinyVectorArchitecture, /*seed=*/3)->State(), {}});
    Restart();
  }

  void Restart(const ModelStoreOptions& options = {}) {
    auto store = ModelStore::Open(folder_.path(), clock_, disk_, options);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    auto uploads = UploadStore::Open(folder_ / "uploads", disk_, clock_);
    ASSERT_TRUE(uploads.ok()) << uploads.status();
    uploads_ = *std::move(uploads);
  }
  ModelImport::Context Context() { return {*store_, *uploads_, /*max_bytes=*/int64_t{1} << 30}; }

  ImportOptions Options(const std::string& upload_id = "") const {
    ImportOptions options;
    options.name = "m";
    options.architecture_json = kTinyVectorArchitecture;
    options.total_bytes = static_cast<int64_t>(bytes_.size());
    options.sha256 = Sha256Hex(bytes_);
    options.upload_id = upload_id;
    return options;
  }

  // Sends `bytes` from where the import is, and finishes it.
  absl::StatusOr<ImportResult> Send(const ImportOptions& options, const std::string& bytes) {
    BOSS_ASSIGN_OR_RETURN(const std::unique_ptr<ModelImport> import, ModelImport::Begin(Context(), options));
    if (!import->is_published()) {
      const auto offset = static_cast<size_t>(import->received_bytes());
      BOSS_RETURN_IF_ERROR(
          import->Append(import->received_bytes(), std::string_view(bytes).substr(offset), std::nullopt));
    }
    return import->Finish();
  }
  // Leaves an upload after its first bytes.
  void SendPart(const ImportOptions& options, size_t size) {
    const auto import = ModelImport::Begin(Context(), options);
    ASSERT_TRUE(import.ok()) << import.status();
    ASSERT_TRUE((*import)->Append(0, std::string_view(bytes_).substr(0, size), std::nullopt).ok());
  }
  bool UploadsAreEmpty() const { return std::filesystem::is_empty(folder_ / "uploads"); }
  size_t NumVersions() const {
    const auto model = store_->GetModel("m");
    return model.ok() ? model->versions.size() : 0;
  }

  ::boss::testing::ManualClock clock_;
  ::boss::testing::ScriptedDisk disk_;
  ::boss::testing::TempFolder folder_;
  std::string bytes_;
  std::unique_ptr<ModelStore> store_;
  std::unique_ptr<UploadStore> uploads_;
};

}  // namespace boss::server::testing
