#include "tests/support/prometheus_text.h"

#include <regex>
#include <set>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace boss::testing {
namespace {

// The family of a sample: histograms and summaries have several kinds of series.
std::string FamilyOf(const std::string& name, const std::map<std::string, std::string>& types) {
  for (const char* suffix : {"_bucket", "_sum", "_count"}) {
    if (!absl::EndsWith(name, suffix)) continue;
    const std::string family = name.substr(0, name.size() - std::string(suffix).size());
    const auto found = types.find(family);
    if (found != types.end() && (found->second == "histogram" || found->second == "summary")) return family;
  }
  return name;
}

}  // namespace

double PrometheusText::Sum(const std::string& name) const {
  double sum = 0;
  for (const auto& [series, value] : samples) {
    if (series == name || absl::StartsWith(series, name + "{")) sum += value;
  }
  return sum;
}

absl::StatusOr<PrometheusText> ParsePrometheusText(absl::string_view text) {
  static const std::regex kHelp(R"(# HELP ([a-zA-Z_:][a-zA-Z0-9_:]*) .+)");
  static const std::regex kType(R"(# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge|histogram|summary|untyped))");
  static const std::regex kSample(
      R"re(([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\]|\\.)*",?)*\})? (\S+)( -?\d+)?)re");
  PrometheusText parsed;
  std::set<std::string> helped;
  for (const absl::string_view line_view : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const std::string line(line_view);
    std::smatch match;
    if (std::regex_match(line, match, kHelp)) {
      helped.insert(match[1]);
    } else if (std::regex_match(line, match, kType)) {
      if (!parsed.types.emplace(match[1], match[2]).second) return absl::InvalidArgumentError("twice: " + line);
    } else if (std::regex_match(line, match, kSample)) {
      const std::string family = FamilyOf(match[1], parsed.types);
      double value = 0;
      if (!helped.contains(family) || !parsed.types.contains(family))
        return absl::InvalidArgumentError("without HELP or TYPE: " + line);
      if (!absl::SimpleAtod(match[3].str(), &value)) return absl::InvalidArgumentError("no number: " + line);
      if (!parsed.samples.emplace(absl::StrCat(match[1].str(), match[2].str()), value).second) {
        return absl::InvalidArgumentError("twice: " + line);
      }
    } else {
      return absl::InvalidArgumentError("malformed: " + line);
    }
  }
  return parsed;
}

}  // namespace boss::testing
