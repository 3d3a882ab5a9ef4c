#include "server/log/call_id.h"

#include <algorithm>
#include <cstddef>

#include "absl/random/random.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace boss::server {
namespace {

constexpr size_t kMaxRequestIdLength = 64;

// "VV-TTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTT-SSSSSSSSSSSSSSSS-FF"
constexpr size_t kVersionLength = 2, kTraceIdLength = 32, kSpanIdLength = 16, kFlagsLength = 2;
constexpr size_t kTraceIdStart = kVersionLength + 1;
constexpr size_t kSpanIdStart = kTraceIdStart + kTraceIdLength + 1;
constexpr size_t kFlagsStart = kSpanIdStart + kSpanIdLength + 1;
constexpr size_t kLength = kFlagsStart + kFlagsLength;

bool IsLowerHex(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return absl::ascii_isdigit(c) || (c >= 'a' && c <= 'f'); });
}

bool IsZero(absl::string_view text) { return text.find_first_not_of('0') == absl::string_view::npos; }

}  // namespace

bool IsRequestId(absl::string_view text) {
  return !text.empty() && text.size() <= kMaxRequestIdLength && std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.' || c == ':';
  });
}

std::string NewRequestId() {
  absl::BitGen random;
  return absl::StrCat(absl::Hex(absl::Uniform<uint64_t>(random), absl::kZeroPad16),
                      absl::Hex(absl::Uniform<uint64_t>(random), absl::kZeroPad16));
}

std::optional<TraceParent> ParseTraceParent(absl::string_view text) {
  if (text.size() < kLength) return std::nullopt;
  const absl::string_view version = text.substr(0, kVersionLength);
  const absl::string_view trace_id = text.substr(kTraceIdStart, kTraceIdLength);
  const absl::string_view span_id = text.substr(kSpanIdStart, kSpanIdLength);
  const absl::string_view flags = text.substr(kFlagsStart, kFlagsLength);
  if (text[kTraceIdStart - 1] != '-' || text[kSpanIdStart - 1] != '-' || text[kFlagsStart - 1] != '-') {
    return std::nullopt;
  }
  for (const absl::string_view part : {version, trace_id, span_id, flags}) {
    if (!IsLowerHex(part)) return std::nullopt;
  }
  if (version == "ff" || IsZero(trace_id) || IsZero(span_id)) return std::nullopt;
  // A later version may say more behind another dash.
  if (text.size() > kLength && (version == "00" || text[kLength] != '-')) return std::nullopt;
  return TraceParent{std::string(trace_id), std::string(span_id)};
}

}  // namespace boss::server
