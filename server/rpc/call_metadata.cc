#include "server/rpc/call_metadata.h"

#include <iterator>
#include <string>
#include <utility>

namespace boss::server {

std::optional<absl::string_view> OnlyValue(const ReceivedMetadata& metadata, const char* key) {
  const auto [begin, end] = metadata.equal_range(key);
  if (begin == end || std::next(begin) != end) return std::nullopt;
  return absl::string_view(begin->second.data(), begin->second.size());
}

CallId CallIdOf(const ReceivedMetadata& metadata) {
  CallId id;
  const std::optional<absl::string_view> request_id = OnlyValue(metadata, kRequestIdKey);
  if (request_id && IsRequestId(*request_id)) id.request_id = std::string(*request_id);
  const std::optional<absl::string_view> trace = OnlyValue(metadata, kTraceParentKey);
  if (std::optional<TraceParent> parent = ParseTraceParent(trace.value_or(absl::string_view()))) {
    id.trace_id = std::move(parent->trace_id);
    id.span_id = std::move(parent->span_id);
  }
  return id;
}

CallId CallIdOf(const grpc::ServerContextBase& context) { return CallIdOf(context.client_metadata()); }

}  // namespace boss::server
