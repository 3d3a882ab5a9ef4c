// What the fuzzers assert.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace boss::testing {

// Ends the program if `condition` is false; libFuzzer then keeps the input.
inline void FuzzCheck(bool condition, std::string_view what) {
  if (condition) return;
  std::fprintf(stderr, "FuzzCheck failed: %.*s\n", static_cast<int>(what.size()), what.data());
  std::abort();
}

// `status` is not OK and its code is one of those that the parser's header names.
template <typename... Codes>
void FuzzCheckError(const absl::Status& status, Codes... codes) {
  FuzzCheck(((status.code() == codes) || ...), "an error that the header does not name: " + status.ToString());
}

}  // namespace boss::testing
