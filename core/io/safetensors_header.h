// The JSON header of a safetensors file, checked but without its tensors.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace boss {

struct SafetensorsEntry {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // byte offsets behind the header
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;  // in file order
  std::map<std::string, std::string> metadata;
};

// Accepts exactly {"__metadata__": {string: string}, NAME: {"dtype": string, "shape": [unsigned], "data_offsets":
// [unsigned, unsigned]}}: every other key, type, nesting or a key that occurs twice is DATA_LOSS. Offsets and shapes
// are not compared with each other here.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(std::string_view json);

}  // namespace boss
