#include "server/rpc/paging.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "core/base/error_details.h"
#include "server/store/sha256.h"

namespace boss::server {
namespace {

constexpr int kDefaultPageSize = 50;
constexpr int kMaxPageSize = 1000;
constexpr size_t kFingerprint = 16;

std::string Fingerprint(absl::string_view query) {
  return Sha256Hex({query.data(), query.size()}).substr(0, kFingerprint);
}

}  // namespace

absl::StatusOr<int> PageSize(int requested) {
  if (requested < 0 || requested > kMaxPageSize) {
    return FieldError("page_size", absl::StrCat("must be in [0, ", kMaxPageSize, "], got ", requested));
  }
  return requested == 0 ? kDefaultPageSize : requested;
}

std::string MakePageToken(absl::string_view query, absl::string_view last_key) {
  return absl::WebSafeBase64Escape(absl::StrCat(Fingerprint(query), last_key));
}

absl::StatusOr<std::string> ParsePageToken(const std::string& token, absl::string_view query) {
  if (token.empty()) return std::string();
  std::string text;
  if (!absl::WebSafeBase64Unescape(token, &text) || text.size() <= kFingerprint) {
    return FieldError("page_token", "is malformed");
  }
  if (text.substr(0, kFingerprint) != Fingerprint(query)) {
    return FieldError("page_token", "belongs to a request with other fields");
  }
  return text.substr(kFingerprint);
}

}  // namespace boss::server
