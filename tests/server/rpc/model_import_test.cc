#include "server/rpc/model_import.h"

#include <gmock/gmock.h>
#include <zlib.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "core/base/error_details.h"
#include "core/io/safetensors.h"
#include "tests/server/rpc/model_import_fixture.h"

namespace boss::server {
namespace {

using ::boss::testing::kTinyVectorArchitecture;
using ::boss::testing::TinyModel;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::ModelImportTest;

TEST_F(ModelImportTest, AShortFileAsksForNoHugeNetwork) {
  ImportOptions options = Options();
  options.architecture_json = R"({"model":{"architecture":"mlp","hidden":65536,"layers":64}})";
  for (const bool validate_only : {false, true}) {
    options.validate_only = validate_only;
    const absl::Status status = Send(options, bytes_).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(status.ToString(), HasSubstr("the network has more than"));
  }
}

TEST_F(ModelImportTest, PublishesWhatWasSent) {
  ImportOptions options = Options();
  options.alias = "best";
  options.labels = {{"team", "vision"}, {"empty", ""}};
  options.description = "of a test";
  const auto result = Send(options, bytes_);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->version, (VersionKey{"m", 1}));
  EXPECT_EQ(result->committed_bytes, options.total_bytes);
  EXPECT_TRUE(UploadsAreEmpty());
  const auto info = store_->GetVersion({"m", 1});
  ASSERT_TRUE(info.ok());
  EXPECT_THAT(info->aliases, ElementsAre("best"));
  EXPECT_EQ(info->manifest.labels, options.labels);
  EXPECT_EQ(info->manifest.upload_id, "");
  const auto exported = ReadSafetensors(folder_ / "models/m/1/model.safetensors");
  ASSERT_TRUE(exported.ok()) << exported.status();
  EXPECT_EQ(exported->metadata.at("architecture"), kTinyVectorArchitecture);
  // Such a file needs no description of its network.
  options.architecture_json.clear();
  options.name = "copy";
  const std::string copied = *SerializeSafetensors(*exported);
  options.total_bytes = static_cast<int64_t>(copied.size());
  options.sha256.clear();
  EXPECT_TRUE(Send(options, copied).ok());
}

TEST_F(ModelImportTest, GoesOnAcrossARestart) {
  SendPart(Options("mine"), 1000);
  EXPECT_EQ(*ModelImport::Query(Context(), Options("mine")), 1000);
  Restart();
  EXPECT_EQ(*ModelImport::Query(Context(), Options("mine")), 1000);
  {
    const auto import = ModelImport::Begin(Context(), Options("mine"));
    ASSERT_TRUE(import.ok()) << import.status();
    const absl::Status gap = (*import)->Append(0, "x", std::nullopt);
    EXPECT_EQ(FieldOf(gap), "chunk.offset");
    EXPECT_THAT(std::string(gap.message()), HasSubstr("got 0, expected 1000"));
  }
  const auto result = Send(Options("mine"), bytes_);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(UploadsAreEmpty());
  EXPECT_EQ(NumVersions(), 1u);
}

TEST_F(ModelImportTest, AnUploadThatWasGivenUpLeavesItsRoom) {
  const auto size = static_cast<int64_t>(bytes_.size());
  Restart({.max_bytes = size * 3 / 2});
  SendPart(Options("a"), bytes_.size() * 9 / 10);
  EXPECT_TRUE(absl::IsResourceExhausted(Send(Options("b"), bytes_).status()));
  clock_.Advance(absl::Hours(25));
  const auto result = Send(Options("b"), bytes_);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(*ModelImport::Query(Context(), Options("a")), 0);
}

TEST_F(ModelImportTest, AVersionIsKeptUntilItsAliasHoldsIt) {
  Restart({.keep_versions = 1});
  bool published = false;
  disk_.before = [&](const std::string& operation, const std::string& path) {
    // Between the publication and what follows it: another one of the same model.
    if (published || operation != "remove" || path.find("/staging/") == std::string::npos || NumVersions() == 0)
      return absl::OkStatus();
    published = true;
    Manifest manifest;
    manifest.architecture_json = kTinyVectorArchitecture;
    return store_->Publish("m", manifest, TinyModel(kTinyVectorArchitecture, /*seed=*/4)->State()).status();
  };
  ImportOptions options = Options();
  options.alias = "best";
  const auto result = Send(options, bytes_);
  EXPECT_TRUE(published);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(*store_->Resolve("m@best"), (VersionKey{"m", 1}));
  EXPECT_EQ(*store_->Resolve("m"), (VersionKey{"m", 2}));
}

TEST_F(ModelImportTest, AnUploadThatIsRepeatedReturnsItsVersion) {
  ImportOptions options = Options("mine");
  options.alias = "best";
  ASSERT_TRUE(Send(options, bytes_).ok());
  ASSERT_TRUE(Send(Options("other"), bytes_).ok());  // a second version
  ASSERT_TRUE(store_->SetAlias("m", "best", 2).ok());
  for (const bool restarted : {false, true}) {
    if (restarted) Restart();
    EXPECT_EQ(*ModelImport::Query(Context(), options), options.total_bytes);
    const auto again = Send(options, "");
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(again->version, (VersionKey{"m", 1}));
    EXPECT_EQ(again->committed_bytes, options.total_bytes);
    EXPECT_EQ(NumVersions(), 2u);
    EXPECT_TRUE(UploadsAreEmpty());
    // The alias has been moved since.
    EXPECT_EQ(*store_->Resolve("m@best"), (VersionKey{"m", 2}));
    EXPECT_TRUE(absl::IsAlreadyExists(Send(Options("mine"), bytes_).status()));
    ImportOptions elsewhere = options;
    elsewhere.name = "another";
    EXPECT_TRUE(absl::IsAlreadyExists(ModelImport::Query(Context(), elsewhere).status()));
  }
}

TEST_F(ModelImportTest, AnIdBelongsToAllThatItBeganWith) {
  SendPart(Options("mine"), 1000);
  const std::vector<std::function<void(ImportOptions&)>> changes = {
      [](ImportOptions& options) { options.name = "another"; },
      [](ImportOptions& options) { options.total_bytes += 1; },
      [](ImportOptions& options) { options.sha256 = std::string(64, '0'); },
      [](ImportOptions& options) { options.sha256.clear(); },
      [](ImportOptions& options) { options.format = ImportFormat::kSafetensors; },
      [](ImportOptions& options) { options.architecture_json += " "; },
      [](ImportOptions& options) { options.raw_weights = true; },
      [](ImportOptions& options) { options.alias = "best"; },
      [](ImportOptions& options) { options.label_names = {"a"}; },
      [](ImportOptions& options) { options.description = "other"; },
      [](ImportOptions& options) {
        options.labels = {{"a", "b"}};
      },
      [](ImportOptions& options) { options.validate_only = true; },
  };
  for (size_t i = 0; i < changes.size(); ++i) {
    ImportOptions options = Options("mine");
    changes[i](options);
    EXPECT_TRUE(absl::IsAlreadyExists(ModelImport::Begin(Context(), options).status())) << i;
    EXPECT_TRUE(absl::IsAlreadyExists(ModelImport::Query(Context(), options).status())) << i;
  }
  ImportOptions options = Options("mine");
  for (char& c : options.sha256) c = static_cast<char>(std::toupper(c));
  EXPECT_TRUE(Send(options, bytes_).ok());  // the same digest in another spelling
}

TEST_F(ModelImportTest, TheAliasFollowsWhenItCouldNotBeSetAtOnce) {
  ImportOptions options = Options("mine");
  options.alias = "best";
  disk_.before = [](const std::string& operation, const std::string& path) {
    return operation == "rename" && path.ends_with("aliases.json") ? absl::ResourceExhaustedError("full")
                                                                   : absl::OkStatus();
  };
  EXPECT_TRUE(absl::IsResourceExhausted(Send(options, bytes_).status()));
  disk_.before = nullptr;
  Restart();
  EXPECT_EQ(NumVersions(), 1u);
  const auto again = Send(options, bytes_);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->version, (VersionKey{"m", 1}));
  EXPECT_EQ(*store_->Resolve("m@best"), (VersionKey{"m", 1}));
  EXPECT_EQ(NumVersions(), 1u);
  EXPECT_TRUE(UploadsAreEmpty());
}

TEST_F(ModelImportTest, WhatIsWrongIsNotKept) {
  ImportOptions options = Options("mine");
  options.sha256 = std::string(64, '0');
  EXPECT_TRUE(absl::IsDataLoss(Send(options, bytes_).status()));
  EXPECT_TRUE(UploadsAreEmpty());
  options = Options("mine");
  options.architecture_json = R"({"model": {"architecture": "mlp", "dim": 2, "hidden": 17, "layers": 2}})";
  EXPECT_TRUE(absl::IsInvalidArgument(Send(options, bytes_).status()));
  EXPECT_TRUE(UploadsAreEmpty());
  options = Options("mine");
  options.sha256.clear();
  EXPECT_TRUE(absl::IsDataLoss(Send(options, std::string(bytes_.size(), 'x')).status()));
  EXPECT_TRUE(UploadsAreEmpty());
  EXPECT_EQ(NumVersions(), 0u);
  // One that is only short goes on.
  EXPECT_TRUE(absl::IsDataLoss(Send(Options("mine"), bytes_.substr(0, 700)).status()));
  EXPECT_EQ(*ModelImport::Query(Context(), Options("mine")), 700);
  EXPECT_TRUE(Send(Options("mine"), bytes_).ok());
}

TEST_F(ModelImportTest, ChunksAreChecked) {
  const auto import = ModelImport::Begin(Context(), Options("mine"));
  ASSERT_TRUE(import.ok()) << import.status();
  const auto crc = static_cast<uint32_t>(crc32(0, reinterpret_cast<const Bytef*>(bytes_.data()), 10));
  EXPECT_TRUE(absl::IsDataLoss((*import)->Append(0, bytes_.substr(0, 10), crc ^ 1)));
  EXPECT_EQ((*import)->received_bytes(), 0);
  ASSERT_TRUE((*import)->Append(0, bytes_.substr(0, 10), crc).ok());
  EXPECT_EQ(FieldOf((*import)->Append(11, "x", std::nullopt)), "chunk.offset");
  EXPECT_EQ(FieldOf((*import)->Append(10, bytes_, std::nullopt)), "chunk.data");
  EXPECT_EQ((*import)->received_bytes(), 10);
}

TEST_F(ModelImportTest, AValidationPublishesNothing) {
  ImportOptions options = Options("mine");
  options.validate_only = true;
  options.alias = "best";
  const auto result = Send(options, bytes_);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_FALSE(result->version.has_value());
  EXPECT_EQ(result->committed_bytes, options.total_bytes);
  options.architecture_json = R"({"model": {"architecture": "mlp", "dim": 2, "hidden": 17, "layers": 2}})";
  EXPECT_TRUE(absl::IsInvalidArgument(Send(options, bytes_).status()));
  EXPECT_TRUE(store_->ListModels().empty());
  EXPECT_TRUE(UploadsAreEmpty());
}

TEST_F(ModelImportTest, WrongOptionsAreNamedBeforeAnythingIsWritten) {
  const std::vector<std::pair<std::function<void(ImportOptions&)>, std::string>> cases = {
      {[](ImportOptions& options) { options.name = "../m"; }, "start.model: "},
      {[](ImportOptions& options) { options.alias = "latest"; }, "start.alias: "},
      {[](ImportOptions& options) { options.alias = "1st"; }, "start.alias: "},
      {[](ImportOptions& options) { options.alias = "a/b"; }, "start.alias: "},
      {[](ImportOptions& options) { options.total_bytes = 0; }, "start.total_bytes: "},
      {[](ImportOptions& options) { options.total_bytes = -1; }, "start.total_bytes: "},
      {[](ImportOptions& options) { options.sha256 = "abc"; }, "start.sha256: "},
      {[](ImportOptions& options) { options.sha256 = std::string(64, 'x'); }, "start.sha256: "},
      {[](ImportOptions& options) { options.upload_id.assign(2, '.'); }, "start.upload_id: "},
      {[](ImportOptions& options) { options.upload_id = "a/b"; }, "start.upload_id: "},
      {[](ImportOptions& options) { options.upload_id = "Upper"; }, "start.upload_id: "},
      {[](ImportOptions& options) { options.upload_id = std::string(64, 'a'); }, "start.upload_id: "},
      {[](ImportOptions& options) {
         options.labels = {{"", "x"}};
       },
       "start.labels: "},
      {[](ImportOptions& options) {
         options.labels = {{"x", std::string(64, 'x')}};
       },
       "start.labels: "},
      {[](ImportOptions& options) {
         for (int i = 0; i < 65; ++i) options.labels.emplace(std::to_string(i), std::string());
       },
       "start.labels: "},
  };
  for (const auto& [change, message] : cases) {
    ImportOptions options = Options();
    change(options);
    const absl::Status status = ModelImport::Begin(Context(), options).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()), ::testing::StartsWith(message));
  }
  EXPECT_EQ(FieldOf(ModelImport::Query(Context(), Options()).status()), "start.upload_id");
  EXPECT_TRUE(UploadsAreEmpty());
}

TEST_F(ModelImportTest, LimitsHoldBeforeAnythingIsWritten) {
  ImportOptions options = Options("mine");
  options.total_bytes = (int64_t{1} << 30) + 1;
  EXPECT_TRUE(absl::IsResourceExhausted(ModelImport::Begin(Context(), options).status()));
  const int64_t size = Options().total_bytes;
  Restart({.max_bytes = size - 1});
  EXPECT_TRUE(absl::IsResourceExhausted(ModelImport::Begin(Context(), Options("mine")).status()));
  EXPECT_TRUE(UploadsAreEmpty());
  // What others have yet to send counts too.
  Restart({.max_bytes = 2 * size - 1});
  {
    const auto first = ModelImport::Begin(Context(), Options("first"));
    ASSERT_TRUE(first.ok()) << first.status();
    EXPECT_TRUE(absl::IsResourceExhausted(ModelImport::Begin(Context(), Options("second")).status()));
  }
  std::filesystem::remove_all(folder_ / "uploads/first");
  // What is there need not fit again.
  Restart({.max_bytes = size + 5000});
  SendPart(Options("mine"), 1000);
  EXPECT_TRUE(ModelImport::Begin(Context(), Options("mine")).ok());
}

TEST_F(ModelImportTest, AFullDiskIsToldAndTheUploadGoesOnLater) {
  for (const std::string failing : {"append", "sync"}) {
    disk_.before = [&](const std::string& operation, const std::string& path) {
      const bool fails = operation == failing && path.ends_with(".part");
      return fails ? absl::ResourceExhaustedError("full") : absl::OkStatus();
    };
    EXPECT_TRUE(absl::IsResourceExhausted(Send(Options("mine"), bytes_).status())) << failing;
  }
  // While the version is written.
  disk_.before = [&](const std::string& operation, const std::string& path) {
    const bool fails = operation == "append" && path.find("staging") != std::string::npos;
    return fails ? absl::ResourceExhaustedError("full") : absl::OkStatus();
  };
  EXPECT_TRUE(absl::IsResourceExhausted(Send(Options("mine"), bytes_).status()));
  EXPECT_EQ(*ModelImport::Query(Context(), Options("mine")), Options().total_bytes);
  EXPECT_EQ(NumVersions(), 0u);
  disk_.before = nullptr;
  const auto import = ModelImport::Begin(Context(), Options("mine"));
  ASSERT_TRUE(import.ok()) << import.status();
  EXPECT_TRUE((*import)->Finish().ok());
  EXPECT_EQ(NumVersions(), 1u);
}

}  // namespace
}  // namespace boss::server
