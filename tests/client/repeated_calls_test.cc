// Calls that may have come through although the client heard of none, and what goes along with every call.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "client/boss_client.h"
#include "tests/client/fake_server.h"

namespace boss::client {
namespace {

const grpc::Status kUnavailable(grpc::StatusCode::UNAVAILABLE, "going down");
const grpc::Status kNotFound(grpc::StatusCode::NOT_FOUND, "there is none");

class RepeatedCallsTest : public ::testing::Test {
 protected:
  FakeServer server_;
  Client client_{server_.client_options()};
};

TEST_F(RepeatedCallsTest, AMergeIsNotTriedAgain) {
  server_.models.merge_status = kUnavailable;
  EXPECT_TRUE(absl::IsUnavailable(client_.MergeAdapter({}).status()));
  EXPECT_EQ(server_.models.merges, 1);
  EXPECT_TRUE(server_.waits.empty());
}

TEST_F(RepeatedCallsTest, WhatARepeatedDeletionDoesNotFindIsDeleted) {
  struct Deletion {
    std::vector<grpc::Status>& statuses;
    std::function<absl::Status()> run;
  };
  const Deletion deletions[] = {
      {server_.jobs.delete_statuses, [&] { return client_.DeleteJob("jobs/7"); }},
      {server_.models.delete_statuses, [&] { return client_.DeleteVersion({}); }},
      {server_.models.delete_statuses, [&] { return client_.DeleteSchedule({}); }},
  };
  for (const Deletion& deletion : deletions) {
    deletion.statuses = {kUnavailable, kNotFound};
    EXPECT_TRUE(deletion.run().ok());
    deletion.statuses = {kUnavailable};
    EXPECT_TRUE(deletion.run().ok());
    deletion.statuses = {kNotFound};
    EXPECT_TRUE(absl::IsNotFound(deletion.run()));
    EXPECT_TRUE(deletion.statuses.empty());
  }
}

TEST_F(RepeatedCallsTest, OnlyAWellFormedTraceIsSent) {
  const auto sent = [&](const std::string& trace_parent) {
    ClientOptions options = server_.client_options();
    options.trace_parent = trace_parent;
    EXPECT_TRUE(Client(options).GetJob("jobs/7").ok());
    return server_.jobs.trace_parent;
  };
  const std::string trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  EXPECT_EQ(sent(trace), trace);
  std::string with_break = trace, beyond_ascii = trace, with_capital = trace, with_other_dash = trace;
  with_break[54] = '\n';
  beyond_ascii[10] = '\xe4';
  with_capital[4] = 'A';
  with_other_dash[35] = '0';
  for (const std::string& text : {std::string(), std::string("\n"), std::string("trace"), trace + "0", trace + "-more",
                                  trace.substr(1), with_break, beyond_ascii, with_capital, with_other_dash}) {
    EXPECT_EQ(sent(text), "") << text;
  }
}

}  // namespace
}  // namespace boss::client
