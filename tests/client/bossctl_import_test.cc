// bossctl models: files that go to the server and come back.
#include <gmock/gmock.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/client/bossctl_fixture.h"

namespace boss::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using BossctlImportTest = BossctlFixture;

TEST_F(BossctlImportTest, ModulesAndDecodersAreImported) {
  std::ofstream(folder_ / "net.pt") << "network";
  std::ofstream(folder_ / "vae.pt") << "decoder!";
  ASSERT_EQ(
      Run({"models", "import", folder_ / "net.pt", "-m", "new", "--torchscript", "--decoder", folder_ / "vae.pt"}),
      kExitOk)
      << err_.str();
  EXPECT_EQ(server_.models.file, "networkdecoder!");
  EXPECT_EQ(server_.models.import_start.format(), boss::v1::ImportStart::TORCHSCRIPT);
  EXPECT_EQ(server_.models.import_start.decoder_bytes(), 8);
}

TEST_F(BossctlImportTest, ImportAndExportMoveFiles) {
  std::ofstream(folder_ / "weights") << "some bytes";
  ASSERT_EQ(Run({"models", "import", folder_ / "weights", "-m", "new", "--alias", "prod"}), kExitOk) << err_.str();
  EXPECT_EQ(server_.models.file, "some bytes");
  EXPECT_EQ(server_.models.import_start.alias(), "prod");
  EXPECT_THAT(out_.str(), HasSubstr("new@1"));
  server_.models.sha256 = server_.models.import_start.sha256();
  ASSERT_EQ(Run({"models", "export", "new@1", "--out", folder_ / "back"}), kExitOk) << err_.str();
  EXPECT_EQ(Contents(folder_ / "back"), "some bytes");
}

TEST_F(BossctlImportTest, AnImportThatWasInterruptedGoesOn) {
  std::ofstream(folder_ / "weights") << std::string(600'000, 'x');
  server_.models.import_scripts = {{1, {grpc::StatusCode::RESOURCE_EXHAUSTED, "the disk is full"}}};
  EXPECT_EQ(Run({"models", "import", folder_ / "weights", "-m", "new"}), kExitError);
  const std::string id = server_.models.import_start.upload_id();
  EXPECT_THAT(err_.str(), HasSubstr("the disk is full"));
  EXPECT_THAT(err_.str(), HasSubstr("--upload-id " + id));
  EXPECT_EQ(Run({"models", "import", folder_ / "weights", "-m", "new", "--upload-id", id}), kExitOk) << err_.str();
  EXPECT_EQ(server_.models.import_start.upload_id(), id);
  EXPECT_THAT(server_.models.import_offsets, ElementsAre(0, 512 << 10));
  EXPECT_EQ(server_.models.file, std::string(600'000, 'x'));
}

TEST_F(BossctlImportTest, AdaptersAreImportedListedAndMerged) {
  std::ofstream(folder_ / "weights") << "some bytes";
  ASSERT_EQ(Run({"models", "import", folder_ / "weights", "-m", "new", "--base", "flow@1"}), kExitOk) << err_.str();
  EXPECT_EQ(server_.models.import_start.adapter_base(), "flow@1");

  boss::v1::Model& model = server_.models.model;
  model.set_name("tuned");
  for (const auto& [version, base] : std::map<std::string, std::string>{{"1", "flow@1"}, {"2", "flow@2"}, {"3", ""}}) {
    boss::v1::ModelVersion& added = *model.add_versions();
    added.set_model("tuned");
    added.set_version(version);
    if (base.empty()) continue;
    added.mutable_adapter()->set_base(base);
    added.mutable_adapter()->set_rank(4);
    added.mutable_adapter()->set_alpha(8);
  }
  ASSERT_EQ(Run({"models", "adapters", "flow"}), kExitOk) << err_.str();
  EXPECT_EQ(server_.models.list_filter, "base = \"flow\"");
  EXPECT_THAT(out_.str(), HasSubstr("tuned@1"));
  EXPECT_THAT(out_.str(), HasSubstr("tuned@2"));
  EXPECT_EQ(out_.str().find("tuned@3"), std::string::npos);
  ASSERT_EQ(Run({"models", "list"}), kExitOk) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("flow@2, rank 4, alpha 8"));
  ASSERT_EQ(Run({"--json", "models", "adapters", "other"}), kExitOk) << err_.str();
  EXPECT_TRUE(nlohmann::json::parse(out_.str())["models"].empty());

  ASSERT_EQ(Run({"models", "merge", "tuned@2", "--output", "whole", "--alias", "prod"}), kExitOk) << err_.str();
  EXPECT_EQ(server_.models.merged.model(), "tuned@2");
  EXPECT_EQ(server_.models.merged.output_alias(), "prod");
  EXPECT_THAT(out_.str(), HasSubstr("whole@9"));
}

TEST_F(BossctlImportTest, AnImportCanBeCheckedAlone) {
  std::ofstream(folder_ / "weights") << "some bytes";
  server_.models.import_warning = "dropped: sigmas";
  ASSERT_EQ(Run({"models", "import", folder_ / "weights", "-m", "new", "--validate-only", "--label", "team=vision",
                 "--label", "note=a=b"}),
            kExitOk)
      << err_.str();
  EXPECT_TRUE(server_.models.import_start.validate_only());
  EXPECT_EQ(server_.models.import_start.labels().at("team"), "vision");
  EXPECT_EQ(server_.models.import_start.labels().at("note"), "a=b");
  EXPECT_THAT(out_.str(), HasSubstr("nothing was published"));
  EXPECT_EQ(err_.str(), "warning: dropped: sigmas\n");
}

}  // namespace
}  // namespace boss::client
