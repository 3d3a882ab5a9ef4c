// The access file: which tokens and certificates there are, and what their callers may do. docs/security.md describes
// it for operators.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace boss::server {

enum class Role { kGenerate, kJobs, kAdmin };

class RoleSet {
 public:
  constexpr RoleSet() = default;
  constexpr RoleSet(Role role) : bits_(1u << static_cast<unsigned>(role)) {}  // NOLINT: a role is a set of one
  static constexpr RoleSet Any() { return RoleSet(Role::kGenerate) | Role::kJobs | Role::kAdmin; }

  constexpr RoleSet operator|(RoleSet other) const { return RoleSet(bits_ | other.bits_); }
  constexpr bool Meets(RoleSet other) const { return (bits_ & other.bits_) != 0; }
  constexpr bool empty() const { return bits_ == 0; }

 private:
  constexpr explicit RoleSet(unsigned bits) : bits_(bits) {}
  unsigned bits_ = 0;
};

// A SHA-256.
using Digest = std::array<uint8_t, 32>;
Digest Sha256Of(absl::string_view bytes);

struct AccessRule {
  std::string name;             // the tenant; several rules may share it
  std::optional<Digest> token;  // of the token's characters; absent: the rule is of a certificate
  std::string subject;          // of a certificate: its common name, or an alternative name
  RoleSet roles;                // never empty
  absl::Time expires = absl::InfiniteFuture();
  double requests_per_second = 0;  // 0: no limit, here and below
  double burst = 0;                // with requests_per_second; at least 1
  int max_concurrent_calls = 0;
  int max_unfinished_jobs = 0;
};

inline constexpr size_t kMaxAccessRules = 4096;

// No two rules have the same token or subject. \error INVALID_ARGUMENT naming the entry and the key; the message never
// quotes a hash, in whose place somebody may have put the token itself.
absl::StatusOr<std::vector<AccessRule>> ParseAccessRules(absl::string_view json);

}  // namespace boss::server
