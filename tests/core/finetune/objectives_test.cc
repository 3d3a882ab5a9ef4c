#include "core/finetune/objectives.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <vector>

#include "core/nets/factory.h"
#include "tests/support/analytic_models.h"

namespace boss {
namespace {

at::Generator Seeded(uint64_t seed) { return at::detail::createCPUGenerator(seed); }

TEST(FlowMatchingObjectiveTest, APerfectModelOfOnePointHasNoLoss) {
  // All data is one image y: the marginal velocity is (y - x) / (1 - t).
  const at::Tensor images = at::full({5, 1, 2, 2}, 255, at::kByte);  // y = 1
  const testing::FunctionModel model([](const at::Tensor& x, const at::Tensor& t, const Condition&) { return (1 - x) / (1 - t).view({-1, 1, 1, 1}); }, 4);
  FlowMatchingObjective objective(images, {}, 16, 0.0, false);
  at::Generator generator = Seeded(1);
  EXPECT_NEAR(objective.Loss(model, generator).item<double>(), 0, 1e-4);
}

TEST(FlowMatchingObjectiveTest, DropsLabelsAtTheirRate) {
  int64_t dropped = 0, total = 0;
  std::set<int64_t> seen;
  const testing::FunctionModel model(
      [&](const at::Tensor& x, const at::Tensor&, const Condition& condition) {
        dropped += (condition.class_labels == 4).sum().item<int64_t>();
        total += condition.class_labels.size(0);
        for (int64_t i = 0; i < condition.class_labels.size(0); ++i) seen.insert(condition.class_labels[i].item<int64_t>());
        return x;
      },
      4, /*num_classes=*/4);
  FlowMatchingObjective objective(at::zeros({8, 1, 2, 2}, at::kByte), at::arange(8, at::kLong) % 4, 500, 0.2, false);
  at::Generator generator = Seeded(1);
  objective.Loss(model, generator);
  EXPECT_NEAR(static_cast<double>(dropped) / total, 0.2, 0.06);
  EXPECT_EQ(seen, (std::set<int64_t>{0, 1, 2, 3, 4}));
}

TEST(FlowMatchingObjectiveTest, TheGeneratorDecidesTheBatch) {
  const auto model = *CreateModel(R"({"model": {"architecture": "ncsnpp", "image_size": 4, "channels": 1, "nf": 8, "ch_mult": [1],
    "num_res_blocks": 1, "attn_resolutions": []}})", 1);
  FlowMatchingObjective objective(at::arange(64, at::kByte).view({4, 1, 4, 4}), {}, 4, 0.0, true);
  at::Generator a = Seeded(1), b = Seeded(1), c = Seeded(2);
  const double loss = objective.Loss(*model, a).item<double>();
  EXPECT_EQ(objective.Loss(*model, b).item<double>(), loss);
  EXPECT_NE(objective.Loss(*model, c).item<double>(), loss);
}

TEST(DrawSegmentPairsTest, CutsTrajectoriesAtTheKnots) {
  InlineExecutor executor;
  const at::Tensor noise = at::randn({5, 2});
  Condition condition;
  condition.class_labels = at::arange(5, at::kLong);
  const testing::FunctionModel model = testing::ExponentialFlow(1.0);
  const std::vector<int> knots{0, 3, 10};
  const auto pairs = DrawSegmentPairs(model, noise, condition, TimeGrid::Uniform(10), knots, /*batch_size=*/2, executor);
  ASSERT_TRUE(pairs.ok()) << pairs.status();
  ASSERT_EQ(pairs->size(), 10);
  const double growth_a = std::pow(1.1, 3), growth_b = std::pow(1.1, 10);
  for (int64_t n = 0; n < 5; ++n) {
    EXPECT_TRUE(at::allclose(pairs->x_start[2 * n], noise[n]));
    EXPECT_TRUE(at::allclose(pairs->x_end[2 * n], noise[n] * growth_a));
    EXPECT_TRUE(at::allclose(pairs->x_start[2 * n + 1], noise[n] * growth_a));
    EXPECT_TRUE(at::allclose(pairs->x_end[2 * n + 1], noise[n] * growth_b));
    EXPECT_EQ(pairs->class_labels[2 * n + 1].item<int64_t>(), n);
    EXPECT_EQ(pairs->segment[2 * n + 1].item<int64_t>(), 1);
  }
  EXPECT_FLOAT_EQ(pairs->t_start[1].item<float>(), 0.3f);
  EXPECT_FLOAT_EQ(pairs->t_end[0].item<float>(), 0.3f);
}

TEST(DrawSegmentPairsTest, TorchErrorsBecomeStatus) {
  InlineExecutor executor;
  const testing::FunctionModel model = testing::ExponentialFlow(1.0);
  // A knot beyond the fine grid.
  const auto pairs = DrawSegmentPairs(model, at::randn({2, 2}), {}, TimeGrid::Uniform(10), std::vector<int>{0, 11}, 2, executor);
  EXPECT_EQ(pairs.status().code(), absl::StatusCode::kInternal) << pairs.status();
}

TEST(StraighteningLossTest, IsZeroForTheChordAndPerSegment) {
  InlineExecutor executor;
  // The chord velocity of one segment is constant; a model that gives it has no loss there, and a known one elsewhere.
  SegmentPairs pairs;
  pairs.x_start = at::zeros({4, 2});
  pairs.x_end = at::full({4, 2}, 1.0);
  pairs.t_start = at::tensor({0.0f, 0.5f, 0.0f, 0.5f});
  pairs.t_end = at::tensor({0.5f, 1.0f, 0.5f, 1.0f});
  pairs.segment = at::tensor({0, 1, 0, 1}, at::kLong);
  const testing::FunctionModel model([](const at::Tensor& x, const at::Tensor& t, const Condition&) { return (t + 2).unsqueeze(1).expand_as(x).contiguous(); });
  const auto losses = LossPerSegment(model, pairs, 2, 1.0, /*batch_size=*/3, executor);
  ASSERT_TRUE(losses.ok()) << losses.status();
  EXPECT_NEAR((*losses)[0], 0.0, 1e-12);
  EXPECT_NEAR((*losses)[1], 0.25, 1e-6);
}

TEST(ReflowObjectiveTest, VisitsTheUniformTimesOnly) {
  std::set<float> times;
  const testing::FunctionModel model([&](const at::Tensor& x, const at::Tensor& t, const Condition&) {
    for (int64_t i = 0; i < t.size(0); ++i) times.insert(t[i].item<float>());
    return at::full_like(x, 3.0);
  });
  SegmentPairs pairs;
  pairs.x_start = at::zeros({6, 2});
  pairs.x_end = at::full({6, 2}, 3.0);
  pairs.t_start = at::zeros({6});
  pairs.t_end = at::ones({6});
  pairs.segment = at::zeros({6}, at::kLong);
  ReflowObjective objective(pairs, 4, 64, 1.0);
  at::Generator generator = Seeded(1);
  EXPECT_EQ(objective.Loss(model, generator).item<double>(), 0.0);
  EXPECT_EQ(times, (std::set<float>{0.0f, 0.25f, 0.5f, 0.75f}));
}

}  // namespace
}  // namespace boss
