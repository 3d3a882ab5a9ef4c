#include "server/metrics/exposition.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <iterator>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "server/metrics/process_metrics.h"
#include "tests/support/open_metrics.h"
#include "tests/support/prometheus_text.h"

namespace boss::server {
namespace {

using boss::testing::OpenMetricsFamily;
using boss::testing::ParseOpenMetrics;
using boss::testing::ParsePrometheusText;
using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using ::testing::HasSubstr;

MetricFamily GaugeOf(const std::string& name, const std::string& label, double value) {
  ClientMetric metric;
  metric.gauge.value = value;
  if (!label.empty()) metric.label = {{"label", label}};
  return {.name = name, .help = "A gauge", .type = MetricType::Gauge, .metric = {metric}};
}

MetricFamily Waiting() {
  ClientMetric metric;
  metric.label = {{"kind", "a"}};
  metric.histogram = {.sample_count = 3,
                      .sample_sum = 2.75,
                      .bucket = {{1, 0.25}, {2, 1}, {3, std::numeric_limits<double>::infinity()}}};
  return {.name = "boss_wait_seconds", .help = "A histogram", .type = MetricType::Histogram, .metric = {metric}};
}

MetricFamily Counted() {
  ClientMetric metric;
  metric.counter.value = 12345678;
  return {.name = "boss_sent_bytes_total", .help = "A counter", .type = MetricType::Counter, .metric = {metric}};
}

TEST(ExpositionTest, PrometheusTextHasEveryKind) {
  const std::string text =
      WriteExposition({Counted(), Waiting(), GaugeOf("boss_build_info", "x", 1)}, MetricsFormat::kPrometheusText);
  EXPECT_EQ(text,
            "# HELP boss_sent_bytes_total A counter\n"
            "# TYPE boss_sent_bytes_total counter\n"
            "boss_sent_bytes_total 12345678\n"
            "# HELP boss_wait_seconds A histogram\n"
            "# TYPE boss_wait_seconds histogram\n"
            "boss_wait_seconds_bucket{kind=\"a\",le=\"0.25\"} 1\n"
            "boss_wait_seconds_bucket{kind=\"a\",le=\"1\"} 2\n"
            "boss_wait_seconds_bucket{kind=\"a\",le=\"+Inf\"} 3\n"
            "boss_wait_seconds_count{kind=\"a\"} 3\n"
            "boss_wait_seconds_sum{kind=\"a\"} 2.75\n"
            "# HELP boss_build_info A gauge\n"
            "# TYPE boss_build_info gauge\n"
            "boss_build_info{label=\"x\"} 1\n");
  EXPECT_TRUE(ParsePrometheusText(text).ok());
}

TEST(ExpositionTest, OpenMetricsNamesCountersUnitsAndInfoItsOwnWay) {
  const std::string text =
      WriteExposition({Counted(), Waiting(), GaugeOf("boss_build_info", "x", 1)}, MetricsFormat::kOpenMetrics);
  EXPECT_THAT(text, HasSubstr("# TYPE boss_sent_bytes counter\n# UNIT boss_sent_bytes bytes\nboss_sent_bytes_total "));
  EXPECT_THAT(text, HasSubstr("le=\"1.0\""));
  EXPECT_TRUE(text.ends_with("\n# EOF\n"));
  const auto families = ParseOpenMetrics(text);
  ASSERT_TRUE(families.ok()) << families.status();
  ASSERT_EQ(families->size(), 3u);
  const OpenMetricsFamily& sent = families->at("boss_sent_bytes");
  EXPECT_EQ(sent.type, "counter");
  EXPECT_EQ(sent.unit, "bytes");
  EXPECT_EQ(sent.help, "A counter");
  EXPECT_EQ(sent.samples.at(0).name, "boss_sent_bytes_total");
  EXPECT_EQ(sent.samples.at(0).value, 12345678);
  const OpenMetricsFamily& wait = families->at("boss_wait_seconds");
  EXPECT_EQ(wait.type, "histogram");
  EXPECT_EQ(wait.unit, "seconds");
  ASSERT_EQ(wait.samples.size(), 5u);
  EXPECT_EQ(wait.samples[2].labels.at("le"), "+Inf");
  EXPECT_EQ(wait.samples[4].value, 2.75);
  const OpenMetricsFamily& info = families->at("boss_build");
  EXPECT_EQ(info.type, "info");
  EXPECT_EQ(info.samples.at(0).labels.at("label"), "x");
}

TEST(ExpositionTest, AnotherReaderTakesNothingMalformed) {
  const std::string text = WriteExposition({Counted()}, MetricsFormat::kOpenMetrics);
  EXPECT_TRUE(ParseOpenMetrics(text).ok());
  EXPECT_FALSE(ParseOpenMetrics(text.substr(0, text.size() - 6)).ok());  // without its end
  EXPECT_FALSE(ParseOpenMetrics(WriteExposition({Counted()}, MetricsFormat::kPrometheusText)).ok());
}

// Whatever a label's value is, the page stays readable, and what is UTF-8 comes through unchanged.
TEST(ExpositionTest, ValuesOfLabelsAreEscapedAndBecomeUtf8) {
  const struct {
    std::string value, read;
  } cases[] = {
      {"a\"b\\c\nd", "a\"b\\c\nd"},
      {"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"},
      {"\xff", "\xef\xbf\xbd"},                                                  // never a character's byte
      {"a\xc3", "a\xef\xbf\xbd"},                                                // half a character
      {"\xc3(", "\xef\xbf\xbd("},                                                // the next is none of its bytes
      {"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},                                  // '/' in two bytes
      {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},                  // a surrogate
      {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},  // beyond U+10FFFF
      {"}{,= #", "}{,= #"},
  };
  std::vector<MetricFamily> families;
  for (size_t i = 0; i < std::size(cases); ++i) {
    families.push_back(GaugeOf("boss_gauge_" + std::to_string(i), cases[i].value, 1));
  }
  const std::string open = WriteExposition(families, MetricsFormat::kOpenMetrics);
  const auto parsed = ParseOpenMetrics(open);
  ASSERT_TRUE(parsed.ok()) << parsed.status() << "\n" << open;
  for (size_t i = 0; i < std::size(cases); ++i) {
    EXPECT_EQ(parsed->at("boss_gauge_" + std::to_string(i)).samples.at(0).labels.at("label"), cases[i].read) << i;
  }
  const auto text = ParsePrometheusText(WriteExposition(families, MetricsFormat::kPrometheusText));
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(text->samples.size(), std::size(cases));
  EXPECT_EQ(text->samples.count("boss_gauge_0{label=\"a\\\"b\\\\c\\nd\"}"), 1u);
}

TEST(ExpositionTest, NumbersComeBackAsTheyWere) {
  for (const double value : {0.0, -1.0, 0.1, 1.0 / 3, 1e-300, 1.7976931348623157e308, 9007199254740993.0, 1e21}) {
    const auto parsed = ParsePrometheusText(WriteExposition({GaugeOf("g", "", value)}, MetricsFormat::kPrometheusText));
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(parsed->samples.at("g"), value);
  }
  for (const auto& [value, text] : {std::make_pair(0.0001, "g 0.0001\n"), std::make_pair(1.7e9, "g 1700000000\n"),
                                    std::make_pair(-2.5, "g -2.5\n"), std::make_pair(1e300, "g 1e+300\n")}) {
    EXPECT_THAT(WriteExposition({GaugeOf("g", "", value)}, MetricsFormat::kPrometheusText), HasSubstr(text));
  }
  const std::vector<MetricFamily> odd = {GaugeOf("a", "", NAN), GaugeOf("b", "", INFINITY),
                                         GaugeOf("c", "", -INFINITY)};
  const std::string text = WriteExposition(odd, MetricsFormat::kPrometheusText);
  EXPECT_THAT(text, HasSubstr("\na NaN\n"));
  EXPECT_THAT(text, HasSubstr("\nb +Inf\n"));
  EXPECT_THAT(text, HasSubstr("\nc -Inf\n"));
}

TEST(ExpositionTest, AFamilyWithoutSeriesIsLeftOut) {
  const MetricFamily empty = {.name = "boss_empty", .help = "Nothing", .type = MetricType::Gauge};
  EXPECT_EQ(WriteExposition({empty}, MetricsFormat::kPrometheusText), "");
  EXPECT_EQ(WriteExposition({empty}, MetricsFormat::kOpenMetrics), "# EOF\n");
}

TEST(ExpositionTest, HelpIsEscaped) {
  MetricFamily family = GaugeOf("g", "", 1);
  family.help = "a \"b\" \\ \n c";
  EXPECT_THAT(WriteExposition({family}, MetricsFormat::kPrometheusText), HasSubstr("# HELP g a \"b\" \\\\ \\n c\n"));
  const auto parsed = ParseOpenMetrics(WriteExposition({family}, MetricsFormat::kOpenMetrics));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->at("g").help, family.help);
}

TEST(PreferredFormatTest, OpenMetricsOnlyWhereItIsNamedAndLikedNoLess) {
  using enum MetricsFormat;
  const struct {
    const char* accept;
    MetricsFormat format;
  } cases[] = {
      {"", kPrometheusText},
      {"*/*", kPrometheusText},
      {"text/plain", kPrometheusText},
      {"text/html,application/xhtml+xml,*/*;q=0.8", kPrometheusText},
      {"application/openmetrics-text", kOpenMetrics},
      {"application/openmetrics-text; version=1.0.0; charset=utf-8", kOpenMetrics},
      {"Application/OpenMetrics-Text ; Version=1.0.0", kOpenMetrics},
      {"application/openmetrics-text;version=0.0.1", kPrometheusText},
      {"application/openmetrics-text;q=0", kPrometheusText},
      {"application/openmetrics-text;q=much", kPrometheusText},
      {"application/openmetrics-text;q=0.3,text/plain;q=0.5", kPrometheusText},
      // Prometheus 2.42's.
      {"application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
       "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
       kOpenMetrics},
      {",;=;,q=1;;", kPrometheusText},
  };
  for (const auto& [accept, format] : cases) EXPECT_EQ(PreferredFormat(accept), format) << accept;
}

TEST(ProcessMetricsTest, TellsWhatTheKernelKnows) {
  std::map<std::string, double> values;
  for (const CollectedFamily& family : CollectProcess()) {
    ASSERT_EQ(family.series.size(), 1u) << family.name;
    EXPECT_EQ(family.kind == CollectedFamily::Kind::kCounter, family.name.ends_with("_total")) << family.name;
    EXPECT_NE(family.help, "");
    values[family.name] = family.series[0].value;
  }
  EXPECT_EQ(values.size(), 6u);
  EXPECT_GE(values.at("process_cpu_seconds_total"), 0);
  EXPECT_GT(values.at("process_resident_memory_bytes"), 1 << 20);
  EXPECT_GE(values.at("process_threads"), 1);
  EXPECT_GE(values.at("process_open_fds"), 3);
  EXPECT_GT(values.at("process_max_fds"), values.at("process_open_fds"));
  const double now = absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch());
  EXPECT_LT(values.at("process_start_time_seconds"), now + 1);
  EXPECT_GT(values.at("process_start_time_seconds"), now - 3600);
}

TEST(ProcessMetricsTest, AnOpenFileShows) {
  const auto open_files = [] {
    for (const CollectedFamily& family : CollectProcess()) {
      if (family.name == "process_open_fds") return family.series.at(0).value;
    }
    return -1.0;
  };
  const double before = open_files();
  const int fd = dup(0);
  EXPECT_EQ(open_files(), before + 1);
  close(fd);
  EXPECT_EQ(open_files(), before);
}

}  // namespace
}  // namespace boss::server
