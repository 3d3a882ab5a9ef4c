#include "server/app/server_devices.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>

#include "absl/synchronization/notification.h"
#include "server/app/server.h"
#include "server/device/cuda_loader.h"
#include "tests/support/fake_device.h"
#include "tests/support/temp_folder.h"
#include "tests/support/tiny_models.h"

namespace boss::server {
namespace {

using ::testing::HasSubstr;

ServerConfig Config(const std::string& data_folder, DeviceChoice::Kind device) {
  ServerConfig config;
  config.listen = "127.0.0.1:0";
  config.metrics_listen = "";
  config.data_folder = data_folder;
  config.min_free_disk_bytes = 0;
  config.threads = 1;
  config.device = {.kind = device};
  return config;
}

// Without a card and its libraries; on a machine that has them there is nothing to see.
class WithoutCudaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (OpenCuda(CudaLibraries::Default()).ok()) GTEST_SKIP() << "this machine has a card";
  }
  const boss::testing::TempFolder folder_;
};

TEST_F(WithoutCudaTest, AServerThatMustHaveACardDoesNotStartAndSaysWhatItLookedFor) {
  const absl::Status status = Server::Start(Config(folder_ / "data", DeviceChoice::Kind::kCuda)).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("no CUDA"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("lib"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("tried"));
}

TEST_F(WithoutCudaTest, AServerThatMayChooseComputesOnTheCpu) {
  const auto devices = OpenConfiguredDevices(Config(folder_ / "data", DeviceChoice::Kind::kAuto));
  ASSERT_TRUE(devices.ok()) << devices.status();
  EXPECT_EQ(DeviceNames(*devices), "cpu");
  const auto server = Server::Start(Config(folder_ / "data", DeviceChoice::Kind::kAuto));
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_GT((*server)->port(), 0);
}

TEST(ServerDevicesTest, DescribesEveryDeviceAndItsPrecision) {
  const Devices devices = {.backend = std::make_shared<boss::testing::FakeBackend>(at::kCUDA, 2),
                           .devices = {at::Device(at::kCUDA, 0), at::Device(at::kCUDA, 1)}};
  EXPECT_EQ(DeviceNames(devices), "cuda:0,cuda:1");
  const auto descriptions = DescribeDevices(devices, Precision::kBfloat16);
  ASSERT_TRUE(descriptions.ok()) << descriptions.status();
  ASSERT_EQ(descriptions->size(), 2u);
  EXPECT_EQ(descriptions->at(1).name, "cuda:1");
  EXPECT_EQ(descriptions->at(1).description, "a fake, bfloat16");
  EXPECT_EQ(descriptions->at(1).uuid, "GPU-0");
  EXPECT_EQ(descriptions->at(1).memory_bytes, 1 << 30);
  EXPECT_EQ(DescribeDevices(devices, Precision::kFloat32)->at(0).description, "a fake");

  const Devices cpu = {.backend = std::make_shared<CpuBackend>(), .devices = {at::kCPU}};  // has no tf32
  EXPECT_EQ(DescribeDevices(cpu, Precision::kTf32)->at(0).description,
            DescribeDevices(cpu, Precision::kFloat32)->at(0).description);
}

class CollectTest : public ::testing::TestWithParam<int> {};

TEST_P(CollectTest, EverySeriesNamesItsDevice) {
  const boss::testing::TempFolder folder;
  const RealClock clock;
  const Metrics metrics("1", "cpu");
  const auto store = ModelStore::Open(folder / "data", clock);
  ASSERT_TRUE(store.ok()) << store.status();
  const Devices devices = {.backend = std::make_shared<CpuBackend>(),
                           .devices = std::vector<at::Device>(static_cast<size_t>(GetParam()), at::kCPU)};
  const auto pool = StartDevices(ServerConfig(), devices, /*cpu_threads=*/1, **store, metrics, clock);
  ASSERT_TRUE(pool.ok()) << pool.status();
  // A model on the first device, which is named after its version's name alone.
  const VersionKey key = boss::testing::PublishTinyModel(**store, "vectors", boss::testing::kTinyVectorArchitecture);
  absl::Notification loaded;
  (*pool)->devices().front().registry->Acquire(key, [&](auto) { loaded.Notify(); });
  loaded.WaitForNotification();
  std::map<std::string, size_t> sizes;
  for (const CollectedFamily& family : CollectDevices(**pool)) {
    sizes[family.name] = family.series.size();
    for (const auto& series : family.series) {
      ASSERT_EQ(series.labels.size(), 2u) << family.name;
      EXPECT_EQ(series.labels[0], std::make_pair(std::string("device"), std::string("cpu"))) << family.name;
      const bool is_ready = series.labels[1] == std::make_pair(std::string("state"), std::string("READY"));
      if (family.name == "boss_models" && !is_ready) {
        EXPECT_EQ(series.value, 0);
      }
      if (family.name == "boss_loaded_model_bytes") {
        EXPECT_EQ(series.labels[1].second, "vectors");
      }
    }
  }
  const auto devices_count = static_cast<size_t>(GetParam());
  EXPECT_EQ(sizes, (std::map<std::string, size_t>{{"boss_device_busy_seconds_total", 2 * devices_count},
                                                  {"boss_device_units_total", 2 * devices_count},
                                                  {"boss_models", 4 * devices_count},
                                                  {"boss_loaded_model_bytes", 1}}));
}
INSTANTIATE_TEST_SUITE_P(Devices, CollectTest, ::testing::Values(1, 2));

}  // namespace
}  // namespace boss::server
