#include "client/picture.h"

#include <png.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace boss::client {
namespace {

constexpr int64_t kMaxPixels = int64_t{1} << 26;

absl::Status PngError(const char* operation, const png_image& image) {
  return absl::DataLossError(absl::StrCat("PNG: cannot ", operation, ": ", image.message));
}

}  // namespace

absl::StatusOr<Picture> DecodePng(absl::string_view bytes) {
  png_image image;
  std::memset(&image, 0, sizeof(image));
  image.version = PNG_IMAGE_VERSION;
  if (!png_image_begin_read_from_memory(&image, bytes.data(), bytes.size())) return PngError("read the header", image);
  const absl::Cleanup free_image = [&] { png_image_free(&image); };
  if (static_cast<int64_t>(image.width) * image.height > kMaxPixels) {
    return absl::ResourceExhaustedError(
        absl::StrCat("PNG: got ", image.width, " x ", image.height, " pixels, expected at most ", kMaxPixels));
  }
  Picture picture;
  picture.width = static_cast<int>(image.width);
  picture.height = static_cast<int>(image.height);
  picture.channels = (image.format & PNG_FORMAT_FLAG_COLOR) != 0 ? 3 : 1;
  image.format = picture.channels == 3 ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY;
  picture.pixels.resize(PNG_IMAGE_SIZE(image));
  const png_color white = {255, 255, 255};
  if (!png_image_finish_read(&image, &white, picture.pixels.data(), 0, nullptr)) {
    return PngError("decode", image);
  }
  return picture;
}

absl::StatusOr<std::string> EncodePng(const Picture& picture) {
  const int64_t expected = int64_t{picture.width} * picture.height * picture.channels;
  if (picture.width < 1 || picture.height < 1 ||
      (picture.channels != 1 && picture.channels != 3 && picture.channels != 4) ||
      static_cast<int64_t>(picture.pixels.size()) != expected) {
    return absl::InvalidArgumentError(absl::StrCat("PNG: got ", picture.pixels.size(), " bytes for ", picture.width,
                                                   " x ", picture.height, " x ", picture.channels, ", expected ",
                                                   expected, " and 1, 3 or 4 channels"));
  }
  png_image image;
  std::memset(&image, 0, sizeof(image));
  image.version = PNG_IMAGE_VERSION;
  image.width = static_cast<png_uint_32>(picture.width);
  image.height = static_cast<png_uint_32>(picture.height);
  image.format = picture.channels == 1 ? PNG_FORMAT_GRAY : picture.channels == 3 ? PNG_FORMAT_RGB : PNG_FORMAT_RGBA;
  std::string bytes(PNG_IMAGE_PNG_SIZE_MAX(image), '\0');
  png_alloc_size_t size = bytes.size();
  if (!png_image_write_to_memory(&image, bytes.data(), &size, 0, picture.pixels.data(), 0, nullptr)) {
    return PngError("encode", image);
  }
  bytes.resize(size);
  return bytes;
}

absl::StatusOr<Picture> SampleToPicture(const boss::v1::Sample& sample) {
  if (sample.format() == boss::v1::OUTPUT_FORMAT_PNG) return DecodePng(sample.data());
  const bool is_float = sample.format() == boss::v1::OUTPUT_FORMAT_FLOAT32;
  const auto& shape = sample.shape();
  Picture picture;
  if (shape.size() == 3) picture.channels = static_cast<int>(is_float ? shape[0] : shape[2]);
  if ((!is_float && sample.format() != boss::v1::OUTPUT_FORMAT_UINT8) || shape.size() != 3 ||
      (picture.channels != 1 && picture.channels != 3)) {
    return absl::InvalidArgumentError(absl::StrCat("sample ", sample.index(),
                                                   " is no picture: ", boss::v1::OutputFormat_Name(sample.format()),
                                                   " of shape [", absl::StrJoin(shape, ", "), "]"));
  }
  picture.height = static_cast<int>(is_float ? shape[1] : shape[0]);
  picture.width = static_cast<int>(is_float ? shape[2] : shape[1]);
  const int64_t plane = int64_t{picture.height} * picture.width;
  const int64_t expected = plane * picture.channels * static_cast<int64_t>(is_float ? sizeof(float) : 1);
  if (static_cast<int64_t>(sample.data().size()) != expected) {
    return absl::DataLossError(
        absl::StrCat("sample ", sample.index(), ": got ", sample.data().size(), " bytes, expected ", expected));
  }
  if (!is_float) {
    picture.pixels.assign(sample.data().begin(), sample.data().end());
    return picture;
  }
  std::vector<float> values(plane * picture.channels);
  std::memcpy(values.data(), sample.data().data(), sample.data().size());
  picture.pixels.resize(values.size());
  for (int64_t pixel = 0; pixel < plane; ++pixel) {
    for (int channel = 0; channel < picture.channels; ++channel) {
      const float value = std::clamp((values[channel * plane + pixel] + 1.0f) * 127.5f, 0.0f, 255.0f);
      picture.pixels[pixel * picture.channels + channel] = static_cast<uint8_t>(std::lround(value));
    }
  }
  return picture;
}

absl::StatusOr<Picture> ComposeGrid(absl::Span<const Picture> pictures, const GridOptions& options) {
  if (pictures.empty()) return absl::InvalidArgumentError("a grid needs at least one picture");
  const int width = pictures[0].width, height = pictures[0].height;
  Picture grid;
  for (const Picture& picture : pictures) {
    if (picture.width != width || picture.height != height) {
      return absl::InvalidArgumentError(absl::StrCat("pictures of a grid: got ", picture.width, " x ", picture.height,
                                                     ", expected ", width, " x ", height, " as the first"));
    }
    grid.channels = std::max(grid.channels, picture.channels);
  }
  const int count = static_cast<int>(pictures.size());
  const int columns =
      options.columns > 0 ? std::min(options.columns, count) : static_cast<int>(std::ceil(std::sqrt(count)));
  const int rows = (count + columns - 1) / columns;
  const int scale = options.scale, padding = options.padding;
  grid.width = columns * (width * scale + padding) + padding;
  grid.height = rows * (height * scale + padding) + padding;
  grid.pixels.assign(size_t{1} * grid.width * grid.height * grid.channels, 255);
  for (int i = 0; i < count; ++i) {
    const Picture& picture = pictures[i];
    const int left = padding + (i % columns) * (width * scale + padding);
    const int top = padding + (i / columns) * (height * scale + padding);
    for (int y = 0; y < height * scale; ++y) {
      for (int x = 0; x < width * scale; ++x) {
        const uint8_t* from = &picture.pixels[(size_t{1} * (y / scale) * width + x / scale) * picture.channels];
        uint8_t* to = &grid.pixels[(size_t{1} * (top + y) * grid.width + left + x) * grid.channels];
        for (int c = 0; c < grid.channels; ++c) to[c] = from[picture.channels == 3 ? c : 0];
      }
    }
  }
  return grid;
}

}  // namespace boss::client
