// Whether unloading frees what loading took.
#include <gtest/gtest.h>
#include <malloc.h>

#include <string>

#include "tests/server/engine/engine_fixture.h"

namespace boss::server {
namespace {

// 2.1 million weights: 8 MiB a copy, so that 200 that are kept would be 1.6 GiB.
constexpr char kLargeArchitecture[] =
    R"({"model": {"architecture": "mlp", "dim": 2, "hidden": 1024, "layers": 3, "num_classes": 0}})";
constexpr double kCopyMebibytes = 8;

// What is allocated now. Resident memory would count what malloc keeps for later, too, which depends on how threads met.
double AllocatedMebibytes() {
  const struct mallinfo2 info = mallinfo2();
  return static_cast<double>(info.uordblks + info.hblkhd) / (1 << 20);
}

class ModelMemoryTest : public testing::EngineTest {
 protected:
  std::shared_ptr<const LoadedModel> LoadAndSample() {
    SampleRequest request = Request(2, 2);
    request.model = "large";
    EXPECT_TRUE(Run(request)->status.ok());
    std::shared_ptr<const LoadedModel> model;
    absl::Notification done;
    registry_->Acquire(large_, [&](absl::StatusOr<std::shared_ptr<const LoadedModel>> result) {
      model = *std::move(result);
      done.Notify();
    });
    done.WaitForNotification();
    // The request's own reference goes with its end, which comes after its answer.
    EXPECT_TRUE(engine_->WaitIdle(absl::InfiniteFuture()));
    EXPECT_TRUE(registry_->Unload(large_).ok());
    return model;
  }

  const VersionKey large_ = boss::testing::PublishTinyModel(*store_, "large", kLargeArchitecture);
};

TEST_F(ModelMemoryTest, LoadingAndUnloading200TimesLeavesNothing) {
  for (int i = 0; i < 20; ++i) LoadAndSample();
  const double before = AllocatedMebibytes();
  for (int i = 0; i < 200; ++i) LoadAndSample();
  EXPECT_LT(AllocatedMebibytes() - before, kCopyMebibytes);

  // The same with one reference kept each time: what this test would see of a leak.
  std::vector<std::shared_ptr<const LoadedModel>> kept;
  for (int i = 0; i < 20; ++i) {
    kept.push_back(LoadAndSample());
    // A version is UNLOADING while somebody has it, and loads again under a new registry.
    engine_.reset();
    registry_ = std::make_unique<ModelRegistry>(*store_);
    StartEngine({});
  }
  EXPECT_GT(AllocatedMebibytes() - before, 20 * kCopyMebibytes);
}

}  // namespace
}  // namespace boss::server
