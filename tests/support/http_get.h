// The least of an HTTP client.
#pragma once

#include <string>

namespace boss::testing {

// The whole response of 127.0.0.1:port to GET `path`, headers included; empty if it cannot be had. `headers`: more of
// the request's, each with its line's end.
std::string HttpGet(int port, const std::string& path, const std::string& headers = "");
// All that 127.0.0.1:port answers to these bytes.
std::string HttpSend(int port, const std::string& bytes);
// What follows the headers of a response; empty if there is none.
std::string HttpBody(const std::string& response);

}  // namespace boss::testing
