#include "client/format.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"

namespace boss::client {
namespace {

std::string EnumWords(absl::string_view name, absl::string_view prefix) {
  absl::ConsumePrefix(&name, prefix);
  return absl::AsciiStrToLower(name);
}

}  // namespace

std::string FormatBytes(int64_t bytes) {
  static constexpr const char* kUnits[] = {"KiB", "MiB", "GiB", "TiB"};
  if (bytes < 1024) return absl::StrCat(bytes, " B");
  double value = static_cast<double>(bytes) / 1024;
  int unit = 0;
  while (value >= 1023.95 && unit < 3) value /= 1024, ++unit;
  return absl::StrFormat("%.1f %s", value, kUnits[unit]);
}

std::string FormatCount(int64_t count) {
  std::string digits = absl::StrCat(count);
  for (int at = static_cast<int>(digits.size()) - 3; at > (count < 0 ? 1 : 0); at -= 3) digits.insert(at, ",");
  return digits;
}

std::string FormatReal(double value) { return absl::StrFormat("%.4g", value); }

std::string FormatElapsed(absl::Duration duration) {
  const double seconds = absl::ToDoubleSeconds(duration);
  if (seconds < 0.9995) return absl::StrFormat("%.0f ms", seconds * 1000);
  if (seconds < 9.995) return absl::StrFormat("%.2f s", seconds);
  if (seconds < 59.95) return absl::StrFormat("%.1f s", seconds);
  const int64_t whole = std::llround(seconds);
  if (whole < 3600) return absl::StrFormat("%dm %02ds", whole / 60, whole % 60);
  if (whole < 86400) return absl::StrFormat("%dh %02dm", whole / 3600, whole / 60 % 60);
  return absl::StrFormat("%dd %02dh", whole / 86400, whole / 3600 % 24);
}

absl::Duration ToDuration(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

absl::Time ToTime(const google::protobuf::Timestamp& timestamp) {
  return absl::FromUnixSeconds(timestamp.seconds()) + absl::Nanoseconds(timestamp.nanos());
}

void SetDuration(absl::Duration duration, google::protobuf::Duration* message) {
  message->set_seconds(absl::IDivDuration(duration, absl::Seconds(1), &duration));
  message->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(duration)));
}

void SetTime(absl::Time time, google::protobuf::Timestamp* message) {
  const int64_t seconds = absl::ToUnixSeconds(time);
  message->set_seconds(seconds);
  message->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(time - absl::FromUnixSeconds(seconds))));
}

std::string FormatTime(const google::protobuf::Timestamp& timestamp) {
  if (timestamp.seconds() == 0) return "-";
  return absl::FormatTime("%Y-%m-%d %H:%M:%S", ToTime(timestamp), absl::LocalTimeZone());
}

std::string FormatLabels(const google::protobuf::Map<std::string, std::string>& labels) {
  if (labels.empty()) return "-";
  const std::map<std::string, std::string> sorted(labels.begin(), labels.end());
  return absl::StrJoin(sorted, ", ", absl::PairFormatter("="));
}

std::string SolverName(boss::v1::Solver solver) { return EnumWords(boss::v1::Solver_Name(solver), "SOLVER_"); }

std::string ScheduleName(boss::v1::ScheduleKind kind) {
  return EnumWords(boss::v1::ScheduleKind_Name(kind), "SCHEDULE_KIND_");
}

std::string StageName(boss::v1::JobStage stage) {
  return absl::StrReplaceAll(EnumWords(boss::v1::JobStage_Name(stage), "JOB_STAGE_"), {{"_", " "}});
}

std::string KindName(boss::v1::Job::Kind kind) {
  return absl::StrReplaceAll(EnumWords(boss::v1::Job::Kind_Name(kind), ""), {{"_", "-"}});
}

bool IsFinal(boss::v1::Job::State state) {
  return state == boss::v1::Job::SUCCEEDED || state == boss::v1::Job::FAILED || state == boss::v1::Job::CANCELLED;
}

std::string Table::Render() const {
  std::vector<size_t> widths;
  for (const Column& column : columns_) widths.push_back(column.title.size());
  for (const auto& row : rows_) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  const auto add = [&](size_t i, const std::string& cell, std::string& line) {
    const std::string padding(widths[i] - cell.size(), ' ');
    absl::StrAppend(&line, i == 0 ? "" : "  ", columns_[i].right ? padding : "", cell,
                    columns_[i].right ? "" : padding);
  };
  const auto finish = [&](std::string line) {
    absl::StripTrailingAsciiWhitespace(&line);
    absl::StrAppend(&text, line, "\n");
  };
  std::string header;
  for (size_t i = 0; i < columns_.size(); ++i) add(i, columns_[i].title, header);
  finish(std::move(header));
  for (const auto& row : rows_) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) add(i, row[i], line);
    finish(std::move(line));
  }
  return text;
}

void Facts::Add(std::string name, std::string value) {
  if (!value.empty()) facts_.emplace_back(std::move(name), std::move(value));
}

std::string Facts::Render() const {
  size_t width = 0;
  for (const auto& [name, value] : facts_) width = std::max(width, name.size());
  std::string text;
  for (const auto& [name, value] : facts_) {
    absl::StrAppend(&text, name, std::string(width - name.size() + 2, ' '), value, "\n");
  }
  return text;
}

std::string RenderEvaluation(const google::protobuf::RepeatedPtrField<boss::v1::EvaluationRow>& rows) {
  Table table({{"VERSION"},
               {"K", true},
               {"SCHEDULE"},
               {"SOLVER"},
               {"NFE", true},
               {"TRAJECTORY ERROR", true},
               {"FRECHET DISTANCE", true},
               {"STRAIGHTNESS", true},
               {"SAMPLES/S", true}});
  for (const auto& row : rows) {
    table.AddRow({row.model(), absl::StrCat(row.steps()),
                  row.label().empty() ? ScheduleName(row.schedule()) : row.label(), SolverName(row.solver()),
                  absl::StrCat(row.nfe()), absl::StrFormat("%.4f", row.trajectory_error()),
                  row.has_frechet_distance() ? absl::StrFormat("%.3f", row.frechet_distance()) : "-",
                  row.has_straightness() ? FormatReal(row.straightness()) : "-",
                  absl::StrFormat("%.1f", row.samples_per_second())});
  }
  return table.Render();
}

}  // namespace boss::client
