// JSON text of foreign origin.
#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace boss {

// Arrays and objects inside each other. nlohmann copies, compares and writes them by recursion, so that unbounded ones
// would exhaust the stack.
inline constexpr int kMaxJsonDepth = 64;

// Thread-safe. \error INVALID_ARGUMENT for text that is no JSON, has numbers that no double holds, or is nested deeper
// than `max_depth`.
absl::StatusOr<nlohmann::json> ParseJson(absl::string_view text, int max_depth = kMaxJsonDepth);

}  // namespace boss
