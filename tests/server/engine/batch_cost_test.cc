// What a small request waits for beside a large one, on a device whose evaluations take as long as the test says.
#include <memory>

#include "tests/server/engine/engine_fixture.h"
#include "tests/support/analytic_models.h"

namespace boss::server {
namespace {

using testing::CollectingSink;
using testing::EngineTest;

absl::Duration CostOf(int64_t rows) { return absl::Microseconds(500) + absl::Milliseconds(1) * rows; }

class BatchCostTest : public EngineTest {
 protected:
  BatchCostTest() {
    engine_.reset();
    ModelRegistryOptions options;
    options.load_network = [this](const VersionKey&) -> absl::StatusOr<std::unique_ptr<VelocityModel>> {
      return std::make_unique<boss::testing::FunctionModel>(
          [this](const at::Tensor& x, const at::Tensor&, const Condition&) {
            clock_.Advance(CostOf(x.size(0)));
            return x * 0.5;
          },
          /*dim=*/2, /*num_classes=*/3);
    };
    registry_ = std::make_unique<ModelRegistry>(*store_, options);
    StartEngine({});
  }
  ~BatchCostTest() override { engine_.reset(); }
};

TEST_F(BatchCostTest, ASmallRequestIsSlowedByTwoAtMostBesideALargeOneThatRanBeforeIt) {
  // What one sample costs is known from a request that has left.
  const auto alone = Run(Request(1, 4));
  EXPECT_EQ(alone->summary.compute_time, 4 * CostOf(1));

  const auto large = std::make_shared<CollectingSink>(), small = std::make_shared<CollectingSink>();
  const auto handle = Submit(Request(4096, 100), large);  // does not end by itself meanwhile
  large->WaitForSamples(1);  // full batches, and nothing else, have run since
  CloseDevice();
  Submit(Request(1, 4), small);
  small->WaitUntilAccepted();
  OpenDevice();
  small->Wait();
  ASSERT_TRUE(small->status.ok()) << small->status;
  EXPECT_GT(small->summary.compute_time, alone->summary.compute_time);  // they shared batches
  EXPECT_LE(small->summary.compute_time, 2 * alone->summary.compute_time);
  handle->Cancel(absl::CancelledError("enough"));
  large->Wait();
}

}  // namespace
}  // namespace boss::server
