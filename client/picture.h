// Small pictures: PNG in and out, and grids of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "boss/v1/sampling.pb.h"

namespace boss::client {

struct Picture {
  int width = 0;
  int height = 0;
  int channels = 1;             // 1 (grey), 3 (RGB) or 4 (RGB and alpha)
  std::vector<uint8_t> pixels;  // height x width x channels, row-major
};

// Never with alpha: grey stays grey, everything else becomes RGB; alpha is composited on white. \error DATA_LOSS if it
// is no PNG; RESOURCE_EXHAUSTED beyond 2^26 pixels.
absl::StatusOr<Picture> DecodePng(absl::string_view bytes);

// \error INVALID_ARGUMENT if the sizes do not fit.
absl::StatusOr<std::string> EncodePng(const Picture& picture);

// A PNG, UINT8 or FLOAT32 sample of 1 or 3 channels; FLOAT32 is mapped from [-1, 1] and clamped.
// \error INVALID_ARGUMENT for another format or shape, DATA_LOSS if its bytes do not fit its shape.
absl::StatusOr<Picture> SampleToPicture(const boss::v1::Sample& sample);

struct GridOptions {
  int columns = 0;  // 0: as square as possible
  int padding = 2;  // pixels between pictures and around them, white
  int scale = 1;    // each pixel becomes scale x scale
};

// Row by row; RGB if any of them is. \error INVALID_ARGUMENT for no pictures, or pictures of different sizes.
absl::StatusOr<Picture> ComposeGrid(absl::Span<const Picture> pictures, const GridOptions& options);

}  // namespace boss::client
