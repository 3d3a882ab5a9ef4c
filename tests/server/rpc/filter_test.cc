#include "server/rpc/filter.h"

#include <gtest/gtest.h>

#include "core/base/error_details.h"

namespace boss::server {
namespace {

std::vector<std::pair<std::string, std::string>> Terms(const std::string& text) {
  const auto terms = ParseFilter(text);
  EXPECT_TRUE(terms.ok()) << terms.status();
  std::vector<std::pair<std::string, std::string>> pairs;
  if (terms.ok()) {
    for (const FilterTerm& term : *terms) pairs.push_back({term.key, term.value});
  }
  return pairs;
}

using Pairs = std::vector<std::pair<std::string, std::string>>;

TEST(FilterTest, TermsAreJoinedByAnd) {
  EXPECT_EQ(Terms(""), Pairs());
  EXPECT_EQ(Terms("  "), Pairs());
  EXPECT_EQ(Terms("state = RUNNING"), (Pairs{{"state", "RUNNING"}}));
  EXPECT_EQ(Terms(R"(state=RUNNING AND labels.team = "vision AND \"x\"")"),
            (Pairs{{"state", "RUNNING"}, {"labels.team", "vision AND \"x\""}}));
  EXPECT_EQ(Terms("model = fashion-mnist@2"), (Pairs{{"model", "fashion-mnist@2"}}));
}

TEST(FilterTest, AnythingElseIsRefused) {
  for (const char* text : {"state", "state =", "= RUNNING", "state = A B", "state = A OR kind = B", "state = \"open",
                           "state = A AND", "state : A", "state = A kind = B"}) {
    const auto terms = ParseFilter(text);
    EXPECT_TRUE(absl::IsInvalidArgument(terms.status())) << text;
    EXPECT_EQ(FieldOf(terms.status()), "filter");
  }
}

}  // namespace
}  // namespace boss::server
