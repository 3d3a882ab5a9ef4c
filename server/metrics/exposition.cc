#include "server/metrics/exposition.h"

#include <charconv>
#include <cmath>
#include <cstdint>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace boss::server {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

constexpr absl::string_view kTotal = "_total", kInfo = "_info";
// OpenMetrics wants a family's name to end in its unit.
constexpr absl::string_view kUnits[] = {"seconds", "bytes", "ratio", "joules", "celsius", "watts", "hertz"};

constexpr absl::string_view kReplacement = "\xef\xbf\xbd";  // U+FFFD

// The shortest text that gives the same number again; as people write it where it is of a common size.
std::string Number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  const double size = std::abs(value);
  const bool is_plain = size == 0 || (size >= 1e-5 && size < 1e15);
  const auto format = is_plain ? std::chars_format::fixed : std::chars_format::general;
  char buffer[32];
  return std::string(buffer, std::to_chars(buffer, buffer + sizeof buffer, value, format).ptr);
}

// Length of the UTF-8 character at the beginning; 0 if there is none.
size_t CharacterLength(absl::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t first = byte(0);
  if (first < 0x80) return 1;
  const size_t length = first >= 0xc2 && first < 0xe0   ? 2
                        : first >= 0xe0 && first < 0xf0 ? 3
                        : first >= 0xf0 && first < 0xf5 ? 4
                                                        : 0;
  if (length == 0 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  // Longer than need be, a surrogate, or beyond the last character.
  const bool is_wrong = (first == 0xe0 && byte(1) < 0xa0) || (first == 0xed && byte(1) >= 0xa0) ||
                        (first == 0xf0 && byte(1) < 0x90) || (first == 0xf4 && byte(1) >= 0x90);
  return is_wrong ? 0 : length;
}

std::string Escaped(absl::string_view text, bool quotes) {
  std::string escaped;
  while (!text.empty()) {
    const size_t length = CharacterLength(text);
    const absl::string_view character = text.substr(0, length);
    if (length == 0) {
      absl::StrAppend(&escaped, kReplacement);
    } else if (character == "\\") {
      absl::StrAppend(&escaped, "\\\\");
    } else if (character == "\n") {
      absl::StrAppend(&escaped, "\\n");
    } else if (character == "\"" && quotes) {
      absl::StrAppend(&escaped, "\\\"");
    } else {
      absl::StrAppend(&escaped, character);
    }
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return escaped;
}

class Writer {
 public:
  explicit Writer(MetricsFormat format) : is_open_(format == MetricsFormat::kOpenMetrics) {}

  void Add(const MetricFamily& family) {
    if (family.metric.empty()) return;
    const bool is_info = is_open_ && family.type == MetricType::Gauge && absl::EndsWith(family.name, kInfo);
    absl::string_view name = family.name;
    if (is_open_ && family.type == MetricType::Counter) name = absl::StripSuffix(name, kTotal);
    if (is_info) name = absl::StripSuffix(name, kInfo);
    absl::StrAppend(&text_, "# HELP ", name, " ", Escaped(family.help, /*quotes=*/is_open_), "\n");
    absl::StrAppend(&text_, "# TYPE ", name, " ", is_info ? "info" : TypeName(family.type), "\n");
    for (const absl::string_view unit : kUnits) {
      if (is_open_ && absl::EndsWith(name, absl::StrCat("_", unit)))
        absl::StrAppend(&text_, "# UNIT ", name, " ", unit, "\n");
    }
    for (const ClientMetric& metric : family.metric) AddMetric(family, metric);
  }

  std::string Finish() && {
    if (is_open_) absl::StrAppend(&text_, "# EOF\n");
    return std::move(text_);
  }

 private:
  // The kinds that Metrics has.
  static absl::string_view TypeName(MetricType type) {
    return type == MetricType::Counter ? "counter" : type == MetricType::Histogram ? "histogram" : "gauge";
  }

  void AddMetric(const MetricFamily& family, const ClientMetric& metric) {
    if (family.type != MetricType::Histogram) {
      const double value = family.type == MetricType::Counter ? metric.counter.value : metric.gauge.value;
      return AddSample(family.name, metric, "", Number(value));
    }
    const ClientMetric::Histogram& histogram = metric.histogram;
    for (const ClientMetric::Bucket& bucket : histogram.bucket) {
      AddSample(absl::StrCat(family.name, "_bucket"), metric, Bound(bucket.upper_bound),
                absl::StrCat(bucket.cumulative_count));
    }
    AddSample(absl::StrCat(family.name, "_count"), metric, "", absl::StrCat(histogram.sample_count));
    AddSample(absl::StrCat(family.name, "_sum"), metric, "", Number(histogram.sample_sum));
  }

  // OpenMetrics writes bounds as floating-point numbers.
  std::string Bound(double bound) const {
    std::string text = Number(bound);
    const bool is_whole = text.find_first_not_of("0123456789") == std::string::npos;
    if (is_open_ && is_whole) absl::StrAppend(&text, ".0");
    return text;
  }

  void AddSample(absl::string_view name, const ClientMetric& metric, absl::string_view bound, absl::string_view value) {
    absl::StrAppend(&text_, name);
    const char* separator = "{";
    const auto add_label = [&](absl::string_view label, absl::string_view label_value) {
      absl::StrAppend(&text_, separator, label, "=\"", Escaped(label_value, /*quotes=*/true), "\"");
      separator = ",";
    };
    for (const ClientMetric::Label& label : metric.label) add_label(label.name, label.value);
    if (!bound.empty()) add_label("le", bound);
    absl::StrAppend(&text_, *separator == ',' ? "} " : " ", value, "\n");
  }

  const bool is_open_;
  std::string text_;
};

// A media range's quality for one format; 0 if it is another one's.
struct MediaRange {
  std::string type;
  std::string version;  // empty: any
  double quality = 1;
};

MediaRange ParseMediaRange(absl::string_view text) {
  MediaRange range;
  const std::vector<absl::string_view> parts = absl::StrSplit(text, ';');
  range.type = absl::AsciiStrToLower(absl::StripAsciiWhitespace(parts.front()));
  for (size_t i = 1; i < parts.size(); ++i) {
    const std::pair<absl::string_view, absl::string_view> parameter = absl::StrSplit(parts[i], absl::MaxSplits('=', 1));
    const std::string name = absl::AsciiStrToLower(absl::StripAsciiWhitespace(parameter.first));
    const absl::string_view value = absl::StripAsciiWhitespace(parameter.second);
    if (name == "version") range.version = std::string(value);
    // What is no number prefers nothing.
    if (name == "q" && !absl::SimpleAtod(value, &range.quality)) range.quality = 0;
  }
  return range;
}

}  // namespace

std::string WriteExposition(const std::vector<MetricFamily>& families, MetricsFormat format) {
  Writer writer(format);
  for (const MetricFamily& family : families) writer.Add(family);
  return std::move(writer).Finish();
}

MetricsFormat PreferredFormat(std::string_view accept) {
  double open_metrics = 0, text = 0;
  for (const absl::string_view part : absl::StrSplit(absl::string_view(accept.data(), accept.size()), ',')) {
    const MediaRange range = ParseMediaRange(part);
    if (range.type == "application/openmetrics-text" && (range.version.empty() || range.version == "1.0.0")) {
      open_metrics = std::max(open_metrics, range.quality);
    } else if (range.type == "text/plain") {
      text = std::max(text, range.quality);
    }
  }
  return open_metrics > 0 && open_metrics >= text ? MetricsFormat::kOpenMetrics : MetricsFormat::kPrometheusText;
}

std::string_view ContentType(MetricsFormat format) {
  return format == MetricsFormat::kOpenMetrics ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
                                               : "text/plain; version=0.0.4; charset=utf-8";
}

}  // namespace boss::server
