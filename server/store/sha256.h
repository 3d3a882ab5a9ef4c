// SHA-256 (FIPS 180-4).
#pragma once

#include <string>
#include <string_view>

namespace boss::server {

// Lower-case hexadecimal, 64 characters.
std::string Sha256Hex(std::string_view bytes);

}  // namespace boss::server
