#include "core/flow/velocity_model.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/support/analytic_models.h"

namespace boss {
namespace {

// v = label, with 'no label' (3) giving 10.
testing::FunctionModel LabelModel() {
  return testing::FunctionModel(
      [](const at::Tensor& x, const at::Tensor&, const Condition& condition) {
        const at::Tensor label = condition.class_labels.to(at::kFloat);
        return at::where(label == 3, at::full_like(label, 10), label).unsqueeze(1).expand_as(x).contiguous();
      },
      /*dim=*/2, /*num_classes=*/3);
}

TEST(GuidedVelocityTest, ExtrapolatesFromNoLabel) {
  const at::Tensor x = at::zeros({3, 2}), t = at::zeros({3});
  Condition condition;
  condition.class_labels = at::arange(3, at::kLong);
  condition.guidance_scale = 2.0;
  // 10 + 2 (label - 10)
  EXPECT_TRUE(at::allclose(GuidedVelocity(LabelModel(), x, t, condition).select(1, 0), at::tensor({-10.0f, -8.0f, -6.0f})));
  EXPECT_EQ(EvaluationsPerCall(condition), 2);
}

TEST(GuidedVelocityTest, ScaleOneIsThePlainVelocity) {
  const at::Tensor x = at::zeros({3, 2}), t = at::zeros({3});
  Condition condition;
  condition.class_labels = at::arange(3, at::kLong);
  EXPECT_TRUE(at::equal(GuidedVelocity(LabelModel(), x, t, condition).select(1, 0), at::tensor({0.0f, 1.0f, 2.0f})));
  EXPECT_EQ(EvaluationsPerCall(condition), 1);
}

TEST(ConditionTest, SlicesLabels) {
  Condition condition;
  condition.class_labels = at::arange(5, at::kLong);
  condition.guidance_scale = 3;
  const Condition slice = condition.Slice(1, 3);
  EXPECT_TRUE(at::equal(slice.class_labels, at::arange(1, 3, at::kLong)));
  EXPECT_EQ(slice.guidance_scale, 3);
  EXPECT_FALSE(Condition().Slice(0, 1).class_labels.defined());
}

}  // namespace
}  // namespace boss
