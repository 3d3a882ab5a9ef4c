#include "server/rpc/paging.h"

#include <gtest/gtest.h>

#include "core/base/error_details.h"

namespace boss::server {
namespace {

TEST(PagingTest, TokensGiveTheirKeyBack) {
  EXPECT_EQ(*ParsePageToken("", "q"), "");
  EXPECT_EQ(*ParsePageToken(MakePageToken("q", "some key"), "q"), "some key");
}

TEST(PagingTest, TokensOfOtherQueriesAndGarbageAreRefused) {
  for (const std::string& token : {MakePageToken("other", "key"), std::string("!"), std::string("AAAA")}) {
    const auto key = ParsePageToken(token, "q");
    EXPECT_TRUE(absl::IsInvalidArgument(key.status())) << token;
    EXPECT_EQ(FieldOf(key.status()), "page_token");
  }
}

TEST(PagingTest, SizesHaveADefaultAndALimit) {
  EXPECT_EQ(*PageSize(0), 50);
  EXPECT_EQ(*PageSize(1000), 1000);
  EXPECT_EQ(FieldOf(PageSize(1001).status()), "page_size");
  EXPECT_EQ(FieldOf(PageSize(-1).status()), "page_size");
}

}  // namespace
}  // namespace boss::server
