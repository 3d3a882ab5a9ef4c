#include "server/rpc/access_rules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/civil_time.h"

namespace boss::server {
namespace {

using ::testing::HasSubstr;

// SHA-256 of "abc", as FIPS 180-4's example has it.
constexpr char kAbc[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

std::string Token(const std::string& rest) {
  return absl::StrCat(R"({"tokens":[{"name":"a","sha256":")", kAbc, R"(","roles":["jobs"])", rest, "}]}");
}

TEST(AccessRulesTest, ReadsAllThereIs) {
  const auto rules = ParseAccessRules(absl::StrCat(
      R"({"tokens":[{"name":"team-1","sha256":")", kAbc,
      R"(","roles":["generate","jobs"],"expires":"2027-06-30T01:00:00+01:00","requests_per_second":2.5,"burst":7,
          "max_concurrent_calls":3,"max_unfinished_jobs":4}],
          "certificates":[{"name":"ops","subject":"spiffe://cluster/ops","roles":["admin"]}]})"));
  ASSERT_TRUE(rules.ok()) << rules.status();
  ASSERT_EQ(rules->size(), 2u);
  const AccessRule& token = rules->at(0);
  EXPECT_EQ(token.name, "team-1");
  EXPECT_EQ(token.token, Sha256Of("abc"));
  EXPECT_TRUE(token.roles.Meets(Role::kGenerate));
  EXPECT_TRUE(token.roles.Meets(Role::kJobs));
  EXPECT_FALSE(token.roles.Meets(Role::kAdmin));
  EXPECT_EQ(token.expires, absl::FromCivil(absl::CivilSecond(2027, 6, 30), absl::UTCTimeZone()));
  EXPECT_EQ(token.requests_per_second, 2.5);
  EXPECT_EQ(token.burst, 7);
  EXPECT_EQ(token.max_concurrent_calls, 3);
  EXPECT_EQ(token.max_unfinished_jobs, 4);
  const AccessRule& certificate = rules->at(1);
  EXPECT_FALSE(certificate.token);
  EXPECT_EQ(certificate.subject, "spiffe://cluster/ops");
  EXPECT_TRUE(certificate.roles.Meets(Role::kAdmin));
  EXPECT_EQ(certificate.expires, absl::InfiniteFuture());
  EXPECT_EQ(certificate.max_concurrent_calls, 0);
}

TEST(AccessRulesTest, AnEmptyFileHasNoRules) {
  EXPECT_TRUE(ParseAccessRules("{}")->empty());
  EXPECT_TRUE(ParseAccessRules(R"({"tokens":[],"certificates":[]})")->empty());
}

TEST(AccessRulesTest, TheBurstIsASecondsWorthUnlessGiven) {
  EXPECT_EQ(ParseAccessRules(Token(R"(,"requests_per_second":20)"))->at(0).burst, 20);
  EXPECT_EQ(ParseAccessRules(Token(R"(,"requests_per_second":0.1)"))->at(0).burst, 1);
}

TEST(AccessRulesTest, SaysWhatIsWrongAndWhere) {
  const struct {
    std::string json;
    const char* said;
  } cases[] = {
      {"", "not JSON"},
      {"[]", "expected an object"},
      {R"({"token":[]})", "unknown key \"token\""},
      {R"({"tokens":{}})", "tokens: expected an array"},
      {R"({"tokens":[7]})", "tokens[0]: expected an object"},
      {R"({"tokens":[{"sha256":"x","roles":["jobs"]}]})", "tokens[0]: name"},
      {R"({"tokens":[{"name":"a b","sha256":"x","roles":["jobs"]}]})", "tokens[0]: name"},
      {R"({"tokens":[{"name":"a","sha256":"x"}]})", "tokens[0]: roles"},
      {R"({"tokens":[{"name":"a","sha256":"x","roles":[]}]})", "tokens[0]: roles"},
      {R"({"tokens":[{"name":"a","sha256":"x","roles":["root"]}]})", "tokens[0]: roles"},
      {R"({"tokens":[{"name":"a","roles":["jobs"]}]})", "tokens[0]: sha256"},
      {R"({"tokens":[{"name":"a","sha256":7,"roles":["jobs"]}]})", "tokens[0]: sha256"},
      {Token(R"(,"subject":"x")"), "unknown key \"subject\""},
      {Token(R"(,"max_jobs":1)"), "unknown key \"max_jobs\""},
      {Token(R"(,"expires":"tomorrow")"), "tokens[0]: expires"},
      {Token(R"(,"requests_per_second":0)"), "tokens[0]: requests_per_second"},
      {Token(R"(,"requests_per_second":-1)"), "tokens[0]: requests_per_second"},
      {Token(R"(,"requests_per_second":"1")"), "tokens[0]: requests_per_second"},
      {Token(R"(,"burst":5)"), "tokens[0]: burst"},
      {Token(R"(,"requests_per_second":1,"burst":0.5)"), "tokens[0]: burst"},
      {Token(R"(,"max_concurrent_calls":1.5)"), "tokens[0]: max_concurrent_calls"},
      {Token(R"(,"max_unfinished_jobs":1e300)"), "tokens[0]: max_unfinished_jobs"},
      {R"({"certificates":[{"name":"a","roles":["jobs"]}]})", "certificates[0]: subject"},
      {absl::StrCat(R"({"tokens":[{"name":"a","sha256":")", kAbc, R"(","roles":["jobs"]},{"name":"b","sha256":")",
                    absl::AsciiStrToUpper(kAbc), R"(","roles":["jobs"]}]})"),
       "its token is there twice"},
  };
  for (const auto& wrong : cases) {
    const absl::Status status = ParseAccessRules(wrong.json).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << wrong.json;
    EXPECT_THAT(std::string(status.message()), HasSubstr(wrong.said)) << wrong.json;
  }
}

// Somebody may write the token where its hash belongs.
TEST(AccessRulesTest, ErrorsDoNotQuoteHashes) {
  const auto status = ParseAccessRules(R"({"tokens":[{"name":"a","sha256":"boss_secret","roles":["jobs"]}]})").status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("sha256"));
  EXPECT_THAT(std::string(status.message()), ::testing::Not(HasSubstr("boss_secret")));
}

TEST(AccessRulesTest, TooManyEntriesAreRefused) {
  std::string json = R"({"certificates":[)";
  for (size_t i = 0; i <= kMaxAccessRules; ++i) {
    absl::StrAppend(&json, i == 0 ? "" : ",", R"({"name":"a","subject":"s)", i, R"(","roles":["jobs"]})");
  }
  EXPECT_THAT(std::string(ParseAccessRules(json + "]}").status().message()), HasSubstr("at most 4096"));
}

}  // namespace
}  // namespace boss::server
