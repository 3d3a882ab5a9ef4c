// Imports of checkpoints that others have written.
#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/io/atomic_file.h"
#include "tests/server/rpc/model_import_fixture.h"
#include "tests/support/torch_file.h"

namespace boss::server {
namespace {

using ::boss::testing::TinyModel;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

using CheckpointImportTest = testing::ModelImportTest;

TEST_F(CheckpointImportTest, ACheckpointOfAnotherNetworkIsToldByName) {
  bytes_ = *ReadFile(BOSS_SOURCE_DIR "/tests/golden/ncsnpp_tiny.pth");
  auto description = nlohmann::json::parse(*ReadFile(BOSS_SOURCE_DIR "/tests/golden/ncsnpp_tiny.json"));
  description["model"]["num_res_blocks"] = 2;
  ImportOptions options = Options();
  options.architecture_json = nlohmann::json{{"model", description["model"]}, {"time", description["time"]}}.dump();
  const absl::Status status = Send(options, bytes_).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("missing: all_modules."));
  EXPECT_THAT(std::string(status.message()), HasSubstr("in all)"));
  EXPECT_LT(status.message().size(), 1500u);
  EXPECT_EQ(NumVersions(), 0u);
}

TEST_F(CheckpointImportTest, AStateDictOfATransformerIsConverted) {
  constexpr char kTransformer[] = R"({"model": {"architecture": "dit", "input_size": 4, "channels": 2, "hidden_size": 8,
      "depth": 2, "num_heads": 2, "num_classes": 3}})";
  const auto model = TinyModel(kTransformer, /*seed=*/4);
  boss::testing::WriteStateDict(folder_ / "sit.pt", model->State());
  bytes_ = *ReadFile(folder_ / "sit.pt");
  ImportOptions options = Options();
  options.architecture_json = kTransformer;
  const auto result = Send(options, bytes_);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->warnings, ElementsAre(HasSubstr("no averaged weights")));
  const auto loaded = store_->LoadVersionModel(*result->version);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  ASSERT_EQ((*loaded)->State().size(), model->State().size());
  for (size_t i = 0; i < model->State().size(); ++i)
    EXPECT_TRUE(at::equal((*loaded)->State()[i].second, model->State()[i].second)) << model->State()[i].first;

  // A file without the position embedding, and one for another number of patches.
  NamedTensors weights = model->State();
  for (const bool absent : {true, false}) {
    ASSERT_EQ(weights.front().first, "pos_embed");
    if (absent) {
      boss::testing::WriteStateDict(folder_ / "sit.pt", NamedTensors(weights.begin() + 1, weights.end()));
    } else {
      weights.front().second = at::zeros({1, 9, 8});
      boss::testing::WriteStateDict(folder_ / "sit.pt", weights);
    }
    bytes_ = *ReadFile(folder_ / "sit.pt");
    options.total_bytes = static_cast<int64_t>(bytes_.size());
    options.sha256.clear();
    const absl::Status status = Send(options, bytes_).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(absent ? "missing: pos_embed" : "pos_embed has shape [1, 9, 8]"));
  }
}

TEST_F(CheckpointImportTest, TheReferencesCheckpointsAreConverted) {
  bytes_ = *ReadFile(BOSS_SOURCE_DIR "/tests/golden/ncsnpp_tiny.pth");
  const auto description = nlohmann::json::parse(*ReadFile(BOSS_SOURCE_DIR "/tests/golden/ncsnpp_tiny.json"));
  ImportOptions options = Options("mine");
  options.architecture_json = nlohmann::json{{"model", description["model"]}, {"time", description["time"]}}.dump();
  SendPart(options, 1'000'000);
  const auto averaged = Send(options, bytes_);
  ASSERT_TRUE(averaged.ok()) << averaged.status();
  EXPECT_THAT(averaged->warnings, ElementsAre(HasSubstr("sigmas")));
  options.upload_id.clear();
  options.raw_weights = true;
  const auto raw = Send(options, bytes_);
  ASSERT_TRUE(raw.ok()) << raw.status();
  EXPECT_NE(store_->GetVersion(*averaged->version)->manifest.sha256,
            store_->GetVersion(*raw->version)->manifest.sha256);
  EXPECT_TRUE(UploadsAreEmpty());
}

}  // namespace
}  // namespace boss::server
