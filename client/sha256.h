// SHA-256 (FIPS 180-4), for checking files that were sent or received.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace boss::client {

// Not thread-safe.
class Sha256 {
 public:
  void Update(absl::string_view bytes);
  // Lower-case hexadecimal. Nothing may follow it.
  std::string HexDigest();

 private:
  void Block(const uint8_t* block);

  std::array<uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<uint8_t, 64> pending_;
  uint64_t total_ = 0;  // bytes
};

}  // namespace boss::client
