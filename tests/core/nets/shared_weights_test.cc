// Models that share a base's weights and have an adapter of their own.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "core/nets/factory.h"
#include "core/nets/prepared_convolution.h"

namespace boss {
namespace {

struct Case {
  const char* name;
  const char* architecture;
};

// Linear, convolutions of 3x3 and 1x1, attention's linear maps of pixels, resampling with and without FIR, input and output pyramids.
constexpr Case kCases[] = {
    {"Mlp", R"({"model": {"architecture": "mlp", "dim": 2, "hidden": 16, "layers": 2, "num_classes": 3}})"},
    {"Ddpmpp", R"({"model": {"architecture": "ncsnpp", "image_size": 8, "channels": 2, "nf": 8, "ch_mult": [1, 2], "num_res_blocks": 1,
                   "attn_resolutions": [4, 8], "num_classes": 3}, "time": {"eps": 0.001, "scale": 999}})"},
    {"NcsnppFir", R"({"model": {"architecture": "ncsnpp", "image_size": 8, "channels": 2, "nf": 8, "ch_mult": [1, 2], "num_res_blocks": 1,
                      "attn_resolutions": [4], "fir": true, "embedding_type": "fourier", "progressive": "output_skip",
                      "progressive_input": "input_skip", "scale_by_sigma": true}, "time": {"eps": 0.001, "scale": 999}})"},
    {"Dit", R"({"model": {"architecture": "dit", "input_size": 8, "channels": 2, "patch_size": 2, "hidden_size": 16, "depth": 2,
                "num_heads": 2, "num_classes": 3}})"},
};

void Randomise(VelocityModel& model, double deviation) {
  const c10::NoGradGuard no_grad;
  for (auto& [name, tensor] : model.Parameters()) tensor.add_(at::randn_like(tensor), deviation);
}

double RelativeError(const at::Tensor& got, const at::Tensor& expected) {
  return ((got - expected).norm() / expected.norm()).item<double>();
}

class SharedWeightsTest : public ::testing::TestWithParam<Case> {
 protected:
  SharedWeightsTest() {
    at::manual_seed(1);
    base_ = *CreateModel(GetParam().architecture, 3);
    Randomise(*base_, 0.1);
    std::vector<int64_t> shape = base_->SampleShape();
    shape.insert(shape.begin(), 3);
    x_ = at::randn(shape);
    t_ = at::tensor({0.1f, 0.5f, 0.9f});
  }

  // A view of the base whose every delta is far from zero, laid out where the base is.
  std::unique_ptr<VelocityModel> Adapted(int rank = 2) {
    std::unique_ptr<VelocityModel> view = base_->ShareWeights();
    EXPECT_TRUE(view->AttachLora({rank, 4.0}, 5).ok());
    Randomise(*view, 0.2);
    view->PrepareForInference(at::kFloat);
    return view;
  }
  // What it computes with the delta added to the weights.
  at::Tensor Merged(const VelocityModel& view) {
    const c10::NoGradGuard no_grad;
    return view.Clone()->Velocity(x_, t_, {});
  }
  at::Tensor Velocity(const VelocityModel& model) {
    const c10::NoGradGuard no_grad;
    return model.Velocity(x_, t_, {});
  }

  std::unique_ptr<VelocityModel> base_;
  at::Tensor x_, t_;
};

TEST_P(SharedWeightsTest, ApartAndMergedAgree) {
  const at::Tensor of_base = Velocity(*base_);
  const auto adapted = Adapted();
  EXPECT_LT(RelativeError(Velocity(*adapted), Merged(*adapted)), 1e-5);
  EXPECT_GT(RelativeError(Velocity(*adapted), of_base), 0.05);
}

TEST_P(SharedWeightsTest, ApartAndMergedAgreeWithPreparedWeights) {
  base_->PrepareForInference(at::kFloat);
  for (const int rank : {1, 3}) {
    const auto adapted = Adapted(rank);
    EXPECT_LT(RelativeError(Velocity(*adapted), Merged(*adapted)), 1e-5) << rank;
  }
}

TEST_P(SharedWeightsTest, AgreesInBfloat16ToItsDigits) {
  if (!SupportsBfloat16(at::kCPU)) GTEST_SKIP() << "this processor has no bfloat16 instructions";
  base_->PrepareForInference(at::kBFloat16);
  const auto adapted = Adapted();
  EXPECT_LT(RelativeError(Velocity(*adapted), Merged(*adapted)), 0.05);
}

TEST_P(SharedWeightsTest, TheBaseStaysAsItIs) {
  base_->PrepareForInference(at::kFloat);
  const at::Tensor before = Velocity(*base_);
  const auto first = Adapted(), second = Adapted();
  const at::Tensor of_first = Velocity(*first);
  EXPECT_GT(RelativeError(Velocity(*second), of_first), 0.01);
  EXPECT_TRUE(at::equal(Velocity(*base_), before));
  for (const auto& [name, tensor] : base_->Parameters()) EXPECT_TRUE(tensor.requires_grad()) << name;
  // The views go on without the model that they are views of.
  base_.reset();
  EXPECT_TRUE(at::equal(Velocity(*first), of_first));
}

TEST_P(SharedWeightsTest, SharesTheMemory) {
  base_->PrepareForInference(at::kFloat);
  const int64_t of_base = base_->MemoryBytes();
  const auto view = base_->ShareWeights();
  EXPECT_EQ(view->MemoryBytes(), 0);
  EXPECT_TRUE(at::equal(Velocity(*view), Velocity(*base_)));
  const auto adapted = Adapted(1);
  const int64_t adapter = WeightCount(adapted->Parameters()) * 4;
  EXPECT_GE(adapted->MemoryBytes(), adapter);
  EXPECT_LE(adapted->MemoryBytes(), 2 * adapter);
  EXPECT_EQ(base_->MemoryBytes(), of_base);
  for (size_t i = 0; i < base_->State().size(); ++i)
    EXPECT_EQ(adapted->State()[i].second.data_ptr(), base_->State()[i].second.data_ptr()) << base_->State()[i].first;
}

TEST_P(SharedWeightsTest, MovesNothingToTheDeviceWhereItIs) {
  base_->PrepareForInference(at::kFloat);
  const auto adapted = Adapted();
  const at::Tensor before = Velocity(*adapted);
  const int64_t bytes = adapted->MemoryBytes();
  adapted->To(at::kCPU);
  EXPECT_EQ(adapted->MemoryBytes(), bytes);
  EXPECT_TRUE(at::equal(Velocity(*adapted), before));
}

TEST_P(SharedWeightsTest, ACloneAndAMergedViewAreModelsOfTheirOwn) {
  base_->PrepareForInference(at::kFloat);
  const at::Tensor of_base = Velocity(*base_);
  const auto adapted = Adapted();
  const at::Tensor before = Velocity(*adapted);
  const auto clone = adapted->Clone();
  adapted->MergeLora();
  for (VelocityModel* model : {clone.get(), adapted.get()}) {
    EXPECT_LT(RelativeError(Velocity(*model), before), 1e-5);
    EXPECT_EQ(model->MemoryBytes(), WeightCount(base_->State()) * 4);
    EXPECT_EQ(model->Parameters().size(), base_->Parameters().size());
    Randomise(*model, 1);
    EXPECT_TRUE(at::equal(Velocity(*base_), of_base));
    // Trainable as any model.
    model->Velocity(x_, t_, {}).square().sum().backward();
    EXPECT_TRUE(model->Parameters().front().second.grad().defined());
  }
}

TEST_P(SharedWeightsTest, GradientsSeeTheSameFunction) {
  base_->PrepareForInference(at::kFloat);
  const auto adapted = Adapted();
  const at::Tensor recorded = adapted->Velocity(x_, t_, {});
  EXPECT_TRUE(recorded.requires_grad());
  EXPECT_LT(RelativeError(Velocity(*adapted), recorded.detach()), 1e-5);
}

INSTANTIATE_TEST_SUITE_P(Networks, SharedWeightsTest, ::testing::ValuesIn(kCases),
                         [](const ::testing::TestParamInfo<Case>& info) { return info.param.name; });

}  // namespace
}  // namespace boss
