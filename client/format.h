// Values as people read them.
#pragma once

#include <google/protobuf/duration.pb.h>
#include <google/protobuf/map.h>
#include <google/protobuf/timestamp.pb.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "boss/v1/jobs.pb.h"
#include "boss/v1/models.pb.h"

namespace boss::client {

std::string FormatBytes(int64_t bytes);              // "512 B", "3.2 MiB"
std::string FormatCount(int64_t count);              // "1,234,567"
std::string FormatReal(double value);                // four significant digits
std::string FormatElapsed(absl::Duration duration);  // "850 ms", "1.24 s", "1m 12s", "2h 03m", "3d 04h"

absl::Duration ToDuration(const google::protobuf::Duration& duration);
absl::Time ToTime(const google::protobuf::Timestamp& timestamp);
void SetDuration(absl::Duration duration, google::protobuf::Duration* message);
void SetTime(absl::Time time, google::protobuf::Timestamp* message);
// "2026-01-31 14:05:09" in the local time zone; "-" if it is not set.
std::string FormatTime(const google::protobuf::Timestamp& timestamp);

// "key=value, ..." by key; "-" for none.
std::string FormatLabels(const google::protobuf::Map<std::string, std::string>& labels);

// Lower-case, without the prefix that the enum's values share: "euler", "bellman", "cost matrix", "optimize-stepsizes".
std::string SolverName(boss::v1::Solver solver);
std::string ScheduleName(boss::v1::ScheduleKind kind);
std::string StageName(boss::v1::JobStage stage);
std::string KindName(boss::v1::Job::Kind kind);

bool IsFinal(boss::v1::Job::State state);

// Columns under a header, padded to their widest cell; numbers to the right.
class Table {
 public:
  struct Column {
    std::string title;
    bool right = false;
  };
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  // \pre as many cells as columns.
  void AddRow(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  bool empty() const { return rows_.empty(); }
  // Lines end with '\n' and have no trailing spaces.
  std::string Render() const;

 private:
  const std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// "name    value" lines, the names padded to the longest.
class Facts {
 public:
  // Skipped if `value` is empty.
  void Add(std::string name, std::string value);
  std::string Render() const;

 private:
  std::vector<std::pair<std::string, std::string>> facts_;
};

// Columns: version, K, schedule, NFE, trajectory error, Frechet distance, samples per second.
std::string RenderEvaluation(const google::protobuf::RepeatedPtrField<boss::v1::EvaluationRow>& rows);

}  // namespace boss::client
