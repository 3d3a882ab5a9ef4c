#include "server/log/call_id.h"

#include <gtest/gtest.h>

#include <string>

namespace boss::server {
namespace {

const std::string kTrace = "0af7651916cd43dd8448eb211c80319c", kSpan = "b7ad6b7169203331";

TEST(CallIdTest, RequestIdsAreShortAndOfSafeCharacters) {
  for (const std::string& good : {std::string("a"), std::string("7F1c-_.:"), std::string(64, 'x'), NewRequestId()}) {
    EXPECT_TRUE(IsRequestId(good)) << good;
  }
  for (const std::string& bad : {std::string(), std::string(65, 'x'), std::string("a b"), std::string("a\nb"),
                                 std::string("a=b"), std::string("\xc3\xa4"), std::string("a\0b", 3)}) {
    EXPECT_FALSE(IsRequestId(bad)) << bad;
  }
  EXPECT_EQ(NewRequestId().size(), 32u);
  EXPECT_NE(NewRequestId(), NewRequestId());
}

TEST(CallIdTest, ATraceParentIsTakenApart) {
  for (const std::string& good : {"00-" + kTrace + "-" + kSpan + "-01", "00-" + kTrace + "-" + kSpan + "-ff",
                                  "cc-" + kTrace + "-" + kSpan + "-00", "cc-" + kTrace + "-" + kSpan + "-00-more"}) {
    const auto parent = ParseTraceParent(good);
    ASSERT_TRUE(parent) << good;
    EXPECT_EQ(parent->trace_id, kTrace);
    EXPECT_EQ(parent->span_id, kSpan);
  }
}

TEST(CallIdTest, AMalformedTraceParentIsNone) {
  const std::string upper = "0AF7651916CD43DD8448EB211C80319C";
  for (const std::string& bad :
       {std::string(), "00-" + kTrace + "-" + kSpan, "00-" + kTrace + "-" + kSpan + "-1",
        "ff-" + kTrace + "-" + kSpan + "-01", "0x-" + kTrace + "-" + kSpan + "-01",
        "00-" + std::string(32, '0') + "-" + kSpan + "-01", "00-" + kTrace + "-" + std::string(16, '0') + "-01",
        "00-" + upper + "-" + kSpan + "-01", "00-" + kTrace + "-" + kSpan + "-01-more",
        "cc-" + kTrace + "-" + kSpan + "-01.more", "00_" + kTrace + "-" + kSpan + "-01",
        "00-" + kTrace + kSpan + "--01", "00-" + kTrace + "-" + kSpan + "-0g", " 00-" + kTrace + "-" + kSpan + "-0"}) {
    EXPECT_FALSE(ParseTraceParent(bad)) << bad;
  }
}

}  // namespace
}  // namespace boss::server
