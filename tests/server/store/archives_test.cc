// Versions that come with code.
#include <gmock/gmock.h>

#include <string>

#include "server/store/store_files.h"
#include "tests/server/store/store_fixture.h"
#include "tests/support/script_modules.h"

namespace boss::server {
namespace {

using boss::testing::kScriptVectorArchitecture;
using ::testing::HasSubstr;

constexpr char kWithDecoder[] =
    R"({"model":{"architecture":"mlp","dim":2,"hidden":8,"layers":2},"decoder":{"scale":0.5,"decoded_shape":[1,4,4]}})";

class ArchivesTest : public testing::StoreTest {
 protected:
  ArchivesTest() { Open({.allow_torchscript = true}); }
  static Manifest Described(const std::string& architecture) {
    Manifest manifest;
    manifest.architecture_json = architecture;
    return manifest;
  }
};

TEST_F(ArchivesTest, AreTakenAndLoadedOnlyWhereTheyAreAllowed) {
  const auto archive = boss::testing::ScriptVectorArchive();
  const auto key = store_->PublishArchive("m", Described(kScriptVectorArchitecture), *archive);
  ASSERT_TRUE(key.ok()) << key.status();
  EXPECT_TRUE(Exists(File(*key, "model.torchscript")));
  EXPECT_EQ(store_->GetVersion(*key)->manifest.sha256.count(kTorchScriptFile), 1u);
  EXPECT_TRUE(store_->LoadVersionModel(*key).ok());

  Open();
  // It is whole, and listed; nothing of it runs.
  EXPECT_TRUE(store_->GetVersion(*key).ok());
  const absl::Status refused = store_->LoadVersionModel(*key).status();
  EXPECT_TRUE(absl::IsPermissionDenied(refused)) << refused;
  EXPECT_THAT(std::string(refused.message()), HasSubstr("--allow-torchscript"));
  EXPECT_TRUE(
      absl::IsPermissionDenied(store_->PublishArchive("m", Described(kScriptVectorArchitecture), *archive).status()));
  EXPECT_EQ(Versions("m"), (std::vector<int64_t>{1}));
}

TEST_F(ArchivesTest, ADamagedArchiveIsQuarantined) {
  const auto key =
      store_->PublishArchive("m", Described(kScriptVectorArchitecture), *boss::testing::ScriptVectorArchive());
  ASSERT_TRUE(key.ok()) << key.status();
  FlipLastByte(File(*key, "model.torchscript"));
  EXPECT_TRUE(absl::IsDataLoss(store_->LoadVersionModel(*key).status()));
  ExpectQuarantined(*key, "model.torchscript");
}

TEST_F(ArchivesTest, DecodersComeWithTheirModelsAndTheirDescendants) {
  const auto decoder = boss::testing::ScriptDecoderArchive();
  const Safetensors weights{testing::Network(1)->State(), {}};
  const auto key = store_->Publish("m", Described(kWithDecoder), weights, {}, {{kDecoderFile, *decoder}});
  ASSERT_TRUE(key.ok()) << key.status();
  const auto loaded = store_->LoadVersionDecoder(*key);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  ASSERT_NE(*loaded, nullptr);

  Manifest child = Described(kWithDecoder);
  child.parent = key->ToString();
  const auto child_key = store_->Publish("m", child, weights);
  ASSERT_TRUE(child_key.ok()) << child_key.status();
  EXPECT_TRUE(store_->LoadVersionDecoder(*child_key).ok());
  EXPECT_TRUE(Exists(File(*child_key, kDecoderFile)));
  // Another description is another decoder's.
  child.architecture_json = testing::kArchitecture;
  const auto plain_key = store_->Publish("m", child, weights);
  ASSERT_TRUE(plain_key.ok()) << plain_key.status();
  EXPECT_FALSE(Exists(File(*plain_key, kDecoderFile)));
  EXPECT_EQ(*store_->LoadVersionDecoder(*plain_key), nullptr);

  Open();
  EXPECT_TRUE(store_->LoadVersionModel(*key).ok());
  EXPECT_TRUE(absl::IsPermissionDenied(store_->LoadVersionDecoder(*key).status()));
}

TEST_F(ArchivesTest, AFolderWithAnArchiveIsImported) {
  std::filesystem::create_directories(Path("source"));
  Write(Path("source/model.torchscript"), *boss::testing::ScriptVectorArchive());
  Write(Path("source/manifest.json"), ManifestToJson(Described(kScriptVectorArchitecture)));
  const auto key = store_->ImportFolder(Path("source"), "m");
  ASSERT_TRUE(key.ok()) << key.status();
  EXPECT_TRUE(store_->LoadVersionModel(*key).ok());
  Write(Path("source/model.torchscript"), "no archive");
  EXPECT_TRUE(absl::IsDataLoss(store_->ImportFolder(Path("source"), "m").status()));
  Open();
  EXPECT_TRUE(absl::IsPermissionDenied(store_->ImportFolder(Path("source"), "m").status()));
}

}  // namespace
}  // namespace boss::server
