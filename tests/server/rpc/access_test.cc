#include "server/rpc/access.h"

#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "boss/v1/jobs.pb.h"
#include "boss/v1/models.pb.h"
#include "boss/v1/sampling.pb.h"
#include "core/base/error_details.h"
#include "inference/grpc_service.pb.h"
#include "tests/support/manual_clock.h"

namespace boss::server {
namespace {

constexpr char kGenerate[] = "/boss.v1.Sampler/Generate";
constexpr char kGetJob[] = "/boss.v1.Jobs/GetJob";
constexpr char kImport[] = "/boss.v1.Models/ImportModel";
constexpr char kListModels[] = "/boss.v1.Models/ListModels";
constexpr char kServerLive[] = "/inference.GRPCInferenceService/ServerLive";

AccessRule TokenRule(const std::string& name, const std::string& token, RoleSet roles) {
  AccessRule rule;
  rule.name = name;
  rule.token = Sha256Of(token);
  rule.roles = roles;
  rule.burst = 1;
  return rule;
}

AccessRule CertificateRule(const std::string& name, const std::string& subject, RoleSet roles) {
  AccessRule rule;
  rule.name = name;
  rule.subject = subject;
  rule.roles = roles;
  rule.burst = 1;
  return rule;
}

CallerProof Bearer(const std::string& token) { return {.authorization = {absl::StrCat("Bearer ", token)}}; }

class AccessTest : public ::testing::Test {
 protected:
  // The reason of the refusal; empty for none.
  std::string Refused(const CallerProof& proof, absl::string_view method) {
    const auto admission = access_.Admit(proof, method);
    if (admission.ok()) return "";
    return absl::StrCat(absl::StatusCodeToString(admission.status().code()), " ",
                        ReasonOf(admission.status()).value_or("?"));
  }

  double Refusals(const std::string& reason) const {
    for (const CollectedFamily& family : access_.Collect()) {
      for (const auto& series : family.series) {
        if (series.labels.at(0).second == reason) return series.value;
      }
    }
    return -1;
  }

  testing::ManualClock clock_;
  Access access_{clock_};
};

TEST_F(AccessTest, WithoutRulesEverybodyMayDoEverything) {
  for (const char* method : {kGenerate, kGetJob, kImport}) {
    const auto admission = access_.Admit(CallerProof(), method);
    ASSERT_TRUE(admission.ok()) << admission.status();
    EXPECT_TRUE(admission->principal().is_admin);
    EXPECT_EQ(admission->principal().name, "");
  }
}

// A method that is added to the contract and not to the table is refused, and this test says so.
TEST_F(AccessTest, EveryMethodHasItsRole) {
  std::vector<const google::protobuf::FileDescriptor*> files = {
      v1::GenerateRequest::descriptor()->file(), v1::Job::descriptor()->file(), v1::Model::descriptor()->file(),
      inference::ModelInferRequest::descriptor()->file()};
  int methods = 0;
  for (const auto* file : files) {
    for (int s = 0; s < file->service_count(); ++s) {
      for (int m = 0; m < file->service(s)->method_count(); ++m, ++methods) {
        const auto* method = file->service(s)->method(m);
        const std::string name = absl::StrCat("/", method->service()->full_name(), "/", method->name());
        ASSERT_TRUE(RolesOf(name)) << name;
        // What changes models is nobody's but an admin's; what looks is anybody's.
        const bool looks = method->name().starts_with("Get") || method->name().starts_with("List");
        if (file->service(s)->name() == "Models") {
          EXPECT_EQ(RolesOf(name)->Meets(Role::kGenerate), looks) << name;
          EXPECT_TRUE(RolesOf(name)->Meets(Role::kAdmin)) << name;
        }
        if (file->service(s)->name() == "Jobs") {
          EXPECT_FALSE(RolesOf(name)->Meets(Role::kGenerate)) << name;
        }
      }
    }
  }
  EXPECT_EQ(methods, 33);
  EXPECT_FALSE(RolesOf("/boss.v1.Models/NoSuchMethod"));
}

TEST_F(AccessTest, AMethodWithoutARoleIsRefused) {
  EXPECT_EQ(Refused(CallerProof(), "/boss.v1.Models/NoSuchMethod"), "PERMISSION_DENIED ROLE_MISSING");
  access_.SetRules({TokenRule("ops", "t", Role::kAdmin)});
  EXPECT_EQ(Refused(Bearer("t"), "/boss.v1.Models/NoSuchMethod"), "PERMISSION_DENIED ROLE_MISSING");
}

TEST_F(AccessTest, EachRoleHasItsMethods) {
  access_.SetRules({TokenRule("g", "generate", Role::kGenerate), TokenRule("j", "jobs", Role::kJobs),
                    TokenRule("gj", "both", RoleSet(Role::kGenerate) | Role::kJobs),
                    TokenRule("a", "admin", Role::kAdmin)});
  const std::map<std::string, std::vector<bool>> allowed = {// generate, get a job, import, list models
                                                            {"generate", {true, false, false, true}},
                                                            {"jobs", {false, true, false, true}},
                                                            {"both", {true, true, false, true}},
                                                            {"admin", {true, true, true, true}}};
  const char* const methods[] = {kGenerate, kGetJob, kImport, kListModels};
  for (const auto& [token, expected] : allowed) {
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_EQ(Refused(Bearer(token), methods[i]), expected[i] ? "" : "PERMISSION_DENIED ROLE_MISSING")
          << token << " " << methods[i];
    }
  }
  EXPECT_TRUE(access_.Admit(Bearer("admin"), kGetJob)->principal().is_admin);
  EXPECT_FALSE(access_.Admit(Bearer("jobs"), kGetJob)->principal().is_admin);
  EXPECT_EQ(access_.Admit(Bearer("jobs"), kGetJob)->principal().name, "j");
  EXPECT_EQ(Refusals("permission"), 5);
}

TEST_F(AccessTest, WhoProvesNothingIsRefusedButForProbes) {
  access_.SetRules({TokenRule("a", "admin", Role::kAdmin)});
  EXPECT_EQ(Refused(CallerProof(), kListModels), "UNAUTHENTICATED TOKEN_MISSING");
  EXPECT_EQ(Refused(Bearer("admin "), kListModels), "UNAUTHENTICATED TOKEN_UNKNOWN");
  EXPECT_EQ(Refused(Bearer(""), kListModels), "UNAUTHENTICATED TOKEN_UNKNOWN");
  EXPECT_EQ(Refused({.authorization = {"Basic admin"}}, kListModels), "UNAUTHENTICATED TOKEN_UNKNOWN");
  EXPECT_EQ(Refused({.authorization = {"admin"}}, kListModels), "UNAUTHENTICATED TOKEN_UNKNOWN");
  EXPECT_EQ(Refused({.authorization = {"Bearer admin", "Bearer admin"}}, kListModels), "UNAUTHENTICATED TOKEN_UNKNOWN");
  EXPECT_EQ(Refused({.authorization = {"bearer admin"}}, kListModels), "");
  EXPECT_EQ(Refusals("unauthenticated"), 6);

  const auto probe = access_.Admit(CallerProof(), kServerLive);
  ASSERT_TRUE(probe.ok());
  EXPECT_FALSE(probe->principal().is_admin);
  EXPECT_EQ(Refused(Bearer("wrong"), kServerLive), "");
}

TEST_F(AccessTest, ErrorsDoNotQuoteTokens) {
  access_.SetRules({TokenRule("a", "secret-of-a", Role::kGenerate)});
  for (const char* token : {"secret-of-a", "secret-of-nobody"}) {
    const absl::Status status = access_.Admit(Bearer(token), kImport).status();
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.ToString().find("secret"), std::string::npos) << status;
  }
}

TEST_F(AccessTest, ARuleExpires) {
  AccessRule rule = TokenRule("a", "t", Role::kAdmin);
  rule.expires = clock_.Now() + absl::Seconds(10);
  access_.SetRules({rule});
  EXPECT_EQ(Refused(Bearer("t"), kImport), "");
  clock_.Advance(absl::Seconds(10));
  EXPECT_EQ(Refused(Bearer("t"), kImport), "UNAUTHENTICATED TOKEN_EXPIRED");
}

TEST_F(AccessTest, ACertificateCountsWhereThereIsNoToken) {
  access_.SetRules({TokenRule("ops", "t", Role::kAdmin), CertificateRule("gateway", "gateway.svc", Role::kGenerate)});
  const CallerProof certificate = {.certificate_names = {"somebody", "gateway.svc"}};
  EXPECT_EQ(access_.Admit(certificate, kGenerate)->principal().name, "gateway");
  EXPECT_EQ(Refused(certificate, kImport), "PERMISSION_DENIED ROLE_MISSING");
  EXPECT_EQ(Refused({.certificate_names = {"stranger"}}, kGenerate), "UNAUTHENTICATED CERTIFICATE_UNKNOWN");
  CallerProof both = certificate;
  both.authorization = {"Bearer t"};
  EXPECT_EQ(access_.Admit(both, kImport)->principal().name, "ops");
  both.authorization = {"Bearer wrong"};  // is not made good by the certificate
  EXPECT_EQ(Refused(both, kGenerate), "UNAUTHENTICATED TOKEN_UNKNOWN");
}

TEST_F(AccessTest, RatesRefillWithTimeAndTellWhen) {
  AccessRule rule = TokenRule("a", "t", Role::kGenerate);
  rule.requests_per_second = 4;
  rule.burst = 2;
  access_.SetRules({rule});
  EXPECT_EQ(Refused(Bearer("t"), kGenerate), "");
  EXPECT_EQ(Refused(Bearer("t"), kGenerate), "");
  const absl::Status status = access_.Admit(Bearer("t"), kGenerate).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(status), "RATE_LIMITED");
  EXPECT_EQ(RetryDelayOf(status), absl::Milliseconds(250));
  EXPECT_EQ(Refusals("rate"), 1);
  clock_.Advance(absl::Milliseconds(249));
  EXPECT_EQ(Refused(Bearer("t"), kGenerate), "RESOURCE_EXHAUSTED RATE_LIMITED");
  clock_.Advance(absl::Milliseconds(1));
  EXPECT_EQ(Refused(Bearer("t"), kGenerate), "");
  EXPECT_EQ(Refused(Bearer("t"), kGenerate), "RESOURCE_EXHAUSTED RATE_LIMITED");
  clock_.Advance(absl::Hours(1));  // no more than the burst is saved up
  EXPECT_EQ(Refused(Bearer("t"), kGenerate), "");
  EXPECT_EQ(Refused(Bearer("t"), kGenerate), "");
  EXPECT_EQ(Refused(Bearer("t"), kGenerate), "RESOURCE_EXHAUSTED RATE_LIMITED");
}

TEST_F(AccessTest, AHigherRateHoldsAtOnce) {
  AccessRule rule = TokenRule("a", "t", Role::kGenerate);
  rule.requests_per_second = 0.001;
  rule.burst = 2;
  access_.SetRules({rule});
  EXPECT_EQ(Refused(Bearer("t"), kGenerate), "");
  EXPECT_EQ(Refused(Bearer("t"), kGenerate), "");
  EXPECT_EQ(Refused(Bearer("t"), kGenerate), "RESOURCE_EXHAUSTED RATE_LIMITED");
  rule.requests_per_second = 4;
  access_.SetRules({rule});
  EXPECT_EQ(RetryDelayOf(access_.Admit(Bearer("t"), kGenerate).status()), absl::Milliseconds(250));
  clock_.Advance(absl::Milliseconds(250));
  EXPECT_EQ(Refused(Bearer("t"), kGenerate), "");
  EXPECT_EQ(Refused(Bearer("t"), kGenerate), "RESOURCE_EXHAUSTED RATE_LIMITED");
}

TEST_F(AccessTest, AClockThatIsSetBackBlocksNobody) {
  AccessRule rule = TokenRule("a", "t", Role::kGenerate);
  rule.requests_per_second = 4;
  rule.burst = 2;
  access_.SetRules({rule});
  EXPECT_EQ(Refused(Bearer("t"), kGenerate), "");
  clock_.Advance(-absl::Hours(1));
  EXPECT_EQ(RetryDelayOf(access_.Admit(Bearer("t"), kGenerate).status()), absl::Milliseconds(250));
  clock_.Advance(absl::Milliseconds(250));
  EXPECT_EQ(Refused(Bearer("t"), kGenerate), "");
  EXPECT_EQ(Refused(Bearer("t"), kGenerate), "RESOURCE_EXHAUSTED RATE_LIMITED");
}

TEST_F(AccessTest, RequestsInsideAStreamCount) {
  AccessRule rule = TokenRule("a", "t", Role::kGenerate);
  rule.requests_per_second = 1;
  rule.burst = 3;
  access_.SetRules({rule});
  const auto stream = access_.Admit(Bearer("t"), "/inference.GRPCInferenceService/ModelStreamInfer");
  ASSERT_TRUE(stream.ok());
  EXPECT_TRUE(stream->AdmitRequest().ok());
  EXPECT_TRUE(stream->AdmitRequest().ok());
  EXPECT_EQ(ReasonOf(stream->AdmitRequest()), "RATE_LIMITED");
  EXPECT_EQ(Refusals("rate"), 1);
}

TEST_F(AccessTest, ConcurrentCallsAreLimitedUntilTheyEnd) {
  AccessRule rule = TokenRule("a", "t", Role::kGenerate);
  rule.max_concurrent_calls = 2;
  access_.SetRules({rule, TokenRule("b", "u", Role::kGenerate)});
  auto first = access_.Admit(Bearer("t"), kGenerate);
  auto copy = first;
  const auto second = access_.Admit(Bearer("t"), kGenerate);
  const absl::Status third = access_.Admit(Bearer("t"), kGenerate).status();
  EXPECT_EQ(ReasonOf(third), "TOO_MANY_CALLS");
  EXPECT_TRUE(RetryDelayOf(third));
  EXPECT_EQ(Refused(Bearer("u"), kGenerate), "");  // others are not touched
  EXPECT_EQ(Refusals("concurrency"), 1);
  first = absl::CancelledError();
  EXPECT_EQ(Refused(Bearer("t"), kGenerate), "RESOURCE_EXHAUSTED TOO_MANY_CALLS");  // the copy holds the place
  copy->Leave();
  EXPECT_EQ(Refused(Bearer("t"), kGenerate), "");
  copy = absl::CancelledError();
}

TEST_F(AccessTest, ACallThatFindsNoPlaceCostsNothingOfTheRate) {
  AccessRule rule = TokenRule("a", "t", Role::kGenerate);
  rule.requests_per_second = 1;
  rule.burst = 2;
  rule.max_concurrent_calls = 1;
  access_.SetRules({rule});
  {
    const auto open = access_.Admit(Bearer("t"), kGenerate);
    EXPECT_EQ(Refused(Bearer("t"), kGenerate), "RESOURCE_EXHAUSTED TOO_MANY_CALLS");
  }
  EXPECT_EQ(Refused(Bearer("t"), kGenerate), "");
  // Nor does a call that the rate refuses keep its place.
  EXPECT_EQ(Refused(Bearer("t"), kGenerate), "RESOURCE_EXHAUSTED RATE_LIMITED");
  clock_.Advance(absl::Seconds(1));
  EXPECT_EQ(Refused(Bearer("t"), kGenerate), "");
}

TEST_F(AccessTest, NewRulesHoldForNewCallsAndCountersGoOn) {
  AccessRule rule = TokenRule("a", "t", Role::kGenerate);
  rule.max_concurrent_calls = 1;
  access_.SetRules({rule});
  auto open = access_.Admit(Bearer("t"), kGenerate);
  rule.name = "renamed";
  access_.SetRules({rule, TokenRule("b", "u", Role::kAdmin)});
  EXPECT_EQ(Refused(Bearer("t"), kGenerate), "RESOURCE_EXHAUSTED TOO_MANY_CALLS");
  EXPECT_EQ(Refused(Bearer("u"), kImport), "");
  EXPECT_EQ(open->principal().name, "a");
  open = absl::CancelledError();
  EXPECT_EQ(access_.Admit(Bearer("t"), kGenerate)->principal().name, "renamed");

  auto of_a_rule_that_goes = access_.Admit(Bearer("t"), kGenerate);
  access_.SetRules({});
  EXPECT_EQ(Refused(Bearer("t"), kGenerate), "UNAUTHENTICATED TOKEN_UNKNOWN");
  of_a_rule_that_goes = absl::CancelledError();
}

TEST_F(AccessTest, ATokenAndACertificateOfOneNameAreCountedApart) {
  AccessRule token = TokenRule("a", "t", Role::kGenerate), certificate = CertificateRule("a", "a.svc", Role::kGenerate);
  token.max_concurrent_calls = certificate.max_concurrent_calls = 1;
  access_.SetRules({token, certificate});
  const auto by_token = access_.Admit(Bearer("t"), kGenerate);
  EXPECT_TRUE(access_.Admit(CallerProof{.certificate_names = {"a.svc"}}, kGenerate).ok());
}

}  // namespace
}  // namespace boss::server
