// Pages of lists (AIP-158) whose elements have a unique, ordered key.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace boss::server {

// 0 is 50. \error INVALID_ARGUMENT naming `page_size` outside [0, 1000].
absl::StatusOr<int> PageSize(int requested);

// The token of the page that begins after `last_key`. `query`: the request's other fields, which the next request must
// repeat.
std::string MakePageToken(absl::string_view query, absl::string_view last_key);

// The key to begin after; empty for an empty token. \error INVALID_ARGUMENT naming `page_token` if the token is
// malformed or of another query.
absl::StatusOr<std::string> ParsePageToken(const std::string& token, absl::string_view query);

}  // namespace boss::server
