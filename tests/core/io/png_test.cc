#include "core/io/png.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <png.h>
#include <zlib.h>

#include <random>

namespace boss {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Image RandomImage(int width, int height, int channels) {
  Image image{.width = width, .height = height, .channels = channels};
  std::mt19937 random(7);
  image.pixels.resize(static_cast<size_t>(width) * height * channels);
  for (uint8_t& pixel : image.pixels) pixel = static_cast<uint8_t>(random());
  return image;
}

// What libpng writes for a format that EncodePng() does not offer.
std::string WritePng(png_uint_32 format, int width, int height, const void* pixels, const void* colormap,
                     int colormap_entries) {
  png_image png = {};
  png.version = PNG_IMAGE_VERSION;
  png.width = width;
  png.height = height;
  png.format = format;
  png.colormap_entries = colormap_entries;
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(png) + 1024;
  std::string bytes(size, '\0');
  EXPECT_NE(png_image_write_to_memory(&png, bytes.data(), &size, 0, pixels, 0, colormap), 0) << png.message;
  bytes.resize(size);
  return bytes;
}

TEST(PngTest, RoundTripKeepsEveryPixel) {
  for (const int channels : {1, 3}) {
    for (const auto& [width, height] : {std::pair(1, 1), std::pair(28, 28), std::pair(17, 5)}) {
      const Image image = RandomImage(width, height, channels);
      const absl::StatusOr<std::string> bytes = EncodePng(image);
      ASSERT_TRUE(bytes.ok()) << bytes.status();
      const absl::StatusOr<Image> decoded = DecodePng(*bytes);
      ASSERT_TRUE(decoded.ok()) << decoded.status();
      EXPECT_EQ(decoded->width, width);
      EXPECT_EQ(decoded->height, height);
      EXPECT_EQ(decoded->channels, channels);
      EXPECT_EQ(decoded->pixels, image.pixels);
    }
  }
}

TEST(PngTest, EncodeRejectsSizesThatDoNotFit) {
  Image image = RandomImage(4, 4, 3);
  image.pixels.pop_back();
  EXPECT_EQ(EncodePng(image).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(EncodePng(image).status().ToString(), HasSubstr("got 47 bytes of pixels, expected 48"));
  EXPECT_EQ(EncodePng(RandomImage(4, 4, 2)).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(EncodePng(Image{.width = 0, .height = 4, .channels = 1}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(EncodePng(Image{.width = -4, .height = -4, .channels = 1}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(EncodePng(Image{.width = 1 << 30, .height = 1 << 30, .channels = 1}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(PngTest, AlphaIsCompositedOnWhite) {
  const uint8_t pixels[] = {255, 0, 0, 255, 255, 0, 0, 0};
  const absl::StatusOr<Image> image = DecodePng(WritePng(PNG_FORMAT_RGBA, 2, 1, pixels, nullptr, 0));
  ASSERT_TRUE(image.ok()) << image.status();
  EXPECT_EQ(image->channels, 3);
  EXPECT_THAT(image->pixels, ElementsAre(255, 0, 0, 255, 255, 255));

  const uint8_t grey[] = {40, 255, 40, 0};
  const absl::StatusOr<Image> grey_image = DecodePng(WritePng(PNG_FORMAT_GA, 2, 1, grey, nullptr, 0));
  ASSERT_TRUE(grey_image.ok()) << grey_image.status();
  EXPECT_EQ(grey_image->channels, 1);
  EXPECT_THAT(grey_image->pixels, ElementsAre(40, 255));
}

TEST(PngTest, PalettesBecomeRgb) {
  const uint8_t colormap[] = {10, 20, 30, 200, 100, 50};
  const uint8_t indices[] = {1, 0};
  const absl::StatusOr<Image> image = DecodePng(WritePng(PNG_FORMAT_RGB_COLORMAP, 2, 1, indices, colormap, 2));
  ASSERT_TRUE(image.ok()) << image.status();
  EXPECT_THAT(image->pixels, ElementsAre(200, 100, 50, 10, 20, 30));
}

TEST(PngTest, TruncatedFilesAreDataLoss) {
  const std::string bytes = EncodePng(RandomImage(16, 16, 3)).value();
  constexpr size_t kEndChunk = 12;  // it carries nothing, and decoders do not miss it
  for (size_t size = 0; size < bytes.size() - kEndChunk; ++size) {
    ASSERT_EQ(DecodePng(std::string_view(bytes).substr(0, size)).status().code(), absl::StatusCode::kDataLoss) << size;
  }
}

TEST(PngTest, DamagedPixelsAreDataLoss) {
  std::string bytes = EncodePng(RandomImage(16, 16, 3)).value();
  bytes[bytes.find("IDAT") + 30] ^= 0x55;
  EXPECT_EQ(DecodePng(bytes).status().code(), absl::StatusCode::kDataLoss);
}

// The PNG of one pixel with a header that tells other sides.
std::string WithSides(const std::string& sides) {
  std::string bytes = EncodePng(RandomImage(1, 1, 1)).value();
  const size_t header = bytes.find("IHDR");
  bytes.replace(header + 4, 8, sides);
  const uint32_t crc = crc32(0, reinterpret_cast<const Bytef*>(bytes.data() + header), 17);
  for (int i = 0; i < 4; ++i) bytes[header + 17 + i] = static_cast<char>(crc >> (24 - 8 * i));
  return bytes;
}

TEST(PngTest, HugeImagesAreRefusedBeforeTheyAreAllocated) {
  const std::string sides("\x00\x01\x86\xa0\x00\x01\x86\xa0", 8);  // 100,000 x 100,000
  EXPECT_EQ(DecodePng(WithSides(sides)).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(PngTest, NoMorePixelsAreAllocatedThanTheFileCanHold) {
  const std::string sides("\x00\x00\x20\x00\x00\x00\x20\x00", 8);  // 8,192 x 8,192
  const absl::Status status = DecodePng(WithSides(sides)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(status.message().find("cannot hold"), absl::string_view::npos) << status;

  // Nothing packs better than one colour.
  Image white{4096, 4096, 1, std::vector<uint8_t>(4096 * 4096, 255)};
  const absl::StatusOr<Image> decoded = DecodePng(EncodePng(white).value());
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->pixels, white.pixels);
}

}  // namespace
}  // namespace boss
