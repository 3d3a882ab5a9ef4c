#include "client/credentials.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "client/boss_client.h"
#include "client/cli/bossctl.h"
#include "client/sha256.h"
#include "tests/support/certificates.h"
#include "tests/support/temp_folder.h"

namespace boss::client {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string Refusal(const Credentials& credentials, const std::string& address = "127.0.0.1:1") {
  const absl::Status status = ResolveCredentials(credentials, address).status();
  return status.ok() ? "" : status.ToString();
}

TEST(CredentialsTest, KnowsThisMachine) {
  for (const char* target : {"127.0.0.1:50051", "127.1.2.3:1", "localhost:50051", "[::1]:1", "unix:/run/boss.sock",
                             "dns:///localhost:1", "ipv4:127.0.0.1:1"}) {
    EXPECT_TRUE(IsLoopbackTarget(target)) << target;
  }
  for (const char* target : {"example.com:50051", "10.0.0.1:1", "localhost.example.com:1", "[::]:1", "dns:///a:1",
                             "ipv4:127.0.0.1:1,10.0.0.1:1", "127.0.0.1.example.com:1", ""}) {
    EXPECT_FALSE(IsLoopbackTarget(target)) << target;
  }
}

TEST(CredentialsTest, ATokenDoesNotTravelInTheClear) {
  Credentials credentials = {.token = "secret-token"};
  EXPECT_EQ(Refusal(credentials), "");
  EXPECT_THAT(Refusal(credentials, "example.com:50051"), HasSubstr("in the clear to example.com:50051"));
  EXPECT_THAT(Refusal(credentials, "example.com:50051"), Not(HasSubstr("secret-token")));
  EXPECT_FALSE(Client::Connect({.address = "example.com:50051"}, credentials).ok());
  credentials.allow_insecure_token = true;
  EXPECT_EQ(Refusal(credentials, "example.com:50051"), "");
  credentials = {.tls = true, .token = "secret-token"};
  EXPECT_EQ(Refusal(credentials, "example.com:50051"), "");
}

TEST(CredentialsTest, WhatDoesNotGoTogetherIsRefused) {
  const boss::testing::TempFolder folder;
  boss::testing::WriteFile(folder / "token", "  file-token\n");
  boss::testing::WriteFile(folder / "two", "one two\n");
  boss::testing::WriteFile(folder / "empty", "\n");
  EXPECT_THAT(Refusal({.certificate_file = folder / "token"}), HasSubstr("need each other"));
  EXPECT_THAT(Refusal({.key_file = folder / "token"}), HasSubstr("need each other"));
  EXPECT_THAT(Refusal({.ca_file = folder / "nowhere"}), HasSubstr("nowhere"));
  EXPECT_THAT(Refusal({.ca_file = folder / "token"}), HasSubstr("is not PEM"));
  EXPECT_THAT(Refusal({.token = "a", .token_file = folder / "token"}), HasSubstr("exclude each other"));
  EXPECT_THAT(Refusal({.token = "a b"}), HasSubstr("printable"));
  EXPECT_THAT(Refusal({.token_file = folder / "nowhere"}), HasSubstr("nowhere"));
  EXPECT_THAT(Refusal({.ca_file = folder.path()}), HasSubstr("cannot read " + folder.path()));
  EXPECT_THAT(Refusal({.certificate_file = folder.path(), .key_file = folder.path()}), HasSubstr("cannot read"));
  EXPECT_THAT(Refusal({.token_file = folder.path()}), HasSubstr("cannot read " + folder.path()));
  EXPECT_THAT(Refusal({.token_file = folder / "two"}), HasSubstr("expected one token"));
  EXPECT_THAT(Refusal({.token_file = folder / "empty"}), HasSubstr("expected one token"));
  const auto security = ResolveCredentials({.token_file = folder / "token"}, "127.0.0.1:1");
  ASSERT_TRUE(security.ok()) << security.status();
  EXPECT_EQ(security->token, "file-token");
}

int Bossctl(const std::vector<std::string>& arguments, std::string& output) {
  std::ostringstream out, err;
  const int code = RunBossctl(arguments, Console{out, err}, [](Client*) {});
  output = out.str() + err.str();
  return code;
}

TEST(TokensCommandTest, MakesATokenAndAnEntryThatFits) {
  std::string first, second;
  ASSERT_EQ(
      Bossctl({"tokens", "new", "--json", "--name", "team.1", "--role", "jobs", "--requests-per-second", "2.5"}, first),
      kExitOk)
      << first;
  ASSERT_EQ(Bossctl({"tokens", "new", "--json", "--name", "team.1", "--role", "jobs"}, second), kExitOk);
  const auto made = nlohmann::json::parse(first);
  const auto token = made.at("token").get<std::string>();
  EXPECT_NE(token, nlohmann::json::parse(second).at("token"));
  EXPECT_EQ(token.substr(0, 5), "boss_");
  EXPECT_EQ(token.size(), 5u + 43);  // 256 bits, 6 a character
  Sha256 hash;
  hash.Update(token);
  EXPECT_EQ(made.at("entry"),
            (nlohmann::json{
                {"name", "team.1"}, {"sha256", hash.HexDigest()}, {"roles", {"jobs"}}, {"requests_per_second", 2.5}}));
  ASSERT_EQ(Bossctl({"tokens", "new", "--name", "a", "--role", "admin"}, first), kExitOk);
  EXPECT_THAT(first, HasSubstr("\"roles\":[\"admin\"]"));
}

TEST(TokensCommandTest, RefusesNamesAndRolesThatAServerWould) {
  std::string output;
  EXPECT_EQ(Bossctl({"tokens", "new", "--name", "a b", "--role", "jobs"}, output), kExitUsage);
  EXPECT_EQ(Bossctl({"tokens", "new", "--name", "a", "--role", "root"}, output), kExitUsage);
  EXPECT_EQ(Bossctl({"tokens", "new", "--role", "jobs"}, output), kExitUsage);
  EXPECT_EQ(Bossctl({"tokens", "new", "--name", "a"}, output), kExitUsage);
  EXPECT_EQ(Bossctl({"tokens"}, output), kExitUsage);
  const std::vector<std::string> token = {"tokens", "new", "--name=a", "--role=jobs"};
  const auto with = [&](std::vector<std::string> limits) {
    limits.insert(limits.begin(), token.begin(), token.end());
    return Bossctl(limits, output);
  };
  EXPECT_EQ(with({"--burst=4"}), kExitUsage);
  EXPECT_THAT(output, HasSubstr("--requests-per-second"));
  for (const char* burst : {"--burst=0.5", "--burst=0", "--burst=nan", "--burst=many"}) {
    EXPECT_EQ(with({"--requests-per-second=2", burst}), kExitUsage) << burst;
    EXPECT_THAT(output, HasSubstr("at least 1")) << burst;
  }
  EXPECT_EQ(with({"--requests-per-second=0.5", "--burst=1"}), kExitOk) << output;
}

}  // namespace
}  // namespace boss::client
