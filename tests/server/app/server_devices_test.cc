#include "server/app/server_devices.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/app/server.h"
#include "server/device/cuda_loader.h"
#include "tests/support/fake_device.h"
#include "tests/support/temp_folder.h"

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

// One device keeps the series that it has always had.
TEST_P(CollectTest, SeriesNameTheDeviceWhereThereAreSeveral) {
  const boss::testing::TempFolder folder;
  const RealClock clock;
  const Metrics metrics("1", "cpu");
  const auto store = ModelStore::Open(folder / "data", clock);
  ASSERT_TRUE(store.ok()) << store.status();
  const Devices devices = {.backend = std::make_shared<CpuBackend>(),
                           .devices = std::vector<at::Device>(static_cast<size_t>(GetParam()), at::kCPU)};
  const auto pool = StartDevices(ServerConfig(), devices, /*cpu_threads=*/1, **store, metrics, clock);
  ASSERT_TRUE(pool.ok()) << pool.status();
  const size_t device_labels = GetParam() > 1 ? 1 : 0;
  for (const CollectedFamily& family : CollectDevices(**pool)) {
    const bool by_work = family.name.starts_with("boss_device_");
    EXPECT_EQ(family.series.size(), static_cast<size_t>(GetParam()) * (by_work ? 2 : 1)) << family.name;
    for (const auto& series : family.series) {
      EXPECT_EQ(series.labels.size(), device_labels + (by_work ? 1 : 0)) << family.name;
      if (device_labels == 0) continue;
      EXPECT_EQ(series.labels.front().first, "device") << family.name;
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Devices, CollectTest, ::testing::Values(1, 2));

}  // namespace
}  // namespace boss::server
