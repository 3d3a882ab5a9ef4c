#include "server/device/host_memory.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>
#include <string>

#include "absl/cleanup/cleanup.h"
#include "core/base/torch_guard.h"
#include "tests/support/temp_folder.h"

namespace boss::server {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kMachine = int64_t{8} << 30;

// A system as HostMemoryBytes sees it.
class HostMemoryBytesTest : public ::testing::Test {
 protected:
  void Write(const std::string& path, const std::string& text) {
    const std::filesystem::path file = root_ / path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text << "\n";
  }
  void WriteMachine() {
    Write("proc/meminfo", "HugePages_Total:       0\nMemTotal:        8388608 kB\nMemFree:          123456 kB");
  }
  std::optional<int64_t> Bytes() const {
    const auto bytes = HostMemoryBytes(root_ / "");
    return bytes.ok() ? std::optional(*bytes) : std::nullopt;
  }

  const testing::TempFolder root_;
};

TEST_F(HostMemoryBytesTest, IsTheMachinesWithoutAGroup) {
  WriteMachine();
  EXPECT_EQ(Bytes(), kMachine);
  Write("proc/self/cgroup", "0::/");
  EXPECT_EQ(Bytes(), kMachine);
  Write("sys/fs/cgroup/memory.max", "max");
  EXPECT_EQ(Bytes(), kMachine);
}

TEST_F(HostMemoryBytesTest, IsThatOfAContainer) {
  WriteMachine();
  Write("proc/self/cgroup", "0::/");
  Write("sys/fs/cgroup/memory.max", "1073741824");
  EXPECT_EQ(Bytes(), 1 << 30);
}

TEST_F(HostMemoryBytesTest, IsTheLeastOfTheGroupsAround) {
  WriteMachine();
  Write("proc/self/cgroup", "0::/system.slice/bossd.service/inner");
  Write("sys/fs/cgroup/system.slice/memory.max", "4294967296");
  Write("sys/fs/cgroup/system.slice/bossd.service/memory.max", "2147483648");
  Write("sys/fs/cgroup/system.slice/bossd.service/inner/memory.max", "max");
  EXPECT_EQ(Bytes(), int64_t{2} << 30);
}

TEST_F(HostMemoryBytesTest, KnowsTheFirstVersionOfGroups) {
  WriteMachine();
  Write("proc/self/cgroup", "3:cpu,cpuacct:/elsewhere\n2:memory:/docker/1f\n1:name=systemd:/");
  Write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712");
  EXPECT_EQ(Bytes(), kMachine);
  Write("sys/fs/cgroup/memory/docker/1f/memory.limit_in_bytes", "536870912");
  EXPECT_EQ(Bytes(), 512 << 20);
}

TEST_F(HostMemoryBytesTest, IsUnknownWhereTheSystemIsSilent) { EXPECT_EQ(Bytes(), std::nullopt); }

TEST(HostMemoryBytes, OfThisMachine) {
  const auto bytes = HostMemoryBytes();
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  EXPECT_GT(*bytes, 64 << 20);
}

absl::Status Allocate(int64_t mebibytes) {
  return GuardTorch("test", [&]() -> absl::Status {
    at::empty({mebibytes << 20}, at::kByte);
    return absl::OkStatus();
  });
}

TEST(LimitHostMemory, RefusesWhatIsBeyondIt) {
  const absl::Cleanup unlimited = [] { LimitHostMemory(std::numeric_limits<int64_t>::max()); };
  LimitHostMemory(512 << 20);
  EXPECT_TRUE(Allocate(16).ok());
  const absl::Status status = Allocate(513);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no host memory for a tensor of 513 MiB"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("at most 512 MiB may be"));
  LimitHostMemory(1 << 30);
  EXPECT_TRUE(Allocate(513).ok());
}

TEST(CheckHostMemory, RefusesWhatCanNeverFit) {
  const absl::Cleanup unlimited = [] { LimitHostMemory(std::numeric_limits<int64_t>::max()); };
  EXPECT_TRUE(CheckHostMemory("pairs", 1e18).ok());
  LimitHostMemory(512 << 20);
  EXPECT_TRUE(CheckHostMemory("pairs", 512 << 20).ok());
  const absl::Status status = CheckHostMemory("7 pairs", 513 << 20);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("7 pairs take 513 MiB of memory, at most 512 MiB"));
}

TEST(LimitHostMemory, CountsWhatIsHeldAlready) {
  const absl::Cleanup unlimited = [] { LimitHostMemory(std::numeric_limits<int64_t>::max()); };
  LimitHostMemory(512 << 20);
  {
    const at::Tensor held = at::empty({300 << 20}, at::kByte);
    EXPECT_EQ(Allocate(256).code(), absl::StatusCode::kResourceExhausted);
    EXPECT_TRUE(Allocate(16).ok());
    EXPECT_TRUE(GuardTorch("small", [&]() -> absl::Status {
                  at::empty({1 << 20}, at::kByte);
                  return absl::OkStatus();
                }).ok());
  }
  EXPECT_TRUE(Allocate(256).ok());
}

}  // namespace
}  // namespace boss::server
