// SHA-256 (FIPS 180-4).
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace boss::server {

// Lower-case hexadecimal, 64 characters.
std::string Sha256Hex(absl::string_view bytes);

}  // namespace boss::server
