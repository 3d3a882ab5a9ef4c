// Any bytes as a PNG. What decodes is as large as it says, and survives being encoded and decoded again.
#include <zlib.h>

#include <cstdint>
#include <cstring>
#include <string_view>

#include "core/io/png.h"
#include "tests/fuzz/check.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace boss {
namespace {

constexpr size_t kSignatureBytes = 8;

uint32_t BigEndian32(const uint8_t* bytes) {
  return uint32_t{bytes[0]} << 24 | uint32_t{bytes[1]} << 16 | uint32_t{bytes[2]} << 8 | uint32_t{bytes[3]};
}

// Chunks are: length, type, data, and the checksum of type and data.
void RepairChecksums(uint8_t* data, size_t size) {
  for (size_t at = kSignatureBytes; at + 12 <= size;) {
    const size_t length = BigEndian32(data + at);
    if (length > size - at - 12) return;
    const uLong checksum = crc32(0, data + at + 4, static_cast<uInt>(4 + length));
    for (int i = 0; i < 4; ++i) data[at + 8 + length + i] = static_cast<uint8_t>(checksum >> (24 - 8 * i));
    at += 12 + length;
  }
}

}  // namespace
}  // namespace boss

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using boss::testing::FuzzCheck;
  const auto image = boss::DecodePng({reinterpret_cast<const char*>(data), size});
  if (!image.ok()) {
    boss::testing::FuzzCheckError(image.status(), absl::StatusCode::kDataLoss, absl::StatusCode::kResourceExhausted);
    return 0;
  }
  FuzzCheck(image->width > 0 && image->height > 0 && (image->channels == 1 || image->channels == 3), "a wrong size");
  FuzzCheck(image->pixels.size() == size_t{1} * image->width * image->height * image->channels, "pixels are missing");
  const auto bytes = boss::EncodePng(*image);
  FuzzCheck(bytes.ok(), "cannot be encoded: " + bytes.status().ToString());
  const auto again = boss::DecodePng(*bytes);
  FuzzCheck(again.ok(), "what was encoded does not decode: " + again.status().ToString());
  FuzzCheck(again->width == image->width && again->height == image->height && again->channels == image->channels,
            "the size changed");
  FuzzCheck(again->pixels == image->pixels, "pixels changed");
  return 0;
}

// libpng looks at checksums first, so every other input gets the right ones.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned int seed) {
  size = LLVMFuzzerMutate(data, size, max_size);
  if (seed % 2 == 0) boss::RepairChecksums(data, size);
  return size;
}
