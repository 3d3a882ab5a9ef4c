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

TEST(ConfigTest, TakesWhatGuardsTheServer) {
  const auto defaults = std::get<ServerConfig>(Parse({}));
  EXPECT_FALSE(defaults.insecure);
  EXPECT_EQ(defaults.reflection, Reflection::kAuto);
  EXPECT_EQ(defaults.credentials_reload, absl::Seconds(10));
  EXPECT_EQ(defaults.access_file, "");

  const boss::testing::TempFolder folder;
  const std::string path = folder / "bossd.toml";
  std::ofstream(path) << "tls-certificate = \"/tls/tls.crt\"\ntls-key = \"/tls/tls.key\"\n"
                      << "tls-client-ca = \"/tls/ca.crt\"\naccess-file = \"/access.json\"\n"
                      << "credentials-reload-seconds = 2.5\nreflection = \"on\"\ninsecure = true\n";
  const auto config = std::get<ServerConfig>(Parse({"--config", path.c_str()}));
  EXPECT_EQ(config.tls_certificate, "/tls/tls.crt");
  EXPECT_EQ(config.tls_key, "/tls/tls.key");
  EXPECT_EQ(config.tls_client_ca, "/tls/ca.crt");
  EXPECT_EQ(config.access_file, "/access.json");
  EXPECT_EQ(config.credentials_reload, absl::Seconds(2.5));
  EXPECT_EQ(config.reflection, Reflection::kOn);
  EXPECT_TRUE(config.insecure);

  const auto flags =
      std::get<ServerConfig>(Parse({"--tls-certificate=a", "--tls-key=b", "--tls-client-ca=c", "--access-file=d",
                                    "--reflection=off", "--credentials-reload-seconds=0", "--insecure"}));
  EXPECT_EQ(flags.access_file, "d");
  EXPECT_EQ(flags.reflection, Reflection::kOff);
  EXPECT_EQ(flags.credentials_reload, absl::ZeroDuration());
  EXPECT_TRUE(flags.insecure);
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

TEST(ConfigTest, AnEmptyValueIsAValue) {
  for (const std::vector<const char*>& arguments :
       {std::vector<const char*>{"--metrics-listen=", "--max-batch=8"}, {"--metrics-listen", "", "--max-batch=8"}}) {
    const auto config = std::get<ServerConfig>(Parse(arguments));
    EXPECT_EQ(config.metrics_listen, "");
    EXPECT_EQ(config.max_batch, 8);
  }
}

TEST(ConfigTest, TakesLimitsOfCallsAndConnections) {
  const boss::testing::TempFolder folder;
  const std::string path = folder / "bossd.toml";
  std::ofstream(path) << "max-pixels-per-request = 1000\nmax-request-seconds = inf\n"
                      << "max-streams-per-connection = 7\nmax-metadata-bytes = 4096\ndrain-seconds = 1.5\n";
  const auto config = std::get<ServerConfig>(Parse({"--config", path.c_str(), "--max-connection-idle-seconds=60",
                                                    "--keepalive-seconds=inf", "--min-ping-seconds=2",
                                                    "--max-connection-age-seconds=600"}));
  EXPECT_EQ(config.max_pixels_per_request, 1000);
  EXPECT_EQ(config.max_request_time, absl::InfiniteDuration());
  EXPECT_EQ(config.max_streams_per_connection, 7);
  EXPECT_EQ(config.max_metadata_bytes, 4096);
  EXPECT_EQ(config.drain, absl::Milliseconds(1500));
  EXPECT_EQ(config.max_connection_idle, absl::Minutes(1));
  EXPECT_EQ(config.max_connection_age, absl::Minutes(10));
  EXPECT_EQ(std::get<ServerConfig>(Parse({})).max_connection_age, absl::InfiniteDuration());
  EXPECT_EQ(config.keepalive, absl::InfiniteDuration());
  EXPECT_EQ(config.min_ping_interval, absl::Seconds(2));
}

TEST(ConfigTest, TheFileCanBeReadAgain) {
  const boss::testing::TempFolder folder;
  const std::string path = folder / "bossd.toml";
  const std::vector<const char*> arguments = {"bossd", "--config", path.c_str(), "--max-batch=8"};
  const auto read = [&] { return ReadConfigAgain(static_cast<int>(arguments.size()), arguments.data()); };
  std::ofstream(path) << "log-level = \"warn\"\nmax-batch = 16\n";
  ASSERT_TRUE(read().ok()) << read().status();
  EXPECT_EQ(read()->log_level, LogLevel::kWarn);
  EXPECT_EQ(read()->max_batch, 8);
  std::ofstream(path) << "log-level = \"loud\"\n";
  EXPECT_TRUE(absl::IsInvalidArgument(read().status())) << read().status();
}

TEST(ConfigTest, HelpEndsWithSuccessAndNonsenseWithout) {
  EXPECT_EQ(std::get<int>(Parse({"--help"})), 0);
  EXPECT_EQ(std::get<int>(Parse({"--version"})), 0);
  for (const char* wrong : {"--no-such-flag", "--max-batch=0", "--max-batch=many", "--log-format=xml",
                            "--log-level=loud", "--drain-seconds=-1", "--drain-seconds=nan", "--drain-seconds=soon",
                            "--features=nameless", "--training-share=2", "--device=gpu", "--device=cuda:0,cuda:0",
                            "--precision=float16", "--reflection=maybe", "--credentials-reload-seconds=-1"}) {
    const auto parsed = Parse({wrong});
    ASSERT_TRUE(std::holds_alternative<int>(parsed)) << wrong;
    EXPECT_NE(std::get<int>(parsed), 0) << wrong;
  }
}

}  // namespace
}  // namespace boss::server
