#include "core/base/parse_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace boss {
namespace {

std::string Nested(int depth) { return std::string(depth, '[') + std::string(depth, ']'); }

absl::StatusCode CodeOf(const std::string& text) { return ParseJson(text).status().code(); }

TEST(ParseJsonTest, ReadsValues) {
  const absl::StatusOr<nlohmann::json> json = ParseJson(R"({"a":[1,-2.5,"[\"[",null]})");
  ASSERT_TRUE(json.ok()) << json.status();
  EXPECT_EQ((*json)["a"].size(), 4u);
  EXPECT_EQ((*json)["a"][2], "[\"[");
}

TEST(ParseJsonTest, RefusesWhatIsNoJson) {
  for (const char* text : {"", "{", "[1,]", "nul", "1 2", "\"a", "\"\\", "1e999", "\"\xff\"", "]"})
    EXPECT_EQ(CodeOf(text), absl::StatusCode::kInvalidArgument) << text;
}

TEST(ParseJsonTest, DepthIsBounded) {
  EXPECT_TRUE(ParseJson(Nested(kMaxJsonDepth)).ok());
  EXPECT_EQ(CodeOf(Nested(kMaxJsonDepth + 1)), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(Nested(1'000'000)), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ParseJson("[{}]", /*max_depth=*/1).status().message(), "JSON that is nested deeper than 1");
}

TEST(ParseJsonTest, BracketsInStringsAreNoDepth) {
  EXPECT_TRUE(ParseJson("\"" + std::string(1000, '[') + "\"").ok());
  EXPECT_TRUE(ParseJson("\"\\\\\"").ok());
  // The quote behind the backslash does not end the string.
  EXPECT_TRUE(ParseJson("\"\\\"" + std::string(1000, '{') + "\"").ok());
}

TEST(ParseJsonTest, ManyNeighboursAreNoDepth) {
  std::string text = "[0";
  for (int i = 0; i < 1000; ++i) text += ",[{}]";
  EXPECT_TRUE(ParseJson(text + "]").ok());
}

}  // namespace
}  // namespace boss
