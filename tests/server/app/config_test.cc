#include "server/app/config.h"

#include <gtest/gtest.h>

#include <fstream>
#include <vector>

#include "tests/support/temp_folder.h"

namespace boss::server {
namespace {

std::variant<ServerConfig, int> Parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "bossd");
  return ParseConfig(static_cast<int>(arguments.size()), arguments.data());
}

TEST(ConfigTest, FlagsOverrideTheFileAndTheFileTheDefaults) {
  const boss::testing::TempFolder folder;
  const std::string path = folder / "bossd.toml";
  std::ofstream(path) << "listen = \"127.0.0.1:1234\"\nmax-batch = 32\ngrace-seconds = 2.5\nlog-format = \"json\"\n"
                      << "dataset-folder = [\"/a\", \"/b\"]\nfeatures = [\"inception=/models/inception.pt\"]\n";
  const auto parsed = Parse({"--config", path.c_str(), "--max-batch", "8"});
  ASSERT_TRUE(std::holds_alternative<ServerConfig>(parsed));
  const auto& config = std::get<ServerConfig>(parsed);
  EXPECT_EQ(config.listen, "127.0.0.1:1234");
  EXPECT_EQ(config.max_batch, 8);
  EXPECT_EQ(std::get<ServerConfig>(Parse({})).max_batch, std::nullopt);
  EXPECT_EQ(config.grace, absl::Seconds(2.5));
  EXPECT_EQ(config.log_format, LogFormat::kJson);
  EXPECT_EQ(config.dataset_folders, (std::vector<std::string>{"/a", "/b"}));
  EXPECT_EQ(config.feature_networks.at("inception"), "/models/inception.pt");
  EXPECT_EQ(config.max_queued_jobs, ServerConfig().max_queued_jobs);
}

TEST(ConfigTest, ForeignCodeIsAllowedOnlyWhereItIsAskedFor) {
  EXPECT_FALSE(std::get<ServerConfig>(Parse({})).allow_torchscript);
  EXPECT_TRUE(std::get<ServerConfig>(Parse({"--allow-torchscript"})).allow_torchscript);
}

TEST(ConfigTest, NoRequestMayBeLargerThanTheQueue) {
  const auto parsed = Parse({"--max-queued-samples=100", "--max-samples-per-request=1000"});
  ASSERT_TRUE(std::holds_alternative<ServerConfig>(parsed));
  EXPECT_EQ(std::get<ServerConfig>(parsed).max_samples_per_request, 100);
}

TEST(ConfigTest, TakesDevicesAndAPrecision) {
  const auto defaults = std::get<ServerConfig>(Parse({}));
  EXPECT_EQ(defaults.device.kind, DeviceChoice::Kind::kAuto);
  EXPECT_EQ(defaults.precision, Precision::kFloat32);

  const auto cards = std::get<ServerConfig>(Parse({"--device=cuda:1,cuda:0", "--precision=tf32"}));
  EXPECT_EQ(cards.device.kind, DeviceChoice::Kind::kCuda);
  EXPECT_EQ(cards.device.indices, (std::vector<int>{1, 0}));
  EXPECT_EQ(cards.precision, Precision::kTf32);

  const boss::testing::TempFolder folder;
  const std::string path = folder / "bossd.toml";
  std::ofstream(path) << "device = \"cpu\"\nprecision = \"bfloat16\"\n";
  const auto cpu = std::get<ServerConfig>(Parse({"--config", path.c_str()}));
  EXPECT_EQ(cpu.device.kind, DeviceChoice::Kind::kCpu);
  EXPECT_EQ(cpu.precision, Precision::kBfloat16);
}

TEST(ConfigTest, HelpEndsWithSuccessAndNonsenseWithout) {
  EXPECT_EQ(std::get<int>(Parse({"--help"})), 0);
  EXPECT_EQ(std::get<int>(Parse({"--version"})), 0);
  for (const char* wrong : {"--no-such-flag", "--max-batch=0", "--max-batch=many", "--log-format=xml",
                            "--features=nameless", "--training-share=2", "--device=gpu", "--device=cuda:0,cuda:0",
                            "--precision=float16"}) {
    const auto parsed = Parse({wrong});
    ASSERT_TRUE(std::holds_alternative<int>(parsed)) << wrong;
    EXPECT_NE(std::get<int>(parsed), 0) << wrong;
  }
}

}  // namespace
}  // namespace boss::server
