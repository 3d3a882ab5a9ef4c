// Uploads that bring code.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "core/base/error_details.h"
#include "core/base/status_macros.h"
#include "core/io/safetensors.h"
#include "server/rpc/model_import.h"
#include "server/store/sha256.h"
#include "tests/support/manual_clock.h"
#include "tests/support/script_modules.h"
#include "tests/support/scripted_disk.h"
#include "tests/support/temp_folder.h"
#include "tests/support/tiny_models.h"

namespace boss::server {
namespace {

using ::boss::testing::kScriptVectorArchitecture;
using ::boss::testing::kTinyVectorArchitecture;
using ::boss::testing::ScriptArchive;
using ::testing::HasSubstr;

constexpr char kScriptWithDecoder[] =
    R"({"model": {"architecture": "torchscript", "sample_shape": [2]}, "decoder": {"decoded_shape": [1, 4, 4]}})";
constexpr char kVectorsWithDecoder[] =
    R"({"model": {"architecture": "mlp", "dim": 2, "hidden": 16, "layers": 2, "num_classes": 3},
        "decoder": {"decoded_shape": [1, 4, 4]}})";

class ImportArchivesTest : public ::testing::Test {
 protected:
  ImportArchivesTest() { Restart(true); }

  void Restart(bool allow_torchscript) {
    auto store = ModelStore::Open(folder_.path(), clock_, disk_, {.allow_torchscript = allow_torchscript});
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    auto uploads = UploadStore::Open(folder_ / "uploads", disk_, clock_);
    ASSERT_TRUE(uploads.ok()) << uploads.status();
    uploads_ = *std::move(uploads);
  }

  absl::StatusOr<ImportResult> Send(const std::string& architecture, const std::string& model,
                                    const std::string& decoder = "", ImportFormat format = ImportFormat::kTorchScript,
                                    bool validate_only = false) {
    const std::string bytes = model + decoder;
    ImportOptions options;
    options.name = "m";
    options.format = format;
    options.architecture_json = architecture;
    options.total_bytes = static_cast<int64_t>(bytes.size());
    options.decoder_bytes = static_cast<int64_t>(decoder.size());
    options.sha256 = Sha256Hex(bytes);
    options.validate_only = validate_only;
    BOSS_ASSIGN_OR_RETURN(const auto import,
                          ModelImport::Begin({*store_, *uploads_, /*max_bytes=*/int64_t{1} << 30}, options));
    BOSS_RETURN_IF_ERROR(import->Append(0, bytes, std::nullopt));
    return import->Finish();
  }
  void ExpectRefused(const absl::Status& status, const std::string& part) {
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(status.ToString(), HasSubstr(part));
    EXPECT_TRUE(absl::IsNotFound(store_->GetModel("m").status()));
  }

  boss::testing::ManualClock clock_;
  boss::testing::ScriptedDisk disk_;
  boss::testing::TempFolder folder_;
  std::unique_ptr<ModelStore> store_;
  std::unique_ptr<UploadStore> uploads_;
};

TEST_F(ImportArchivesTest, AModulePublishesItself) {
  const std::string archive = *boss::testing::ScriptVectorArchive();
  const auto checked = Send(kScriptVectorArchitecture, archive, "", ImportFormat::kTorchScript, /*validate_only=*/true);
  ASSERT_TRUE(checked.ok()) << checked.status();
  EXPECT_FALSE(checked->version);
  const auto result = Send(kScriptVectorArchitecture, archive);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(store_->LoadVersionModel(*result->version).ok());
  // The next one says nothing of its format and its network.
  const auto next = Send("", archive, "", ImportFormat::kDetect);
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_EQ(next->version->version, 2);
}

TEST_F(ImportArchivesTest, IsRefusedBeforeAnythingIsSentWhereItIsNotAllowed) {
  Restart(false);
  const std::string archive = *boss::testing::ScriptVectorArchive();
  for (const ImportFormat format : {ImportFormat::kTorchScript, ImportFormat::kDetect}) {
    const absl::Status status = Send(kScriptVectorArchitecture, archive, "", format).status();
    EXPECT_TRUE(absl::IsPermissionDenied(status)) << status;
    EXPECT_EQ(FieldOf(status), "start.format");
  }
  const std::string weights =
      *SerializeSafetensors({boss::testing::TinyModel(kTinyVectorArchitecture, 3)->State(), {}});
  const absl::Status status =
      Send(kVectorsWithDecoder, weights, *boss::testing::ScriptDecoderArchive(), ImportFormat::kSafetensors).status();
  EXPECT_TRUE(absl::IsPermissionDenied(status)) << status;
  EXPECT_EQ(FieldOf(status), "start.decoder_bytes");
}

TEST_F(ImportArchivesTest, ModulesAreTriedBeforeTheyAreTaken) {
  const std::string good = *boss::testing::ScriptVectorArchive();
  ExpectRefused(Send(kScriptVectorArchitecture, "PK, but nothing else").status(), "loading a TorchScript module");
  ExpectRefused(Send(kScriptVectorArchitecture, *ScriptArchive("def forward(self, x):\n  return x\n")).status(),
                "forward");
  ExpectRefused(Send(kScriptVectorArchitecture, *ScriptArchive("def forward(self, x, t):\n  return x[0]\n")).status(),
                "returned the shape [2], expected [2, 2]");
  ExpectRefused(Send(kScriptVectorArchitecture,
                     *ScriptArchive("def forward(self, x, t):\n  assert x.size(0) > 99, 'too few'\n  return x\n"))
                    .status(),
                "too few");
  ExpectRefused(Send(kTinyVectorArchitecture, good).status(), "describes no TorchScript module");
  ExpectRefused(Send(kScriptWithDecoder, good).status(), "start.decoder_bytes: is required");
  ExpectRefused(Send(kScriptVectorArchitecture, good, good).status(), "no \"decoder\"");
  // It takes x and t, not latents.
  ExpectRefused(Send(kScriptWithDecoder, good, good).status(), "forward");
}

TEST_F(ImportArchivesTest, ADecoderComesInTheSameUpload) {
  const std::string decoder = *boss::testing::ScriptDecoderArchive();
  const auto script = Send(kScriptWithDecoder, *boss::testing::ScriptVectorArchive(), decoder);
  ASSERT_TRUE(script.ok()) << script.status();
  const std::string weights =
      *SerializeSafetensors({boss::testing::TinyModel(kTinyVectorArchitecture, 3)->State(), {}});
  const auto vectors = Send(kVectorsWithDecoder, weights, decoder, ImportFormat::kDetect);
  ASSERT_TRUE(vectors.ok()) << vectors.status();
  for (const auto& result : {*script, *vectors}) {
    const auto loaded = store_->LoadVersionDecoder(*result.version);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_NE(*loaded, nullptr);
    EXPECT_TRUE(store_->LoadVersionModel(*result.version).ok());
  }
}

}  // namespace
}  // namespace boss::server
