#include "server/engine/encode_sample.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstring>

#include "core/io/png.h"

namespace boss::server {
namespace {

// Red rises to the right, green downwards, blue is full: [3, 2, 4] in [-1, 1].
at::Tensor Picture() {
  const at::Tensor red = at::linspace(-1, 1, 4).expand({2, 4});
  const at::Tensor green = at::linspace(-1, 1, 2).unsqueeze(1).expand({2, 4});
  return at::stack({red, green, at::ones({2, 4})});
}

TEST(EncodeSampleTest, PngHoldsThePixels) {
  const auto encoded = EncodeSample(Picture(), SampleFormat::kPng);
  ASSERT_TRUE(encoded.ok()) << encoded.status();
  EXPECT_EQ(encoded->shape, (std::vector<int64_t>{3, 2, 4}));
  const auto image = DecodePng(encoded->data);
  ASSERT_TRUE(image.ok()) << image.status();
  EXPECT_EQ(image->width, 4);
  EXPECT_EQ(image->height, 2);
  EXPECT_EQ(image->pixels, (std::vector<uint8_t>{0, 0,   255, 85, 0,   255, 170, 0,   255, 255, 0,   255,  //
                                                 0, 255, 255, 85, 255, 255, 170, 255, 255, 255, 255, 255}));
}

TEST(EncodeSampleTest, Uint8IsHeightWidthChannelsAndClamped) {
  const auto encoded = EncodeSample(at::tensor({-3.0f, 0.0f, 1.0f, 3.0f}).reshape({1, 2, 2}), SampleFormat::kUint8);
  ASSERT_TRUE(encoded.ok()) << encoded.status();
  EXPECT_EQ(encoded->shape, (std::vector<int64_t>{2, 2, 1}));
  EXPECT_EQ(encoded->data, std::string("\x00\x80\xff\xff", 4));
}

TEST(EncodeSampleTest, Float32KeepsEveryValue) {
  const at::Tensor sample = at::tensor({-3.5f, 1e-30f, 7.25f});
  const auto encoded = EncodeSample(sample, SampleFormat::kFloat32);
  ASSERT_TRUE(encoded.ok()) << encoded.status();
  EXPECT_EQ(encoded->shape, std::vector<int64_t>{3});
  float values[3];
  ASSERT_EQ(encoded->data.size(), sizeof values);
  std::memcpy(values, encoded->data.data(), sizeof values);
  EXPECT_EQ(values[0], -3.5f);
  EXPECT_EQ(values[1], 1e-30f);
  EXPECT_EQ(values[2], 7.25f);
}

TEST(EncodeSampleTest, AVectorIsNoPicture) {
  EXPECT_TRUE(absl::IsInvalidArgument(EncodeSample(at::zeros({2}), SampleFormat::kPng).status()));
}

}  // namespace
}  // namespace boss::server
