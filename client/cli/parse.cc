#include "client/cli/parse.h"

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace boss::client {
namespace {

constexpr int64_t kMaxIntegers = 1 << 20;

absl::Status BadValue(absl::string_view text, absl::string_view expected) {
  return absl::InvalidArgumentError(absl::StrCat("got '", text, "', expected ", expected));
}

}  // namespace

absl::StatusOr<ScheduleArgument> ParseSchedule(absl::string_view text) {
  constexpr char kExpected[] = "auto, bellman, uniform, or increasing times from 0 to 1 such as 0,0.25,0.6,1";
  if (text == "auto") return ScheduleArgument{boss::v1::SCHEDULE_KIND_UNSPECIFIED, {}};
  if (text == "bellman") return ScheduleArgument{boss::v1::SCHEDULE_KIND_BELLMAN, {}};
  if (text == "uniform") return ScheduleArgument{boss::v1::SCHEDULE_KIND_UNIFORM, {}};
  ScheduleArgument schedule{boss::v1::SCHEDULE_KIND_EXPLICIT, {}};
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    double time;
    if (!absl::SimpleAtod(part, &time)) return BadValue(text, kExpected);
    // Negated, so that NaN is refused too.
    if (!schedule.time_grid.empty() && !(time > schedule.time_grid.back())) return BadValue(text, kExpected);
    schedule.time_grid.push_back(time);
  }
  if (schedule.time_grid.size() < 2 || schedule.time_grid.front() != 0 || schedule.time_grid.back() != 1) {
    return BadValue(text, kExpected);
  }
  return schedule;
}

absl::StatusOr<boss::v1::Solver> ParseSolver(absl::string_view text) {
  boss::v1::Solver solver;
  if (text.empty() || !boss::v1::Solver_Parse(absl::StrCat("SOLVER_", absl::AsciiStrToUpper(text)), &solver)) {
    return BadValue(text, "euler, heun, rk45 or multistep");
  }
  return solver;
}

absl::StatusOr<std::vector<boss::v1::Solver>> ParseSolvers(absl::string_view text) {
  std::vector<boss::v1::Solver> solvers;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    const auto solver = ParseSolver(part);
    if (!solver.ok()) return solver.status();
    solvers.push_back(*solver);
  }
  return solvers;
}

absl::StatusOr<boss::v1::OutputFormat> ParseOutputFormat(absl::string_view text) {
  if (text == "auto") return boss::v1::OUTPUT_FORMAT_UNSPECIFIED;
  boss::v1::OutputFormat format;
  if (!boss::v1::OutputFormat_Parse(absl::StrCat("OUTPUT_FORMAT_", absl::AsciiStrToUpper(text)), &format)) {
    return BadValue(text, "auto, png, uint8, float32 or latents");
  }
  return format;
}

absl::StatusOr<std::vector<int64_t>> ParseIntegers(absl::string_view text) {
  constexpr char kExpected[] = "integers and ranges such as 0-3,7";
  std::vector<int64_t> values;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    int64_t first, last;
    if (absl::SimpleAtoi(part, &first)) {
      values.push_back(first);
      continue;
    }
    const size_t dash = part.find('-', 1);
    if (dash == absl::string_view::npos || !absl::SimpleAtoi(part.substr(0, dash), &first) ||
        !absl::SimpleAtoi(part.substr(dash + 1), &last) || last < first || last - first >= kMaxIntegers) {
      return BadValue(text, kExpected);
    }
    for (int64_t value = first; value <= last; ++value) values.push_back(value);
  }
  return values;
}

absl::StatusOr<std::pair<std::string, std::string>> ParseKeyValue(absl::string_view text) {
  const size_t equals = text.find('=');
  if (equals == absl::string_view::npos || equals == 0) return BadValue(text, "KEY=VALUE");
  return std::pair<std::string, std::string>(text.substr(0, equals), text.substr(equals + 1));
}

}  // namespace boss::client
