#include "server/engine/encode_sample.h"

#include <ATen/ATen.h>

#include <bit>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"
#include "core/io/image_dataset.h"
#include "core/io/png.h"

namespace boss::server {
namespace {

static_assert(std::endian::native == std::endian::little, "samples are sent as little-endian floats");

std::string Bytes(const at::Tensor& tensor) {
  return std::string(static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes());
}

}  // namespace

absl::StatusOr<EncodedSample> EncodeSample(const at::Tensor& sample, SampleFormat format) {
  return GuardTorch("encoding a sample", [&]() -> absl::StatusOr<EncodedSample> {
    EncodedSample encoded;
    encoded.format = format;
    if (format == SampleFormat::kFloat32) {
      encoded.shape = sample.sizes().vec();
      encoded.data = Bytes(sample.contiguous());
      return encoded;
    }
    if (sample.dim() != 3) {
      return absl::InvalidArgumentError(absl::StrCat("an image has 3 dimensions, the sample has ", sample.dim()));
    }
    const at::Tensor pixels = ToUint8(sample).permute({1, 2, 0}).contiguous();  // [H, W, C]
    if (format == SampleFormat::kUint8) {
      encoded.shape = pixels.sizes().vec();
      encoded.data = Bytes(pixels);
      return encoded;
    }
    const uint8_t* begin = pixels.const_data_ptr<uint8_t>();
    const Image image = {.width = static_cast<int>(pixels.size(1)),
                         .height = static_cast<int>(pixels.size(0)),
                         .channels = static_cast<int>(pixels.size(2)),
                         .pixels = std::vector<uint8_t>(begin, begin + pixels.numel())};
    encoded.shape = sample.sizes().vec();
    BOSS_ASSIGN_OR_RETURN(encoded.data, EncodePng(image));
    return encoded;
  });
}

}  // namespace boss::server
