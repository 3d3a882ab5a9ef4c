// Who may call what, how often, and as whom.
#pragma once

#include <grpcpp/server_context.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "core/base/clock.h"
#include "server/metrics/metrics.h"
#include "server/rpc/access_rules.h"

namespace boss::server {

// Who calls.
struct Principal {
  std::string name;             // of the caller's token or certificate; empty where the server asks for none
  bool is_admin = false;        // sees everybody's jobs; so does everybody where the server asks for nothing
  int max_unfinished_jobs = 0;  // 0: no limit
};

// The roles of which a caller needs one; empty: everybody may call it. Absent for a method that nothing is said about,
// which nobody may call. `method`: "/boss.v1.Jobs/GetJob".
std::optional<RoleSet> RolesOf(absl::string_view method);

// What a call brings along to prove who makes it.
struct CallerProof {
  std::vector<std::string> authorization;      // the values of that metadata key
  std::vector<std::string> certificate_names;  // of a client certificate that was verified; empty: none
};
CallerProof ProofOf(const grpc::ServerContextBase& context);

class AccessEntry;
struct RefusalCounts;

// A call that was let in. Copies share its place among the caller's concurrent calls, which is free again when the last
// of them is gone or has left.
class Admission {
 public:
  // Of nobody.
  Admission() = default;

  const Principal& principal() const { return principal_; }
  // One more request of the caller's, inside a stream. Thread-safe, also beside Leave(). \error RESOURCE_EXHAUSTED as
  // of Access::Admit.
  absl::Status AdmitRequest() const;
  // Before the client hears that the call has ended, so that its next one finds the place free.
  void Leave() { place_.reset(); }

 private:
  friend class Access;
  Principal principal_;
  std::shared_ptr<AccessEntry> entry_;  // null: of a server that asks for nothing, or of an open method
  std::shared_ptr<void> place_;
  std::shared_ptr<RefusalCounts> counts_;
};

// Thread-safe. Lets everybody do everything until it has rules.
class Access {
 public:
  enum class Refusal { kUnauthenticated, kPermission, kRate, kConcurrency, kQuota };

  // `clock` outlives it and its admissions.
  explicit Access(const Clock& clock);
  ~Access();
  Access(const Access&) = delete;
  Access& operator=(const Access&) = delete;

  // For calls that begin from now on. Rates and open calls of a token or certificate that had a rule before go on being
  // counted.
  void SetRules(std::vector<AccessRule> rules) ABSL_LOCKS_EXCLUDED(mutex_);

  // \error UNAUTHENTICATED, PERMISSION_DENIED, or RESOURCE_EXHAUSTED with a retry delay; the reasons are in
  // docs/security.md.
  absl::StatusOr<Admission> Admit(const grpc::ServerContextBase& context, absl::string_view method)
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<Admission> Admit(const CallerProof& proof, absl::string_view method) ABSL_LOCKS_EXCLUDED(mutex_);

  // For a refusal that others decide on.
  void CountRefusal(Refusal refusal);
  // boss_access_refused_total.
  std::vector<CollectedFamily> Collect() const;

 private:
  using Entry = std::shared_ptr<AccessEntry>;
  using Entries = std::vector<Entry>;
  // The entry that the proof is of.
  absl::StatusOr<Entry> Authenticate(const Entries& entries, const CallerProof& proof) const;

  const Clock& clock_;
  const std::shared_ptr<RefusalCounts> counts_;  // shared with open calls
  mutable absl::Mutex mutex_;
  std::shared_ptr<const Entries> entries_ ABSL_GUARDED_BY(mutex_);  // null: no rules
};

}  // namespace boss::server
