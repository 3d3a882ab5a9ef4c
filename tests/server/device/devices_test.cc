#include "server/device/devices.h"

#include <ATen/Context.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "server/device/cuda_loader.h"
#include "tests/support/fake_device.h"

namespace boss::server {
namespace {

using ::testing::HasSubstr;

CudaOpener Cards(int count) {
  return [count]() -> absl::StatusOr<std::unique_ptr<DeviceBackend>> {
    return std::make_unique<boss::testing::FakeBackend>(at::kCUDA, count);
  };
}

absl::StatusOr<std::unique_ptr<DeviceBackend>> NoCards() { return absl::FailedPreconditionError("no CUDA: no driver"); }

TEST(DeviceChoiceTest, ReadsEveryForm) {
  using enum DeviceChoice::Kind;
  EXPECT_EQ(ParseDeviceChoice("auto")->kind, kAuto);
  EXPECT_EQ(ParseDeviceChoice("cpu")->kind, kCpu);
  EXPECT_EQ(ParseDeviceChoice("cuda")->kind, kCuda);
  EXPECT_TRUE(ParseDeviceChoice("cuda")->indices.empty());
  EXPECT_EQ(ParseDeviceChoice("cuda:3")->indices, (std::vector<int>{3}));
  EXPECT_EQ(ParseDeviceChoice("cuda:1,cuda:0")->indices, (std::vector<int>{1, 0}));
}

TEST(DeviceChoiceTest, RefusesNonsense) {
  for (const char* text : {"", "gpu", "cuda:", "cuda:-1", "cuda:x", "cuda:128", "cuda: 1", "cuda:01", "cuda:0,",
                           "cpu,cuda:0", "cuda,cuda:0", "cuda:0,cuda:0", "CUDA"}) {
    const absl::Status status = ParseDeviceChoice(text).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(text));
  }
}

TEST(OpenDevicesTest, AutoTakesEveryCardThatIsThereAndOtherwiseTheCpu) {
  const auto cards = OpenDevices({}, Cards(2));
  ASSERT_TRUE(cards.ok()) << cards.status();
  EXPECT_EQ(cards->devices, (std::vector<at::Device>{{at::kCUDA, 0}, {at::kCUDA, 1}}));
  EXPECT_EQ(cards->backend->type(), at::kCUDA);
  EXPECT_TRUE(cards->without_cuda.ok());

  const auto cpu = OpenDevices({}, NoCards);
  ASSERT_TRUE(cpu.ok()) << cpu.status();
  EXPECT_EQ(cpu->devices, (std::vector<at::Device>{at::kCPU}));
  EXPECT_EQ(cpu->backend->type(), at::kCPU);
  EXPECT_EQ(cpu->without_cuda.message(), "no CUDA: no driver");
}

TEST(OpenDevicesTest, TheCpuNeedsNoSearchForCards) {
  bool searched = false;
  const auto cpu = OpenDevices({.kind = DeviceChoice::Kind::kCpu}, [&] {
    searched = true;
    return NoCards();
  });
  ASSERT_TRUE(cpu.ok()) << cpu.status();
  EXPECT_EQ(cpu->devices.size(), 1u);
  EXPECT_FALSE(searched);
}

TEST(OpenDevicesTest, CardsThatAreAskedForMustBeThere) {
  EXPECT_EQ(OpenDevices({.kind = DeviceChoice::Kind::kCuda}, NoCards).status(), NoCards().status());
  const auto some = OpenDevices({.kind = DeviceChoice::Kind::kCuda, .indices = {2, 0}}, Cards(3));
  ASSERT_TRUE(some.ok()) << some.status();
  EXPECT_EQ(some->devices, (std::vector<at::Device>{{at::kCUDA, 2}, {at::kCUDA, 0}}));
  const absl::Status missing = OpenDevices({.kind = DeviceChoice::Kind::kCuda, .indices = {0, 3}}, Cards(3)).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(missing));
  EXPECT_THAT(std::string(missing.message()), HasSubstr("cuda:3"));
}

TEST(OpenCudaTest, SaysWhatIsMissingWhatWasTriedAndWhatTheLoaderSaid) {
  // A library that is there stands for what comes before the missing one.
  const std::vector<std::string> there = {"libm.so.6"}, missing = {"/nowhere/libx.so", "libnot-there.so"};
  const auto message = [](const CudaLibraries& libraries) {
    const absl::Status status = OpenCuda(libraries).status();
    EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
    return std::string(status.message());
  };
  for (const CudaLibraries& libraries : {CudaLibraries{missing, there, there}, CudaLibraries{there, missing, there},
                                         CudaLibraries{there, there, missing}}) {
    const std::string text = message(libraries);
    EXPECT_THAT(text, HasSubstr("/nowhere/libx.so (/nowhere/libx.so: cannot open shared object file"));
    EXPECT_THAT(text, HasSubstr("libnot-there.so (libnot-there.so: cannot open shared object file"));
  }
  EXPECT_THAT(message({missing, there, there}), HasSubstr("driver"));
  EXPECT_THAT(message({there, missing, there}), HasSubstr("LibTorch's CUDA library"));
  EXPECT_THAT(message({there, there, missing}), HasSubstr("the server's CUDA library"));
  EXPECT_THAT(message({there, there, there}), HasSubstr("no function boss_new_cuda_backend"));
}

TEST(OpenCudaTest, LooksBesideLibTorchAndBesideTheProgram) {
  const CudaLibraries libraries = CudaLibraries::Default();
  ASSERT_EQ(libraries.torch_cuda.size(), 2u);
  EXPECT_EQ(libraries.torch_cuda[0], BOSS_TORCH_LIBRARIES "/libtorch_cuda.so");
  ASSERT_EQ(libraries.boss_cuda.size(), 3u);
  EXPECT_THAT(libraries.boss_cuda[0], HasSubstr("/tests/server/device/libboss_cuda.so"));
}

TEST(CpuBackendTest, TellsWhatTheMachineIs) {
  const CpuBackend backend;
  const DeviceFacts facts = backend.Facts(at::kCPU);
  EXPECT_GT(facts.free_bytes, 0);
  EXPECT_GE(facts.memory_bytes, facts.free_bytes);
  EXPECT_EQ(backend.Capture([] { FAIL(); }, nullptr), nullptr);
}

TEST(PrecisionTest, OnlyTf32RoundsFactors) {
  for (const Precision precision : {Precision::kTf32, Precision::kFloat32, Precision::kBfloat16}) {
    SetCudaFloat32Precision(precision);
    const bool rounds = precision == Precision::kTf32;
    EXPECT_EQ(at::globalContext().allowTF32CuDNN(), rounds) << PrecisionName(precision);
    EXPECT_EQ(at::globalContext().allowTF32CuBLAS(), rounds) << PrecisionName(precision);
  }
}

}  // namespace
}  // namespace boss::server
