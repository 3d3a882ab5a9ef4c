#include "server/rpc/access.h"

#include <grpc/grpc_security_constants.h>
#include <grpcpp/security/auth_context.h>
#include <openssl/crypto.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <iterator>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/base/error_details.h"
#include "core/base/status_macros.h"
#include "server/log/log.h"
#include "server/rpc/call_metadata.h"

namespace boss::server {
namespace {

constexpr absl::string_view kScheme = "Bearer ";
// A call ends when it ends; this is how soon a client may look again.
constexpr absl::Duration kConcurrencyRetryDelay = absl::Seconds(1);

// By Access::Refusal.
constexpr std::array<const char*, 5> kRefusalNames = {"unauthenticated", "permission", "rate", "concurrency", "quota"};

struct MethodRoles {
  absl::string_view method;
  RoleSet roles;
};

constexpr MethodRoles kMethods[] = {
    {"/boss.v1.Sampler/Generate", Role::kGenerate},

    {"/boss.v1.Jobs/TrainJob", Role::kJobs},
    {"/boss.v1.Jobs/OptimizeStepsizesJob", Role::kJobs},
    {"/boss.v1.Jobs/DistillJob", Role::kJobs},
    {"/boss.v1.Jobs/EvaluateJob", Role::kJobs},
    {"/boss.v1.Jobs/GetJob", Role::kJobs},
    {"/boss.v1.Jobs/ListJobs", Role::kJobs},
    {"/boss.v1.Jobs/CancelJob", Role::kJobs},
    {"/boss.v1.Jobs/PauseJob", Role::kJobs},
    {"/boss.v1.Jobs/ResumeJob", Role::kJobs},
    {"/boss.v1.Jobs/DeleteJob", Role::kJobs},
    {"/boss.v1.Jobs/WatchJob", Role::kJobs},

    {"/boss.v1.Models/ListModels", RoleSet::Any()},
    {"/boss.v1.Models/GetModel", RoleSet::Any()},
    {"/boss.v1.Models/GetSchedule", RoleSet::Any()},
    {"/boss.v1.Models/ListSchedules", RoleSet::Any()},
    {"/boss.v1.Models/GetCapabilities", RoleSet::Any()},
    {"/boss.v1.Models/LoadModel", Role::kAdmin},
    {"/boss.v1.Models/UnloadModel", Role::kAdmin},
    {"/boss.v1.Models/ImportModel", Role::kAdmin},
    {"/boss.v1.Models/ExportModel", Role::kAdmin},
    {"/boss.v1.Models/SetAlias", Role::kAdmin},
    {"/boss.v1.Models/MergeAdapter", Role::kAdmin},
    {"/boss.v1.Models/DeleteVersion", Role::kAdmin},
    {"/boss.v1.Models/ImportSchedule", Role::kAdmin},
    {"/boss.v1.Models/DeleteSchedule", Role::kAdmin},

    {"/inference.GRPCInferenceService/ServerLive", RoleSet()},
    {"/inference.GRPCInferenceService/ServerReady", RoleSet()},
    {"/inference.GRPCInferenceService/ModelReady", RoleSet::Any()},
    {"/inference.GRPCInferenceService/ServerMetadata", RoleSet::Any()},
    {"/inference.GRPCInferenceService/ModelMetadata", RoleSet::Any()},
    {"/inference.GRPCInferenceService/ModelInfer", Role::kGenerate},
    {"/inference.GRPCInferenceService/ModelStreamInfer", Role::kGenerate},
};

absl::Status Unauthenticated(absl::string_view reason, absl::string_view message) {
  return WithReason(absl::UnauthenticatedError(message), reason);
}

bool IsForAdmins(absl::string_view method) {
  const std::optional<RoleSet> roles = RolesOf(method);
  return roles && roles->Meets(Role::kAdmin) && !roles->Meets(RoleSet(Role::kGenerate) | Role::kJobs);
}

// Of a token or of a certificate.
std::string KeyOf(const AccessRule& rule) {
  if (!rule.token) return absl::StrCat("certificate ", rule.subject);
  return absl::StrCat("token ",
                      absl::string_view(reinterpret_cast<const char*>(rule.token->data()), rule.token->size()));
}

}  // namespace

// Since the start, by Access::Refusal.
struct RefusalCounts {
  void Add(Access::Refusal refusal) { ++refused.at(static_cast<size_t>(refusal)); }
  std::array<std::atomic<int64_t>, kRefusalNames.size()> refused = {};
};

// A rule and what its callers do. Lives as long as their calls, also when the rule is gone.
class AccessEntry {
 public:
  AccessEntry(AccessRule rule, const Clock& clock)
      : token(rule.token), subject(rule.subject), clock_(clock), rule_(std::move(rule)), full_time_(clock.Now()) {}

  // Those of every rule that it ever has.
  const std::optional<Digest> token;
  const std::string subject;

  AccessRule rule() const ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    return rule_;
  }
  // \pre the same token or subject.
  void Replace(AccessRule rule) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    rule_ = std::move(rule);
  }

  // Takes one request from the rate; the time to wait if there is none to take.
  absl::Duration TakeRequest() ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    if (rule_.requests_per_second <= 0) return absl::ZeroDuration();
    // A bucket of `burst` requests, kept as the time at which it will be full again: never later than that of an empty
    // one, whatever rate there was before and wherever the clock has been.
    const absl::Time now = clock_.Now();
    const absl::Duration one = absl::Seconds(1 / rule_.requests_per_second);
    full_time_ = std::clamp(full_time_, now, now + one * rule_.burst);
    const absl::Duration wait = full_time_ + one - now - one * rule_.burst;
    if (wait > absl::ZeroDuration()) return std::max(wait, absl::Milliseconds(1));
    full_time_ += one;
    return absl::ZeroDuration();
  }

  bool Enter() ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    if (rule_.max_concurrent_calls > 0 && open_calls_ >= rule_.max_concurrent_calls) return false;
    ++open_calls_;
    return true;
  }
  void Leave() ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    --open_calls_;
  }

 private:
  const Clock& clock_;
  mutable absl::Mutex mutex_;
  AccessRule rule_ ABSL_GUARDED_BY(mutex_);
  absl::Time full_time_ ABSL_GUARDED_BY(mutex_);
  int open_calls_ ABSL_GUARDED_BY(mutex_) = 0;
};

std::optional<RoleSet> RolesOf(absl::string_view method) {
  const auto* const found = std::find_if(std::begin(kMethods), std::end(kMethods),
                                         [&](const MethodRoles& entry) { return entry.method == method; });
  return found == std::end(kMethods) ? std::nullopt : std::optional(found->roles);
}

CallerProof ProofOf(const grpc::ServerContextBase& context) {
  CallerProof proof;
  const auto [begin, end] = context.client_metadata().equal_range("authorization");
  for (auto it = begin; it != end; ++it) proof.authorization.emplace_back(it->second.data(), it->second.size());
  const std::shared_ptr<const grpc::AuthContext> peer = context.auth_context();
  if (peer == nullptr || !peer->IsPeerAuthenticated()) return proof;
  for (const char* property : {GRPC_X509_CN_PROPERTY_NAME, GRPC_X509_SAN_PROPERTY_NAME}) {
    for (const grpc::string_ref& name : peer->FindPropertyValues(property)) {
      proof.certificate_names.emplace_back(name.data(), name.size());
    }
  }
  return proof;
}

absl::Status Admission::AdmitRequest() const {
  if (!entry_) return absl::OkStatus();
  const absl::Duration wait = entry_->TakeRequest();
  if (wait == absl::ZeroDuration()) return absl::OkStatus();
  counts_->Add(Access::Refusal::kRate);
  return WithReason(WithRetryDelay(absl::ResourceExhaustedError(absl::StrCat("\"", principal_.name, "\" may make ",
                                                                             entry_->rule().requests_per_second,
                                                                             " requests a second")),
                                   wait),
                    "RATE_LIMITED");
}

Access::Access(const Clock& clock) : clock_(clock), counts_(std::make_shared<RefusalCounts>()) {}
Access::~Access() = default;

void Access::SetRules(std::vector<AccessRule> rules) {
  auto entries = std::make_shared<Entries>();
  absl::MutexLock lock(&mutex_);
  absl::flat_hash_map<std::string, Entry> former;
  if (entries_) {
    for (const Entry& entry : *entries_) former.emplace(KeyOf(entry->rule()), entry);
  }
  for (AccessRule& rule : rules) {
    const auto found = former.find(KeyOf(rule));
    if (found != former.end()) {
      found->second->Replace(std::move(rule));
      entries->push_back(found->second);
    } else {
      entries->push_back(std::make_shared<AccessEntry>(std::move(rule), clock_));
    }
  }
  entries_ = std::move(entries);
}

absl::StatusOr<Access::Entry> Access::Authenticate(const Entries& entries, const CallerProof& proof) const {
  Entry found;
  if (!proof.authorization.empty()) {
    const std::string& value = proof.authorization.front();
    if (proof.authorization.size() > 1 || !absl::StartsWithIgnoreCase(value, kScheme)) {
      return Unauthenticated("TOKEN_UNKNOWN", "expected one \"authorization: Bearer TOKEN\" in the metadata");
    }
    const Digest presented = Sha256Of(absl::string_view(value).substr(kScheme.size()));
    // All of them and each in constant time, so that the time tells nothing about the hashes.
    for (const Entry& entry : entries) {
      if (entry->token && CRYPTO_memcmp(entry->token->data(), presented.data(), presented.size()) == 0) found = entry;
    }
    if (!found) return Unauthenticated("TOKEN_UNKNOWN", "the token is not known");
  } else if (!proof.certificate_names.empty()) {
    const std::vector<std::string>& names = proof.certificate_names;
    const auto match = std::find_if(entries.begin(), entries.end(), [&](const Entry& entry) {
      return !entry->token && std::find(names.begin(), names.end(), entry->subject) != names.end();
    });
    if (match != entries.end()) found = *match;
    if (!found) return Unauthenticated("CERTIFICATE_UNKNOWN", "neither a token nor a certificate that has roles");
  } else {
    return Unauthenticated("TOKEN_MISSING", "a token is required: send \"authorization: Bearer TOKEN\"");
  }
  if (found->rule().expires <= clock_.Now())
    return Unauthenticated("TOKEN_EXPIRED", "the token or the certificate's entry has expired");
  return found;
}

absl::StatusOr<Admission> Access::Admit(const grpc::ServerContextBase& context, absl::string_view method) {
  absl::StatusOr<Admission> admission = Admit(ProofOf(context), method);
  if (!admission.ok()) {
    LogDebug("access refused",
             {{"method", method}, {"peer", context.peer()}, {"reason", ReasonOf(admission.status()).value_or("")}},
             CallIdOf(context));
    return admission;
  }
  const std::string& name = admission->principal().name;
  // Who changes models is worth a line; who changes jobs is their owner.
  const LogLevel level = name.empty() || !IsForAdmins(method) ? LogLevel::kDebug : LogLevel::kInfo;
  if (LogEnabled(level)) Log(level, "access granted", {{"method", method}, {"name", name}}, CallIdOf(context));
  return admission;
}

absl::StatusOr<Admission> Access::Admit(const CallerProof& proof, absl::string_view method) {
  const std::optional<RoleSet> needed = RolesOf(method);
  if (!needed) {
    CountRefusal(Refusal::kPermission);
    return WithReason(absl::PermissionDeniedError(absl::StrCat("nobody may call ", method)), "ROLE_MISSING");
  }
  std::shared_ptr<const Entries> entries;
  {
    absl::MutexLock lock(&mutex_);
    entries = entries_;
  }
  Admission admission;
  admission.principal_.is_admin = !entries;
  if (!entries || needed->empty()) return admission;

  absl::StatusOr<Entry> entry = Authenticate(*entries, proof);
  if (!entry.ok()) {
    CountRefusal(Refusal::kUnauthenticated);
    return std::move(entry).status();
  }
  const AccessRule rule = (*entry)->rule();
  if (!rule.roles.Meets(*needed | Role::kAdmin)) {
    CountRefusal(Refusal::kPermission);
    return WithReason(absl::PermissionDeniedError(absl::StrCat("\"", rule.name, "\" has no role for ", method)),
                      "ROLE_MISSING");
  }
  admission.principal_ = {
      .name = rule.name, .is_admin = rule.roles.Meets(Role::kAdmin), .max_unfinished_jobs = rule.max_unfinished_jobs};
  admission.entry_ = *entry;
  admission.counts_ = counts_;
  // The place first: a call that finds none has cost nothing of the rate.
  if (!(*entry)->Enter()) {
    CountRefusal(Refusal::kConcurrency);
    return WithReason(WithRetryDelay(absl::ResourceExhaustedError(absl::StrCat(
                                         "\"", rule.name, "\" may have ", rule.max_concurrent_calls, " open calls")),
                                     kConcurrencyRetryDelay),
                      "TOO_MANY_CALLS");
  }
  admission.place_ = std::shared_ptr<void>(nullptr, [entry = *entry](void*) { entry->Leave(); });
  BOSS_RETURN_IF_ERROR(admission.AdmitRequest());
  return admission;
}

void Access::CountRefusal(Refusal refusal) { counts_->Add(refusal); }

std::vector<CollectedFamily> Access::Collect() const {
  CollectedFamily family = {.name = "boss_access_refused_total",
                            .help = "Calls refused for who makes them or how many, by reason",
                            .kind = CollectedFamily::Kind::kCounter};
  for (size_t i = 0; i < kRefusalNames.size(); ++i) {
    family.series.push_back(
        {.labels = {{"reason", kRefusalNames[i]}}, .value = static_cast<double>(counts_->refused[i])});
  }
  return {family};
}

}  // namespace boss::server
