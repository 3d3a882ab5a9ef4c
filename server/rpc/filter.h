// The part of AIP-160's filter language that lists of jobs and models take: terms KEY = VALUE joined by AND.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace boss::server {

struct FilterTerm {
  std::string key;    // letters, digits, '_', '-', '.'
  std::string value;  // without its quotes
};

// Empty text has no terms. Values are bare words, or in double quotes with \" and \\ as escapes. \error
// INVALID_ARGUMENT naming `filter`.
absl::StatusOr<std::vector<FilterTerm>> ParseFilter(absl::string_view text);

}  // namespace boss::server
