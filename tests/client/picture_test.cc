#include "client/picture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

namespace boss::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Picture Grey(int width, int height, std::vector<uint8_t> pixels) { return {width, height, 1, std::move(pixels)}; }

TEST(PictureTest, PngKeepsGreyAndColour) {
  const Picture grey = Grey(3, 2, {0, 50, 100, 150, 200, 255});
  const auto decoded = DecodePng(*EncodePng(grey));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->width, 3);
  EXPECT_EQ(decoded->channels, 1);
  EXPECT_EQ(decoded->pixels, grey.pixels);
  const Picture color{1, 2, 3, {255, 0, 0, 1, 2, 3}};
  EXPECT_EQ(DecodePng(*EncodePng(color))->pixels, color.pixels);
}

TEST(PictureTest, TransparentPixelsBecomeWhite) {
  const auto decoded = DecodePng(*EncodePng(Picture{2, 1, 4, {9, 9, 9, 0, 10, 20, 30, 255}}));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_THAT(decoded->pixels, ElementsAre(255, 255, 255, 10, 20, 30));
}

TEST(PictureTest, RefusesWhatIsNoPicture) {
  EXPECT_TRUE(absl::IsDataLoss(DecodePng("not a PNG").status()));
  const std::string whole = *EncodePng(Grey(3, 2, std::vector<uint8_t>(6)));
  EXPECT_TRUE(absl::IsDataLoss(DecodePng(whole.substr(0, whole.size() / 2)).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(EncodePng(Grey(3, 2, {1, 2})).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(EncodePng(Picture{1, 1, 2, {1, 2}}).status()));
}

TEST(PictureTest, FloatSamplesAreMappedAndClamped) {
  boss::v1::Sample sample;
  sample.set_format(boss::v1::OUTPUT_FORMAT_FLOAT32);
  for (const int64_t side : {3, 1, 2}) sample.add_shape(side);
  const float values[] = {-1, 1, 0, -2, 3, 0.5f};  // two pixels in planes of red, green, blue
  sample.set_data(std::string(reinterpret_cast<const char*>(values), sizeof(values)));
  const auto picture = SampleToPicture(sample);
  ASSERT_TRUE(picture.ok()) << picture.status();
  EXPECT_EQ(picture->width, 2);
  EXPECT_THAT(picture->pixels, ElementsAre(0, 128, 255, 255, 0, 191));
  sample.mutable_data()->pop_back();
  EXPECT_TRUE(absl::IsDataLoss(SampleToPicture(sample).status()));
}

TEST(PictureTest, BytesAreTakenAsTheyAre) {
  boss::v1::Sample sample;
  sample.set_format(boss::v1::OUTPUT_FORMAT_UINT8);
  for (const int64_t side : {2, 1, 1}) sample.add_shape(side);  // height, width, channels
  sample.set_data("\x07\x09");
  const auto picture = SampleToPicture(sample);
  ASSERT_TRUE(picture.ok()) << picture.status();
  EXPECT_EQ(picture->height, 2);
  EXPECT_THAT(picture->pixels, ElementsAre(7, 9));
  sample.set_shape(2, 4);
  EXPECT_TRUE(absl::IsInvalidArgument(SampleToPicture(sample).status()));
}

TEST(GridTest, PlacesPicturesRowByRow) {
  const std::vector<Picture> pictures = {Grey(1, 1, {1}), Grey(1, 1, {2}), Grey(1, 1, {3})};
  const auto grid = ComposeGrid(pictures, {.columns = 2, .padding = 1, .scale = 1});
  ASSERT_TRUE(grid.ok()) << grid.status();
  EXPECT_EQ(grid->width, 5);
  EXPECT_EQ(grid->height, 5);
  EXPECT_THAT(grid->pixels, ElementsAre(255, 255, 255, 255, 255,  //
                                        255, 1, 255, 2, 255,      //
                                        255, 255, 255, 255, 255,  //
                                        255, 3, 255, 255, 255,    //
                                        255, 255, 255, 255, 255));
}

TEST(GridTest, EnlargesAndTakesColourFromAnyPicture) {
  const std::vector<Picture> pictures = {Grey(1, 1, {7}), Picture{1, 1, 3, {1, 2, 3}}};
  const auto grid = ComposeGrid(pictures, {.columns = 2, .padding = 0, .scale = 2});
  ASSERT_TRUE(grid.ok()) << grid.status();
  EXPECT_EQ(grid->channels, 3);
  EXPECT_THAT(grid->pixels, ElementsAre(7, 7, 7, 7, 7, 7, 1, 2, 3, 1, 2, 3, 7, 7, 7, 7, 7, 7, 1, 2, 3, 1, 2, 3));
}

TEST(GridTest, IsAsSquareAsPossible) {
  const std::vector<Picture> pictures(64, Grey(28, 28, std::vector<uint8_t>(28 * 28)));
  const auto grid = ComposeGrid(pictures, {});
  EXPECT_EQ(grid->width, 8 * 30 + 2);
  EXPECT_EQ(grid->height, 8 * 30 + 2);
}

TEST(GridTest, RefusesPicturesOfDifferentSizes) {
  const std::vector<Picture> pictures = {Grey(1, 1, {1}), Grey(2, 1, {1, 2})};
  const absl::Status status = ComposeGrid(pictures, {}).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("got 2 x 1, expected 1 x 1"));
  EXPECT_TRUE(absl::IsInvalidArgument(ComposeGrid({}, {}).status()));
}

}  // namespace
}  // namespace boss::client
