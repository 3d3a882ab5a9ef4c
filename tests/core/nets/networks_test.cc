#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "core/nets/factory.h"
#include "core/nets/prepared_convolution.h"

namespace boss {
namespace {

constexpr char kImages[] = R"({"model": {"architecture": "ncsnpp", "image_size": 8, "channels": 2, "nf": 8, "ch_mult": [1, 2],
  "num_res_blocks": 1, "attn_resolutions": [2], "num_classes": 3, "patch_size": 2}, "time": {"eps": 0.001, "scale": 999}})";
constexpr char kVectors[] = R"({"model": {"architecture": "mlp", "dim": 2, "hidden": 16, "layers": 2, "num_classes": 3}})";
constexpr char kPatches[] = R"({"model": {"architecture": "dit", "input_size": 8, "channels": 2, "patch_size": 2, "hidden_size": 16,
  "depth": 2, "num_heads": 2, "num_classes": 3}})";

// A new network's last layer is almost zero, so that its output says nothing; this one's is not.
std::unique_ptr<VelocityModel> Randomised(const char* json) {
  std::unique_ptr<VelocityModel> model = *CreateModel(json, 3);
  const c10::NoGradGuard no_grad;
  at::manual_seed(1);
  for (auto& [name, tensor] : model->Parameters()) tensor.add_(at::randn_like(tensor), 0.1);
  return model;
}

class NetworkTest : public ::testing::TestWithParam<const char*> {
 protected:
  NetworkTest() : model_(Randomised(GetParam())) {
    std::vector<int64_t> shape = model_->SampleShape();
    shape.insert(shape.begin(), 4);
    x_ = at::randn(shape);
    t_ = at::tensor({0.0f, 0.3f, 0.7f, 1.0f});
  }
  Condition Labels(std::vector<int64_t> labels) {
    Condition condition;
    condition.class_labels = at::tensor(labels, at::kLong);
    return condition;
  }
  c10::NoGradGuard no_grad_;
  std::unique_ptr<VelocityModel> model_;
  at::Tensor x_, t_;
};

TEST_P(NetworkTest, KeepsTheShapeAndTakesATimePerSample) {
  const at::Tensor whole = model_->Velocity(x_, t_, {});
  ASSERT_EQ(whole.sizes(), x_.sizes());
  for (int64_t i = 0; i < 4; ++i) {
    const at::Tensor alone = model_->Velocity(x_.slice(0, i, i + 1), t_.slice(0, i, i + 1), {});
    EXPECT_TRUE(at::allclose(alone[0], whole[i], 1e-4, 1e-5)) << i;
  }
  EXPECT_FALSE(at::allclose(model_->Velocity(x_, at::zeros({4}), {}), model_->Velocity(x_, at::ones({4}), {})));
}

TEST_P(NetworkTest, LabelsMatterAndNoLabelIsTheLastIndex) {
  const at::Tensor none = model_->Velocity(x_, t_, {});
  EXPECT_TRUE(at::equal(none, model_->Velocity(x_, t_, Labels({3, 3, 3, 3}))));
  const at::Tensor labelled = model_->Velocity(x_, t_, Labels({0, 1, 2, 3}));
  EXPECT_FALSE(at::allclose(labelled[0], none[0]));
  EXPECT_TRUE(at::allclose(labelled[3], none[3], 1e-4, 1e-5));
}

TEST_P(NetworkTest, ACloneSharesNothing) {
  const std::unique_ptr<VelocityModel> clone = model_->Clone();
  EXPECT_TRUE(at::equal(clone->Velocity(x_, t_, {}), model_->Velocity(x_, t_, {})));
  const at::Tensor before = model_->Velocity(x_, t_, {});
  for (auto& [name, tensor] : clone->Parameters()) tensor.mul_(2);
  EXPECT_TRUE(at::equal(model_->Velocity(x_, t_, {}), before));
  EXPECT_FALSE(at::allclose(clone->Velocity(x_, t_, {}), before));
  EXPECT_TRUE(clone->Parameters().front().second.requires_grad());
}

double RelativeError(const at::Tensor& got, const at::Tensor& expected) {
  return ((got - expected).norm() / expected.norm()).item<double>();
}

TEST_P(NetworkTest, PreparedItAgreesToRoundingAndInBfloat16ToItsDigits) {
  const at::Tensor expected = model_->Velocity(x_, t_, Labels({0, 1, 2, 3}));
  const int64_t bytes = model_->MemoryBytes();
  EXPECT_EQ(bytes, WeightCount(model_->State()) * 4);
  model_->PrepareForInference(at::kFloat);
  EXPECT_GT(model_->MemoryBytes(), bytes);
  EXPECT_LE(model_->MemoryBytes(), 2 * bytes);
  const at::Tensor prepared = model_->Velocity(x_, t_, Labels({0, 1, 2, 3}));
  EXPECT_LT(RelativeError(prepared, expected), 1e-5);
  EXPECT_EQ(prepared.strides(), expected.strides());
  if (!SupportsBfloat16(at::kCPU)) GTEST_SKIP() << "this processor has no bfloat16 instructions";
  model_->PrepareForInference(at::kBFloat16);
  const at::Tensor coarse = model_->Velocity(x_, t_, Labels({0, 1, 2, 3}));
  EXPECT_EQ(coarse.scalar_type(), at::kFloat);
  EXPECT_LT(RelativeError(coarse, expected), 0.05);
}

TEST_P(NetworkTest, WhatChangesTheWeightsUndoesThePreparation) {
  model_->PrepareForInference(at::kFloat);
  const std::unique_ptr<VelocityModel> clone = model_->Clone();
  for (auto& [name, tensor] : clone->Parameters()) tensor.mul_(2);
  EXPECT_FALSE(at::allclose(clone->Velocity(x_, t_, {}), model_->Velocity(x_, t_, {})));
  ASSERT_TRUE(model_->AttachLora({2, 4.0}, 5).ok());
  const at::Tensor before = model_->Velocity(x_, t_, {});
  for (auto& [name, tensor] : model_->Parameters()) tensor.add_(at::ones_like(tensor));
  const at::Tensor adapted = model_->Velocity(x_, t_, {});
  EXPECT_FALSE(at::allclose(adapted, before));
  model_->PrepareForInference(at::kFloat);
  EXPECT_LT(RelativeError(model_->Velocity(x_, t_, {}), adapted), 1e-5);
  model_->MergeLora();
  EXPECT_LT(RelativeError(model_->Velocity(x_, t_, {}), adapted), 1e-4);
}

TEST_P(NetworkTest, GradientsFlowThroughAPreparedNetworkToo) {
  model_->PrepareForInference(at::kFloat);
  const c10::AutoGradMode grad(true);
  model_->Velocity(x_, t_, Labels({0, 1, 2, 3})).square().sum().backward();
  for (const auto& [name, tensor] : model_->Parameters()) EXPECT_TRUE(tensor.grad().defined()) << name;
}

TEST_P(NetworkTest, EveryParameterGetsAGradient) {
  const c10::AutoGradMode grad(true);
  model_->Velocity(x_, t_, Labels({0, 1, 2, 3})).square().sum().backward();
  for (const auto& [name, tensor] : model_->Parameters()) {
    ASSERT_TRUE(tensor.grad().defined()) << name;
    EXPECT_GT(tensor.grad().abs().sum().item<double>(), 0) << name;
  }
}

TEST_P(NetworkTest, ALoraAdapterStartsAtNothingTrainsAloneAndMerges) {
  const at::Tensor before = model_->Velocity(x_, t_, {});
  const int64_t full = ParameterCount(*model_);
  ASSERT_TRUE(model_->AttachLora({2, 4.0}, 5).ok());
  EXPECT_TRUE(at::allclose(model_->Velocity(x_, t_, {}), before));
  EXPECT_LT(ParameterCount(*model_), full);
  {
    const c10::AutoGradMode grad(true);
    model_->Velocity(x_, t_, {}).square().sum().backward();
  }
  for (const auto& [name, tensor] : model_->State()) EXPECT_FALSE(tensor.requires_grad()) << name;
  for (auto& [name, tensor] : model_->Parameters()) {
    EXPECT_TRUE(tensor.grad().defined()) << name;
    tensor.add_(at::randn_like(tensor), 0.1);
  }
  const at::Tensor adapted = model_->Velocity(x_, t_, {});
  EXPECT_FALSE(at::allclose(adapted, before));
  EXPECT_EQ(model_->AttachLora({2, 4.0}, 5).code(), absl::StatusCode::kFailedPrecondition);
  model_->MergeLora();
  EXPECT_TRUE(at::allclose(model_->Velocity(x_, t_, {}), adapted, 1e-4, 1e-5));
  EXPECT_EQ(ParameterCount(*model_), full);
}

std::string NameOf(const ::testing::TestParamInfo<const char*>& info) {
  constexpr const char* kNames[] = {"Ncsnpp", "Mlp", "Dit"};
  return kNames[info.index];
}

INSTANTIATE_TEST_SUITE_P(Networks, NetworkTest, ::testing::Values(kImages, kVectors, kPatches), NameOf);

}  // namespace
}  // namespace boss
