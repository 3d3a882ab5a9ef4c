// Data sets for tests.
#pragma once

#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

namespace boss::testing {

// Unsigned bytes in LeCun's format.
inline void WriteIdx(const std::string& path, const std::vector<uint32_t>& dims, const std::vector<uint8_t>& bytes) {
  std::string text = {0, 0, 8, static_cast<char>(dims.size())};
  for (uint32_t dim : dims) {
    for (int shift = 24; shift >= 0; shift -= 8) text.push_back(static_cast<char>(dim >> shift));
  }
  text.append(bytes.begin(), bytes.end());
  std::ofstream(path, std::ios::binary) << text;
}

}  // namespace boss::testing
