// Any bytes as the head of a request on the metrics port.
#include <cstdint>
#include <string_view>

#include "server/metrics/http_server.h"
#include "tests/fuzz/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using boss::testing::FuzzCheck;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto request = boss::server::ParseHttpRequest(text);
  if (!request.ok()) {
    boss::testing::FuzzCheckError(request.status(), absl::StatusCode::kInvalidArgument,
                                  absl::StatusCode::kUnimplemented);
    return 0;
  }
  FuzzCheck(request->method == "GET" || request->method == "HEAD", "another method");
  FuzzCheck(request->path.starts_with("/"), "a path that does not begin at the root");
  FuzzCheck(request->path.find_first_of("? \r") == std::string::npos, "a path with more than a path");
  for (const auto& [name, value] : request->headers) {
    FuzzCheck(!name.empty() && name.find_first_of(":ABCXYZ \r\n") == std::string::npos, "a header's name");
    FuzzCheck(value.size() <= size, "a header longer than the request");
  }
  return 0;
}
