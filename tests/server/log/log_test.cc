#include "server/log/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <string>

namespace boss::server {
namespace {

const CallId kCall = {.request_id = "r-1", .trace_id = std::string(32, 'a'), .span_id = ""};

nlohmann::json ParseFields(const std::string& fields) { return nlohmann::json::parse("{" + fields + "}"); }

TEST(LogTest, ValuesAreFields) {
  const std::initializer_list<LogField> fields = {{"name", "images@2"},
                                                  {"rows", 3},
                                                  {"seed", std::numeric_limits<uint64_t>::max()},
                                                  {"share", 0.25},
                                                  {"done", true},
                                                  {"wait", absl::Milliseconds(1500)},
                                                  {"error", absl::NotFoundError("no such model")}};
  EXPECT_EQ(FormatLogText("model loaded", fields, kCall),
            "model loaded name=images@2 rows=3 seed=18446744073709551615 share=0.25 done=true wait=1.5 "
            "error=\"NOT_FOUND: no such model\" request_id=r-1 trace_id=" +
                kCall.trace_id);
  EXPECT_EQ(ParseFields(FormatLogJson("model loaded", fields, kCall)),
            (nlohmann::json{{"message", "model loaded"},
                            {"name", "images@2"},
                            {"rows", 3},
                            {"seed", std::numeric_limits<uint64_t>::max()},
                            {"share", 0.25},
                            {"done", true},
                            {"wait", 1.5},
                            {"error", "NOT_FOUND: no such model"},
                            {"request_id", "r-1"},
                            {"trace_id", kCall.trace_id}}));
}

TEST(LogTest, NoValueMakesUpALineOrAField) {
  // A line break, two that Unicode knows, an escape sequence of terminals, quotes, and what is not UTF-8.
  const std::string hostile = "a\nb\r\xe2\x80\xa8\xc2\x85\x1b[2J\" level=error \\ \xff\x7f";
  const std::string text = FormatLogText("m", {{"value", hostile}, {"empty", ""}}, {});
  const std::string json = FormatLogJson("m", {{"value", hostile}}, {});
  for (const std::string& line : {text, json}) {
    for (const char c : line) EXPECT_TRUE(c >= ' ' && c < 0x7f) << static_cast<int>(c) << " in " << line;
  }
  EXPECT_EQ(text, R"(m value="a\nb\r\u2028\u0085\u001b[2J\" level=error \\ \ufffd\u007f")");
  EXPECT_EQ(ParseFields(json).at("value"), "a\nb\r\u2028\u0085\x1b[2J\" level=error \\ \ufffd\x7f");
}

TEST(LogTest, TheLevelCanBeChanged) {
  SetUpLog(LogFormat::kText, LogLevel::kWarn);
  EXPECT_FALSE(LogEnabled(LogLevel::kInfo));
  SetLogLevel(LogLevel::kDebug);
  EXPECT_TRUE(LogEnabled(LogLevel::kDebug));
  EXPECT_FALSE(LogEnabled(LogLevel::kTrace));
  SetLogLevel(LogLevel::kOff);
  EXPECT_FALSE(LogEnabled(LogLevel::kError));
  EXPECT_EQ(ParseLogLevel("warn"), LogLevel::kWarn);
  EXPECT_EQ(ParseLogLevel("loud"), std::nullopt);
}

TEST(LogTest, LinesAreWhatTheFormatSays) {
  for (const LogFormat format : {LogFormat::kText, LogFormat::kJson}) {
    SetUpLog(format, LogLevel::kInfo);
    ::testing::internal::CaptureStderr();
    LogError("cannot read", {{"path", "a b"}}, kCall);
    LogDebug("not written");
    const std::string line = ::testing::internal::GetCapturedStderr();
    if (format == LogFormat::kText) {
      EXPECT_THAT(line, ::testing::MatchesRegex("[-0-9]+T[:0-9]+\\.[0-9]+Z error cannot read path=\"a b\" "
                                                "request_id=r-1 trace_id=a+\n"));
    } else {
      const auto json = nlohmann::json::parse(line);
      EXPECT_EQ(json.at("level"), "error");
      EXPECT_EQ(json.at("message"), "cannot read");
      EXPECT_EQ(json.at("path"), "a b");
      EXPECT_THAT(json.at("time").get<std::string>(), ::testing::MatchesRegex("[-0-9]+T[:0-9]+\\.[0-9]+Z"));
    }
  }
}

}  // namespace
}  // namespace boss::server
