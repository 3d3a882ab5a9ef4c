// PNG images through libpng.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace boss {

struct Image {
  int width = 0, height = 0, channels = 0;  // 1 (grey) or 3 (RGB)
  std::vector<uint8_t> pixels;              // height x width x channels, row-major
};

// Thread-safe. \error INVALID_ARGUMENT if the sizes do not fit.
absl::StatusOr<std::string> EncodePng(const Image& image);
// Any PNG is converted to grey or RGB with 8 bits; alpha is composited on white. \error DATA_LOSS for a corrupt file, RESOURCE_EXHAUSTED beyond 2^28 pixels.
absl::StatusOr<Image> DecodePng(std::string_view bytes);

}  // namespace boss
