#include "core/nets/layers.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

namespace boss {
namespace {

TEST(ResampleTest, WithoutFirUpRepeatsAndDownAverages) {
  const at::Tensor x = at::arange(4, at::kFloat).view({1, 1, 2, 2});
  const at::Tensor up = ApplyResample(x, Resample::kUp, false);
  ASSERT_EQ(up.size(2), 4);
  EXPECT_EQ(up[0][0][1][1].item<float>(), 0);
  EXPECT_EQ(up[0][0][3][0].item<float>(), 2);
  EXPECT_EQ(ApplyResample(x, Resample::kDown, false).item<float>(), 1.5f);
}

// The definition, written out: zero-insertion, padding, the separable kernel [1, 3, 3, 1].
at::Tensor FilterByDefinition(const at::Tensor& x, int64_t pad_before, int64_t pad_after, double gain) {
  const at::Tensor line = at::tensor({1.0f, 3.0f, 3.0f, 1.0f}) / 8;
  const at::Tensor padded = at::constant_pad_nd(x, {pad_before, pad_after, pad_before, pad_after});
  return at::conv2d(padded.flatten(0, 1).unsqueeze(1), (at::outer(line, line) * gain).view({1, 1, 4, 4})).view({x.size(0), x.size(1), -1}).view(
      {x.size(0), x.size(1), padded.size(2) - 3, padded.size(3) - 3});
}

TEST(ResampleTest, FirUpFiltersTheZeroInsertedImage) {
  const at::Tensor x = at::randn({2, 3, 4, 4});
  at::Tensor inserted = at::zeros({2, 3, 8, 8});
  inserted.slice(2, 0, 8, 2).slice(3, 0, 8, 2).copy_(x);
  EXPECT_TRUE(at::allclose(ApplyResample(x, Resample::kUp, true), FilterByDefinition(inserted, 2, 1, 4.0), 1e-5, 1e-6));
}

TEST(ResampleTest, FirDownFiltersAndKeepsEverySecondPixel) {
  const at::Tensor x = at::randn({2, 3, 6, 6});
  const at::Tensor filtered = FilterByDefinition(x, 1, 1, 1.0).slice(2, 0, 5, 2).slice(3, 0, 5, 2);
  EXPECT_TRUE(at::allclose(ApplyResample(x, Resample::kDown, true), filtered, 1e-5, 1e-6));
}

TEST(AttentionTest, EqualsTheFormula) {
  ParameterStore store;
  LayerBuilder builder(store, 1);
  const Attention attention = Attention::Build(builder, "a", 8, true);
  for (auto& [name, tensor] : store.Parameters()) tensor.detach().normal_(0, 0.5);
  const at::Tensor x = at::randn({2, 8, 3, 3});
  const at::Tensor tokens = attention.norm(store, x).flatten(2).transpose(1, 2);
  const at::Tensor weights =
      at::softmax(at::matmul(attention.query(store, tokens), attention.key(store, tokens).transpose(1, 2)) / std::sqrt(8.0), -1);
  const at::Tensor h = attention.output(store, at::matmul(weights, attention.value(store, tokens))).transpose(1, 2).reshape(x.sizes());
  EXPECT_TRUE(at::allclose(attention(store, x), (x + h) / std::sqrt(2.0), 1e-4, 1e-5));
}

TEST(LayerBuilderTest, VarianceScalingHasItsVariance) {
  ParameterStore store;
  LayerBuilder builder(store, 1);
  EXPECT_NEAR(builder.VarianceScaling({200, 300}, 300, 200, 1.0).var().item<double>(), 1.0 / 250, 0.05 / 250);
  EXPECT_LT(builder.VarianceScaling({200, 300}, 300, 200, 0.0).abs().max().item<double>(), 1e-5);
}

}  // namespace
}  // namespace boss
