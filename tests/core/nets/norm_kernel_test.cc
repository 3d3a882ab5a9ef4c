#include "core/nets/norm_kernel.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

namespace boss {
namespace {

struct Shape {
  int64_t batch, channels, side, groups;
};

class NormKernelTest : public ::testing::TestWithParam<Shape> {
 protected:
  // What the kernel stands for, in float64 and LibTorch's operators.
  at::Tensor Expected(const at::Tensor& x, const at::Tensor& offset, bool activate) const {
    at::Tensor sum = x.to(at::kDouble).contiguous();
    if (offset.defined()) sum = sum + offset.to(at::kDouble).view({x.size(0), x.size(1), 1, 1});
    const at::Tensor y =
        at::group_norm(sum, GetParam().groups, weight_.to(at::kDouble), bias_.to(at::kDouble), /*eps=*/1e-6);
    return activate ? at::silu(y) : y;
  }
  at::Tensor Got(const at::Tensor& x, const at::Tensor& offset, bool activate) const {
    return ChannelsLastNorm(x, offset, weight_, bias_,
                            {.groups = GetParam().groups, .eps = 1e-6, .activate = activate});
  }

  const c10::NoGradGuard no_grad_;
  const Shape shape_ = GetParam();
  const at::Tensor x_ = at::randn({shape_.batch, shape_.channels, shape_.side, shape_.side}) * 3 + 1;
  const at::Tensor offset_ = at::randn({shape_.batch, shape_.channels});
  const at::Tensor weight_ = at::randn({shape_.channels}), bias_ = at::randn({shape_.channels});
};

TEST_P(NormKernelTest, AgreesWithFloat64) {
  for (const bool activate : {false, true}) {
    for (const at::Tensor& offset : {at::Tensor(), offset_}) {
      const at::Tensor got = Got(x_.contiguous(at::MemoryFormat::ChannelsLast), offset, activate);
      EXPECT_TRUE(got.is_contiguous(at::MemoryFormat::ChannelsLast));
      EXPECT_LT((got - Expected(x_, offset, activate)).abs().max().item<double>(), 2e-5);
    }
  }
}

TEST_P(NormKernelTest, TakesOtherLayouts) {
  EXPECT_LT((Got(x_, offset_, true) - Expected(x_, offset_, true)).abs().max().item<double>(), 2e-5);
}

TEST_P(NormKernelTest, RoundsToBfloat16OnceAtTheEnd) {
  const at::Tensor x = x_.to(at::kBFloat16).contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor got = Got(x, offset_, true);
  EXPECT_EQ(got.scalar_type(), at::kBFloat16);
  const at::Tensor expected = Expected(x, offset_, true);
  EXPECT_TRUE(((got.to(at::kDouble) - expected).abs() <= expected.abs() / 256 + 1e-4).all().item<bool>());
}

TEST_P(NormKernelTest, KeepsItsDigitsFarFromZero) {
  if (shape_.channels / shape_.groups > 32) GTEST_SKIP() << "so wide a group is left to LibTorch, which loses digits";
  const at::Tensor x = x_ + 1000;
  // float32 keeps 6e-5 of 1000.
  EXPECT_LT((Got(x, {}, false) - Expected(x, {}, false)).abs().max().item<double>(), 2e-3);
}

TEST_P(NormKernelTest, ANonFiniteSampleSpoilsNoOther) {
  at::Tensor x = x_.clone();
  x[0][0][0][0] = std::numeric_limits<float>::quiet_NaN();
  const at::Tensor got = Got(x, offset_, true);
  EXPECT_TRUE(std::isnan(got[0][0][0][0].item<float>()));
  EXPECT_TRUE(at::equal(got.slice(0, 1), Got(x_, offset_, true).slice(0, 1)));
}

// Whole ranges of channels, a range that is not full, groups that do not divide a range, one wider than a range, one
// pixel.
INSTANTIATE_TEST_SUITE_P(Shapes, NormKernelTest,
                         ::testing::Values(Shape{3, 64, 14, 16}, Shape{2, 48, 7, 12}, Shape{2, 20, 5, 4},
                                           Shape{2, 80, 3, 2}, Shape{1, 32, 1, 8}, Shape{1, 4, 130, 1}),
                         [](const auto& info) { return "C" + std::to_string(info.param.channels); });

TEST(NormKernel, SwishIsRightAtItsEnds) {
  const at::Tensor x = at::tensor({-200.0f, -90.0f, -20.0f, -1.0f, 0.0f, 1.0f, 20.0f, 90.0f}).view({1, 1, 8, 1});
  // Weight 0 leaves the bias alone; the norm of one value is 0.
  for (const float value : {-200.0f, -90.0f, -20.0f, -1.0f, 0.0f, 1.0f, 20.0f, 90.0f}) {
    const at::Tensor got =
        ChannelsLastNorm(x, {}, at::zeros({1}), at::full({1}, value), {.groups = 1, .eps = 1e-6, .activate = true});
    const double expected = value / (1 + std::exp(-static_cast<double>(value)));
    EXPECT_NEAR(got.flatten()[0].item<double>(), expected, std::abs(expected) * 1e-6 + 1e-35) << value;
  }
}

TEST(NormKernel, RefusesGroupsThatDoNotDivideTheChannels) {
  EXPECT_THROW(ChannelsLastNorm(at::zeros({1, 6, 2, 2}), {}, at::zeros({6}), at::zeros({6}), {.groups = 4}),
               c10::ValueError);
}

}  // namespace
}  // namespace boss
