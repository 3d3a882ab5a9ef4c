#include "server/rpc/access_rules.h"

#include <openssl/sha.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "core/base/parse_json.h"
#include "core/base/status_macros.h"

namespace boss::server {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxName = 63;
constexpr double kMaxRate = 1e9;
constexpr int64_t kMaxCount = 1'000'000'000;

absl::Status Wrong(absl::string_view where, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", what));
}

absl::Status CheckKeys(const Json& object, absl::string_view where, std::initializer_list<absl::string_view> known) {
  if (!object.is_object()) return Wrong(where, absl::StrCat("expected an object, got ", object.type_name()));
  for (const auto& [key, value] : object.items()) {
    if (std::find(known.begin(), known.end(), absl::string_view(key)) == known.end()) {
      return Wrong(where, absl::StrCat("unknown key \"", absl::Utf8SafeCHexEscape(key), "\""));
    }
  }
  return absl::OkStatus();
}

// The text under `key`; empty if there is none.
absl::StatusOr<std::string> Text(const Json& object, absl::string_view where, const char* key) {
  const auto found = object.find(key);
  if (found == object.end()) return std::string();
  if (!found->is_string() || found->get_ref<const std::string&>().empty()) {
    return Wrong(where, absl::StrCat(key, ": expected a text that is not empty"));
  }
  return found->get<std::string>();
}

// A number in (0, max]; 0 if there is none.
absl::StatusOr<double> Number(const Json& object, absl::string_view where, const char* key, double max) {
  const auto found = object.find(key);
  if (found == object.end()) return 0.0;
  const double value = found->is_number() ? found->get<double>() : 0;
  if (!(value > 0 && value <= max)) return Wrong(where, absl::StrCat(key, ": expected a number in (0, ", max, "]"));
  return value;
}

absl::StatusOr<int> Count(const Json& object, absl::string_view where, const char* key) {
  BOSS_ASSIGN_OR_RETURN(const double value, Number(object, where, key, kMaxCount));
  if (value != std::floor(value)) return Wrong(where, absl::StrCat(key, ": expected an integer"));
  return static_cast<int>(value);
}

absl::StatusOr<RoleSet> Roles(const Json& object, absl::string_view where) {
  const auto found = object.find("roles");
  if (found == object.end() || !found->is_array() || found->empty()) {
    return Wrong(where, "roles: expected an array of at least one of \"generate\", \"jobs\", \"admin\"");
  }
  RoleSet roles;
  for (const Json& role : *found) {
    if (role == "generate") {
      roles = roles | Role::kGenerate;
    } else if (role == "jobs") {
      roles = roles | Role::kJobs;
    } else if (role == "admin") {
      roles = roles | Role::kAdmin;
    } else {
      return Wrong(where, "roles: there are \"generate\", \"jobs\" and \"admin\"");
    }
  }
  return roles;
}

// What tokens and certificates have in common.
absl::StatusOr<AccessRule> CommonRule(const Json& object, absl::string_view where) {
  AccessRule rule;
  BOSS_ASSIGN_OR_RETURN(rule.name, Text(object, where, "name"));
  const bool is_name = std::all_of(rule.name.begin(), rule.name.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' || c == '-';
  });
  if (rule.name.empty() || rule.name.size() > kMaxName || !is_name) {
    return Wrong(where, absl::StrCat("name: expected 1 to ", kMaxName, " letters, digits, '.', '_' and '-'"));
  }
  BOSS_ASSIGN_OR_RETURN(rule.roles, Roles(object, where));
  BOSS_ASSIGN_OR_RETURN(const std::string expires, Text(object, where, "expires"));
  if (!expires.empty() && !absl::ParseTime(absl::RFC3339_full, expires, &rule.expires, nullptr)) {
    return Wrong(where, "expires: expected a time such as \"2027-06-30T00:00:00Z\"");
  }
  BOSS_ASSIGN_OR_RETURN(rule.requests_per_second, Number(object, where, "requests_per_second", kMaxRate));
  BOSS_ASSIGN_OR_RETURN(rule.burst, Number(object, where, "burst", kMaxRate));
  if (rule.burst > 0 && rule.requests_per_second == 0) return Wrong(where, "burst: needs requests_per_second");
  if (rule.burst > 0 && rule.burst < 1) return Wrong(where, "burst: expected at least 1");
  if (rule.burst == 0) rule.burst = std::max(rule.requests_per_second, 1.0);
  BOSS_ASSIGN_OR_RETURN(rule.max_concurrent_calls, Count(object, where, "max_concurrent_calls"));
  BOSS_ASSIGN_OR_RETURN(rule.max_unfinished_jobs, Count(object, where, "max_unfinished_jobs"));
  return rule;
}

absl::StatusOr<AccessRule> TokenRule(const Json& object, absl::string_view where) {
  BOSS_RETURN_IF_ERROR(CheckKeys(object, where,
                                 {"name", "sha256", "roles", "expires", "requests_per_second", "burst",
                                  "max_concurrent_calls", "max_unfinished_jobs"}));
  BOSS_ASSIGN_OR_RETURN(AccessRule rule, CommonRule(object, where));
  BOSS_ASSIGN_OR_RETURN(const std::string hex, Text(object, where, "sha256"));
  Digest digest;
  const bool is_hex = hex.size() == 2 * digest.size() && std::all_of(hex.begin(), hex.end(), [](char c) {
                        return absl::ascii_isxdigit(static_cast<unsigned char>(c));
                      });
  if (!is_hex) return Wrong(where, "sha256: expected the 64 hexadecimal digits of the token's SHA-256");
  const std::string bytes = absl::HexStringToBytes(hex);
  std::copy(bytes.begin(), bytes.end(), digest.begin());
  rule.token = digest;
  return rule;
}

absl::StatusOr<AccessRule> CertificateRule(const Json& object, absl::string_view where) {
  BOSS_RETURN_IF_ERROR(CheckKeys(object, where,
                                 {"name", "subject", "roles", "expires", "requests_per_second", "burst",
                                  "max_concurrent_calls", "max_unfinished_jobs"}));
  BOSS_ASSIGN_OR_RETURN(AccessRule rule, CommonRule(object, where));
  BOSS_ASSIGN_OR_RETURN(rule.subject, Text(object, where, "subject"));
  if (rule.subject.empty()) return Wrong(where, "subject: is required");
  return rule;
}

using ReadRule = absl::StatusOr<AccessRule> (*)(const Json& object, absl::string_view where);

absl::Status AddRules(const Json& file, const char* key, ReadRule read, std::vector<AccessRule>& rules) {
  const auto found = file.find(key);
  if (found == file.end()) return absl::OkStatus();
  if (!found->is_array()) return Wrong(key, "expected an array");
  if (rules.size() + found->size() > kMaxAccessRules) {
    return Wrong(key, absl::StrCat("expected at most ", kMaxAccessRules, " entries"));
  }
  for (size_t i = 0; i < found->size(); ++i) {
    BOSS_ASSIGN_OR_RETURN(rules.emplace_back(), read((*found)[i], absl::StrCat(key, "[", i, "]")));
  }
  return absl::OkStatus();
}

}  // namespace

Digest Sha256Of(absl::string_view bytes) {
  Digest digest;
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), digest.data());
  return digest;
}

absl::StatusOr<std::vector<AccessRule>> ParseAccessRules(absl::string_view json) {
  BOSS_ASSIGN_OR_RETURN(const Json file, ParseJson(json));
  BOSS_RETURN_IF_ERROR(CheckKeys(file, "the file", {"tokens", "certificates"}));
  std::vector<AccessRule> rules;
  BOSS_RETURN_IF_ERROR(AddRules(file, "tokens", TokenRule, rules));
  BOSS_RETURN_IF_ERROR(AddRules(file, "certificates", CertificateRule, rules));
  std::set<Digest> tokens;
  std::set<std::string> subjects;
  for (const AccessRule& rule : rules) {
    const bool is_new = rule.token ? tokens.insert(*rule.token).second : subjects.insert(rule.subject).second;
    if (!is_new) return Wrong(rule.name, rule.token ? "its token is there twice" : "its subject is there twice");
  }
  return rules;
}

}  // namespace boss::server
