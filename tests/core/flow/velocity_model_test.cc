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


// v = label + 10 embedding.
testing::FunctionModel ConditionedModel() {
  return testing::FunctionModel(
      [](const at::Tensor& x, const at::Tensor&, const Condition& condition) {
        const at::Tensor labels = condition.class_labels.defined() ? condition.class_labels.to(at::kFloat) : at::full({x.size(0)}, 4.0);
        const at::Tensor embedding = FindTensor(condition.tensors, "embedding");
        return (labels.unsqueeze(1) + 10 * embedding.sum(1, true)).expand_as(x).contiguous();
      },
      2, 4, {{.name = "embedding", .shape = {2}}});
}

TEST(GuidanceTest, LeadsAwayFromTheNegativeCondition) {
  const testing::FunctionModel model = ConditionedModel();
  Condition condition;
  condition.guidance_scale = 2;
  condition.class_labels = at::arange(3, at::kLong);
  condition.negative_class_labels = at::full({3}, 3, at::kLong);
  condition.tensors = {{"embedding", at::arange(6, at::kFloat).view({3, 2})}};
  condition.negative_tensors = {{"embedding", at::ones({3, 2})}};
  const at::Tensor x = at::zeros({3, 2}), t = at::zeros({3});
  const at::Tensor positive = at::arange(3, at::kFloat) + 10 * at::tensor({1.0F, 5.0F, 9.0F}), negative = at::full({3}, 3.0F + 20.0F);
  EXPECT_TRUE(at::allclose(GuidedVelocity(model, x, t, condition), (2 * positive - negative).unsqueeze(1).expand({3, 2})));
  EXPECT_EQ(EvaluationsPerCall(condition), 2);
}

TEST(GuidanceTest, WithoutANegativeConditionLeadsAwayFromNone) {
  const testing::FunctionModel model = ConditionedModel();
  Condition condition;
  condition.guidance_scale = 3;
  condition.tensors = {{"embedding", at::ones({2, 2})}};
  const at::Tensor x = at::zeros({2, 2}), t = at::zeros({2});
  // No labels on either side; zeros in place of the embedding on the other.
  EXPECT_TRUE(at::allclose(GuidedVelocity(model, x, t, condition), at::full({2, 2}, 3 * (4.0F + 20.0F) - 2 * 4.0F)));
  condition.tensors.clear();
  EXPECT_EQ(EvaluationsPerCall(condition), 1);
}

TEST(ConditionTest, AllTensorsAreSlicedTogether) {
  Condition condition;
  const at::Tensor rows = at::arange(4, at::kFloat).unsqueeze(1);
  condition.negative_class_labels = at::arange(4, at::kLong);
  condition.tensors = {{"a", rows}};
  condition.negative_tensors = {{"b", rows + 4}};
  const Condition slice = condition.Slice(1, 3);
  EXPECT_TRUE(at::equal(slice.negative_class_labels, at::arange(1, 3, at::kLong)));
  EXPECT_TRUE(at::equal(FindTensor(slice.tensors, "a"), rows.slice(0, 1, 3)));
  EXPECT_TRUE(at::equal(FindTensor(slice.negative_tensors, "b"), rows.slice(0, 1, 3) + 4));
  EXPECT_FALSE(FindTensor(slice.tensors, "b").defined());
  EXPECT_EQ(slice.To(at::kMeta).tensors[0].second.device(), at::kMeta);
}

}  // namespace
}  // namespace boss
