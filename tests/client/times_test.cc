#include "client/cli/times.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <string>
#include <vector>

#include "tests/support/temp_folder.h"

namespace boss::client {
namespace {

using ::testing::HasSubstr;

class TimesTest : public ::testing::Test {
 protected:
  std::string File(const std::string& contents) {
    const std::string path = folder_ / "times";
    std::ofstream(path) << contents;
    return path;
  }

  boss::testing::TempFolder folder_;
};

template <typename Parse>
void ExpectRefused(Parse parse, const std::string& text, const std::string& part) {
  const auto parsed = parse(text);
  EXPECT_TRUE(absl::IsInvalidArgument(parsed.status())) << text << ": " << parsed.status();
  EXPECT_THAT(std::string(parsed.status().message()), HasSubstr(part)) << text;
}

TEST_F(TimesTest, TimesAreAListOrAFile) {
  const std::vector<double> expected = {0, 0.25, 0.5, 1};
  for (const char* text : {"0,0.25,0.5,1", "0, 0.25; 0.5 1", "[0, 0.25, 5e-1, 1.0]", "0,0.25,0.5"}) {
    const auto times = ParseTimes(text);
    ASSERT_TRUE(times.ok()) << times.status();
    EXPECT_EQ(*times, expected) << text;
  }
  EXPECT_EQ(*ParseTimes(File("0\n0.25\n0.5\n1\n")), expected);
  EXPECT_EQ(*ParseTimes(File(R"({"model": "flow@1", "t": [0, 0.25, 0.5, 1]})")), expected);
  EXPECT_EQ(ParseTimes(folder_ / "nothing").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(TimesTest, WrongTimesAreRefused) {
  ExpectRefused(ParseTimes, "0,0.5,0.4,1", "got 0.4 after 0.5");
  ExpectRefused(ParseTimes, "0,0.5,0.5,1", "rising");
  ExpectRefused(ParseTimes, "0.1,0.5,1", "from 0 to 1");
  ExpectRefused(ParseTimes, "0,0.5,1.5", "from 0 to 1");
  ExpectRefused(ParseTimes, "", "from 0 to 1");
  ExpectRefused(ParseTimes, "0,0.5.5,1", "got '0.5.5'");
  ExpectRefused(ParseTimes, File("0 half 1"), "got 'half'");
  ExpectRefused(ParseTimes, File(R"({"t": [0, "x", 1]})"), "numbers under \"t\"");
}

TEST_F(TimesTest, SigmasFallFromNoiseToData) {
  EXPECT_EQ(*ParseSigmas("1,0.75,0.25,0"), (std::vector<double>{0, 0.25, 0.75, 1}));
  EXPECT_EQ(*ParseSigmas("1,0.75,0.25"), (std::vector<double>{0, 0.25, 0.75, 1}));  // without the last
  EXPECT_EQ(*ParseSigmas(File("1.0, 0.5\n")), (std::vector<double>{0, 0.5, 1}));
  ExpectRefused(ParseSigmas, "0,0.5,1", "from 1 (noise) to 0 (data)");
  ExpectRefused(ParseSigmas, "14.6,3,0", "sigma = 1 - t");
  ExpectRefused(ParseSigmas, "1,0.5,0.5,0", "got 0.5 after 0.5");
  ExpectRefused(ParseSigmas, "1,0.5,0.7,0", "falling");
  ExpectRefused(ParseSigmas, "1,1e-300,0", "rising");  // the time is 1 already
}

TEST_F(TimesTest, EdmGridsAreSigmasOverOnePlusSigma) {
  const std::vector<double> times = *ParseFineGrid("edm:7", 18);
  ASSERT_EQ(times.size(), 19u);
  EXPECT_EQ(times.front(), 0);
  EXPECT_EQ(times.back(), 1);
  EXPECT_TRUE(std::is_sorted(times.begin(), times.end()));
  // sigma = (1 - t) / t: the first after the largest, and the smallest.
  const double second = std::pow(std::pow(80, 1 / 7.0) + (std::pow(0.002, 1 / 7.0) - std::pow(80, 1 / 7.0)) / 17, 7);
  EXPECT_NEAR((1 - times[1]) / times[1], second, 1e-9 * second);
  EXPECT_NEAR((1 - times[17]) / times[17], 0.002, 1e-12);
  const std::vector<double> narrow = *ParseFineGrid("edm:1,0.5,3.5", 4);
  EXPECT_NEAR(narrow[1], 1 / 3.5, 1e-12);
  EXPECT_NEAR(narrow[2], 1 / 2.5, 1e-12);
  EXPECT_NEAR(narrow[3], 1 / 1.5, 1e-12);
  EXPECT_EQ(ParseFineGrid("edm:7", 0)->size(), 101u);  // as many as --k-max has by default
  for (const char* wrong : {"edm:", "edm:0", "edm:-7", "edm:7,1", "edm:7,80,0.002", "edm:7,0,80"})
    ExpectRefused([](const std::string& text) { return ParseFineGrid(text, 10); }, wrong, "expected edm:RHO");
}

TEST_F(TimesTest, FineGridsMustHaveKMaxIntervals) {
  EXPECT_EQ(ParseFineGrid("uniform", 7)->size(), 0u);
  EXPECT_EQ(*ParseFineGrid("0,0.5,1", 0), (std::vector<double>{0, 0.5, 1}));
  EXPECT_EQ(*ParseFineGrid(File("0 0.5 1"), 2), (std::vector<double>{0, 0.5, 1}));
  ExpectRefused([](const std::string& text) { return ParseFineGrid(text, 3); }, "0,0.5,1", "expected 4 for --k-max 3");
}

}  // namespace
}  // namespace boss::client
