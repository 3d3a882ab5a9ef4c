#include "core/io/png.h"

#include <png.h>

#include <limits>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace boss {
namespace {

constexpr uint64_t kMaxPixels = uint64_t{1} << 28;

png_image NewPngImage() {
  png_image image = {};
  image.version = PNG_IMAGE_VERSION;
  return image;
}

}  // namespace

absl::StatusOr<std::string> EncodePng(const Image& image) {
  if (image.width < 1 || image.height < 1 || (image.channels != 1 && image.channels != 3)) {
    return absl::InvalidArgumentError(absl::StrCat("encode PNG: got width ", image.width, ", height ", image.height,
                                                   ", ", image.channels,
                                                   " channels, expected positive sizes and 1 or 3 channels"));
  }
  const uint64_t pixels = static_cast<uint64_t>(image.width) * static_cast<uint64_t>(image.height);
  if (pixels > kMaxPixels) {
    return absl::InvalidArgumentError(
        absl::StrCat("encode PNG: got ", pixels, " pixels, expected at most ", kMaxPixels));
  }
  if (image.pixels.size() != pixels * image.channels) {
    return absl::InvalidArgumentError(
        absl::StrCat("encode PNG: got ", image.pixels.size(), " bytes of pixels, expected ", pixels * image.channels));
  }
  png_image png = NewPngImage();
  png.width = static_cast<png_uint_32>(image.width);
  png.height = static_cast<png_uint_32>(image.height);
  png.format = image.channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
  auto release = absl::MakeCleanup([&png] { png_image_free(&png); });
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(png);
  std::string bytes(size, '\0');
  if (png_image_write_to_memory(&png, bytes.data(), &size, /*convert_to_8bit=*/0, image.pixels.data(), /*row_stride=*/0,
                                /*colormap=*/nullptr) == 0) {
    return absl::InternalError(absl::StrCat("encode PNG: ", png.message));
  }
  bytes.resize(size);
  return bytes;
}

absl::StatusOr<Image> DecodePng(std::string_view bytes) {
  png_image png = NewPngImage();
  auto release = absl::MakeCleanup([&png] { png_image_free(&png); });
  if (png_image_begin_read_from_memory(&png, bytes.data(), bytes.size()) == 0) {
    return absl::DataLossError(absl::StrCat("decode PNG of ", bytes.size(), " bytes: ", png.message));
  }
  const uint64_t pixels = static_cast<uint64_t>(png.width) * png.height;
  constexpr uint32_t kMaxSide = std::numeric_limits<int32_t>::max();
  if (pixels > kMaxPixels || png.width > kMaxSide || png.height > kMaxSide) {
    return absl::ResourceExhaustedError(
        absl::StrCat("decode PNG: got ", png.width, " x ", png.height, " pixels, expected at most ", kMaxPixels));
  }
  // So that a small file does not ask for much memory: a pixel has at least a bit, and deflate makes a byte of at most
  // 1,032.
  if (pixels / (8 * 1032) > bytes.size()) {
    return absl::DataLossError(absl::StrCat("decode PNG of ", bytes.size(), " bytes: they cannot hold the ", png.width,
                                            " x ", png.height, " pixels that it tells (truncated)"));
  }
  Image image;
  image.width = static_cast<int>(png.width);
  image.height = static_cast<int>(png.height);
  image.channels = (png.format & PNG_FORMAT_FLAG_COLOR) != 0 ? 3 : 1;
  png.format = image.channels == 3 ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY;
  image.pixels.resize(pixels * image.channels);
  const png_color white = {255, 255, 255};
  if (png_image_finish_read(&png, &white, image.pixels.data(), /*row_stride=*/0, /*colormap=*/nullptr) == 0) {
    return absl::DataLossError(absl::StrCat("decode PNG of ", bytes.size(), " bytes: ", png.message));
  }
  return image;
}

}  // namespace boss
