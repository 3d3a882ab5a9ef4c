// The least of an HTTP client.
#pragma once

#include <string>

namespace boss::testing {

// The whole response of 127.0.0.1:port to GET `path`, headers included; empty if it cannot be had.
std::string HttpGet(int port, const std::string& path);

}  // namespace boss::testing
