// Which call of a client something belongs to, for logs.
#pragma once

#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace boss::server {

// Empty strings: not known.
struct CallId {
  std::string request_id;  // the client's, or made up by the server
  std::string trace_id;    // of the client's W3C trace context: 32 hexadecimal digits
  std::string span_id;     // of the client's span that the call is a part of: 16 hexadecimal digits
};

// Whether a client's id can go into logs and headers as it is: 1 to 64 letters, digits, '-', '_', '.' and ':'.
bool IsRequestId(absl::string_view text);
// 128 random bits in hexadecimal digits. Thread-safe.
std::string NewRequestId();

struct TraceParent {
  std::string trace_id, span_id;
};

// The value of a "traceparent" header (https://www.w3.org/TR/trace-context/, version 00, and what later versions must
// keep of it); nothing if it is malformed.
std::optional<TraceParent> ParseTraceParent(absl::string_view text);

}  // namespace boss::server
