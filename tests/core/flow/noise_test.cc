#include "core/flow/noise.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <limits>

namespace boss {
namespace {

TEST(SampleNoiseTest, DoesNotDependOnHowARequestIsSplit) {
  const at::Tensor whole = SampleNoise(7, 0, 10, {3, 5, 5});
  const at::Tensor split = at::cat({SampleNoise(7, 0, 4, {3, 5, 5}), SampleNoise(7, 4, 6, {3, 5, 5})});
  EXPECT_TRUE(at::equal(whole, split));
}

TEST(SampleNoiseTest, ASampleIsDrawnAgainByItsOwnSeed) {
  const at::Tensor whole = SampleNoise(7, 0, 10, {16});
  EXPECT_TRUE(at::equal(SampleNoise(SampleSeed(7, 6), 0, 1, {16})[0], whole[6]));
  EXPECT_EQ(SampleSeed(std::numeric_limits<uint64_t>::max(), 1), 0u);
}

TEST(SampleNoiseTest, SamplesDifferAndAreStandardNormal) {
  const at::Tensor noise = SampleNoise(0, 0, 200, {1000});
  EXPECT_FALSE(at::equal(noise[0], noise[1]));
  EXPECT_NEAR(noise.mean().item<double>(), 0.0, 0.01);
  EXPECT_NEAR(noise.std().item<double>(), 1.0, 0.01);
  // Neighbouring seeds are not correlated.
  const double correlation = (noise.slice(0, 0, 199) * noise.slice(0, 1, 200)).mean().item<double>();
  EXPECT_NEAR(correlation, 0.0, 0.01);
}

}  // namespace
}  // namespace boss
