#include "server/engine/velocity_runner.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "tests/support/analytic_models.h"
#include "tests/support/fake_device.h"
#include "tests/support/tiny_models.h"

namespace boss::server {
namespace {

using boss::testing::FakeBackend;
using boss::testing::FunctionModel;

// Batches of different sizes are rounded differently; velocities are of the order of 1.
constexpr double kRounding = 1e-5;

double Difference(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

class VelocityRunnerTest : public ::testing::Test {
 protected:
  struct Batch {
    at::Tensor x, t;
    Condition condition;
  };
  // Of the tiny images.
  static Batch MakeBatch(int64_t rows) {
    Batch batch = {.x = at::randn({rows, 1, 8, 8}), .t = at::rand({rows})};
    batch.condition.class_labels = at::randint(0, 4, {rows}, at::kLong);  // 3: none
    return batch;
  }
  static at::Tensor Run(const VelocityRunner& runner, const Batch& batch) {
    return runner.Velocity(batch.x, batch.t, batch.condition);
  }
  at::Tensor Directly(const Batch& batch) const { return network_->Velocity(batch.x, batch.t, batch.condition); }

  const c10::InferenceMode inference_mode_;
  const std::shared_ptr<const VelocityModel> network_ =
      boss::testing::TinyModel(boss::testing::kTinyImageArchitecture, /*seed=*/3);
  InlineExecutor executor_;
};

// Whatever comes, in which sizes.
std::shared_ptr<FunctionModel> SizeRecorder(std::vector<int64_t>& sizes) {
  return std::make_shared<FunctionModel>([&sizes](const at::Tensor& x, const at::Tensor&, const Condition&) {
    sizes.push_back(x.size(0));
    return x * 2;
  });
}

TEST_F(VelocityRunnerTest, BucketsArePowersOfTwoAndTheLargestBatch) {
  EXPECT_EQ(BatchBuckets(1), (std::vector<int64_t>{1}));
  EXPECT_EQ(BatchBuckets(8), (std::vector<int64_t>{1, 2, 4, 8}));
  EXPECT_EQ(BatchBuckets(20), (std::vector<int64_t>{1, 2, 4, 8, 16, 20}));
}

TEST_F(VelocityRunnerTest, FillsBatchesUpToTheNextBucket) {
  std::vector<int64_t> sizes;
  VelocityRunner runner(SizeRecorder(sizes), {.buckets = {1, 4, 6}});
  ASSERT_TRUE(runner.WarmUp(executor_).ok());
  EXPECT_EQ(sizes, (std::vector<int64_t>{6, 4, 1}));
  sizes.clear();
  for (const int64_t rows : {1, 2, 4, 5, 6, 7}) {
    const at::Tensor x = at::randn({rows, 2});
    EXPECT_TRUE(runner.Velocity(x, at::rand({rows}), {}).equal(x * 2)) << rows;
  }
  EXPECT_EQ(sizes, (std::vector<int64_t>{1, 4, 4, 6, 6, 7}));
}

TEST_F(VelocityRunnerTest, WithoutBucketsBatchesStayAsTheyAre) {
  std::vector<int64_t> sizes;
  VelocityRunner runner(SizeRecorder(sizes), {});
  ASSERT_TRUE(runner.WarmUp(executor_).ok());
  for (const int64_t rows : {3, 5}) runner.Velocity(at::randn({rows, 2}), at::rand({rows}), {});
  EXPECT_EQ(sizes, (std::vector<int64_t>{1, 3, 5}));
}

TEST_F(VelocityRunnerTest, FilledUpBatchesGiveTheSameVelocities) {
  for (const bool channels_last : {false, true}) {
    VelocityRunner runner(network_, {.buckets = BatchBuckets(8), .channels_last = channels_last});
    ASSERT_TRUE(runner.WarmUp(executor_).ok());
    for (const int64_t rows : {1, 2, 3, 5, 8, 11}) {
      const Batch batch = MakeBatch(rows);
      const at::Tensor velocity = Run(runner, batch);
      ASSERT_EQ(velocity.sizes(), batch.x.sizes());
      EXPECT_LE(Difference(velocity, Directly(batch)), kRounding) << rows;
    }
  }
}

TEST_F(VelocityRunnerTest, WhatEarlierBatchesLeftBehindChangesNothing) {
  VelocityRunner runner(network_, {.buckets = {8}});
  ASSERT_TRUE(runner.WarmUp(executor_).ok());
  Batch bad = MakeBatch(8);
  bad.x.fill_(std::numeric_limits<float>::quiet_NaN());
  Run(runner, bad);
  const Batch batch = MakeBatch(3);
  EXPECT_LE(Difference(Run(runner, batch), Directly(batch)), kRounding);
}

TEST_F(VelocityRunnerTest, WithoutLabelsRowsHaveNone) {
  VelocityRunner runner(network_, {.buckets = {4}});
  ASSERT_TRUE(runner.WarmUp(executor_).ok());
  Run(runner, MakeBatch(4));  // leaves labels
  Batch batch = MakeBatch(3);
  batch.condition.class_labels.reset();
  EXPECT_LE(Difference(Run(runner, batch), Directly(batch)), kRounding);
}

TEST_F(VelocityRunnerTest, ConditionsAreFilledUpToo) {
  const std::shared_ptr<const VelocityModel> network =
      boss::testing::TinyModel(boss::testing::kTinyConditionedArchitecture, /*seed=*/3);
  VelocityRunner runner(network, {.buckets = {1, 4}});
  ASSERT_TRUE(runner.WarmUp(executor_).ok());
  for (const int64_t rows : {4, 3, 1, 6}) {
    const at::Tensor x = at::randn({rows, 2}), t = at::rand({rows});
    Condition condition;
    condition.tensors = {{"embedding", at::randn({rows, 3})}};
    EXPECT_LE(Difference(runner.Velocity(x, t, condition), network->Velocity(x, t, condition)), kRounding) << rows;
    // Without one there is none, whatever the last one was.
    EXPECT_LE(Difference(runner.Velocity(x, t, {}), network->Velocity(x, t, {})), kRounding) << rows;
  }
}

TEST_F(VelocityRunnerTest, GraphsGiveTheSameVelocities) {
  const auto backend = std::make_shared<FakeBackend>();
  VelocityRunner with(network_, {.buckets = BatchBuckets(8), .backend = backend}),
      without(network_, {.buckets = BatchBuckets(8)});
  ASSERT_TRUE(with.WarmUp(executor_).ok() && without.WarmUp(executor_).ok());
  EXPECT_EQ(with.num_graphs(), 4);
  EXPECT_EQ(backend->captures_with_shared_memory, 3);
  EXPECT_EQ(without.num_graphs(), 0);
  std::vector<std::pair<at::Tensor, at::Tensor>> results;
  for (const int64_t rows : {3, 1, 8, 4, 3}) {
    const Batch batch = MakeBatch(rows);
    results.emplace_back(Run(with, batch), Run(without, batch));
  }
  EXPECT_EQ(backend->replays, 5);
  // Later ones have not changed them.
  for (const auto& [recorded, evaluated] : results) EXPECT_TRUE(recorded.equal(evaluated));
}

TEST_F(VelocityRunnerTest, WhatCannotBeRecordedRunsWithoutAGraph) {
  const auto backend = std::make_shared<FakeBackend>();
  int captures = 0;
  backend->before_capture = [&] { TORCH_CHECK(++captures == 2, "operation not permitted when stream is capturing"); };
  VelocityRunner runner(network_, {.buckets = BatchBuckets(4), .backend = backend});
  ASSERT_TRUE(runner.WarmUp(executor_).ok());
  EXPECT_EQ(captures, 3);
  EXPECT_EQ(runner.num_graphs(), 1);
  for (const int64_t rows : {1, 2, 4}) {
    const Batch batch = MakeBatch(rows);
    EXPECT_LE(Difference(Run(runner, batch), Directly(batch)), kRounding) << rows;
  }
  EXPECT_EQ(backend->replays, 1);
}

TEST_F(VelocityRunnerTest, BucketsThatDoNotFitIntoMemoryAreGivenUp) {
  std::vector<int64_t> sizes;
  const auto model = std::make_shared<FunctionModel>([&](const at::Tensor& x, const at::Tensor&, const Condition&) {
    TORCH_CHECK_WITH(OutOfMemoryError, x.size(0) <= 5, "out of memory");
    sizes.push_back(x.size(0));
    return x * 2;
  });
  VelocityRunner runner(model, {.buckets = BatchBuckets(16)});
  ASSERT_TRUE(runner.WarmUp(executor_).ok());
  EXPECT_EQ(sizes, (std::vector<int64_t>{4, 2, 1}));
  const at::Tensor x = at::randn({5, 2});
  EXPECT_TRUE(runner.Velocity(x, at::rand({5}), {}).equal(x * 2));  // as it is
}

TEST_F(VelocityRunnerTest, ANetworkThatCannotBeEvaluatedIsAnError) {
  const auto model = std::make_shared<FunctionModel>(
      [](const at::Tensor& x, const at::Tensor&, const Condition&) -> at::Tensor { TORCH_CHECK(false, "broken"); });
  EXPECT_TRUE(absl::IsInternal(VelocityRunner(model, {}).WarmUp(executor_)));
  EXPECT_TRUE(absl::IsInternal(VelocityRunner(model, {.buckets = {1, 2}}).WarmUp(executor_)));
}

}  // namespace
}  // namespace boss::server
