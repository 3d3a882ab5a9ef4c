// The report's drawings. Each returns an <svg> element, or "" where there is nothing to draw.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "boss/v1/jobs.pb.h"
#include "boss/v1/models.pb.h"

namespace boss::client {

// For each number of steps in `steps` that the set has: where its times lie, with the uniform ones beside, and its
// total cost, or in a multistep set its held-out error.
std::string ScheduleChart(const boss::v1::ScheduleSet& set, absl::Span<const int> steps);

// The cost matrix on a logarithmic colour scale, with the jumps of the schedules of `steps` marked.
std::string CostMatrixChart(const boss::v1::ScheduleSet& set, absl::Span<const int> steps);

struct Series {
  std::string label;
  std::vector<std::pair<double, double>> points;  // by x
  bool faint = false;    // thin and pale: raw values behind a smoothed curve of the same colour
  bool markers = false;  // a dot at each point
  int style = 0;         // from 0 on: one of six colours; further sixes are dashed, then dotted, with hollow dots
};

// Lines over a common x. Points that are not finite, and with `logarithmic` those that are not positive, are left out.
std::string LineChart(const std::vector<Series>& series, const std::string& x_title, const std::string& y_title,
                      bool logarithmic, const std::string& description);

// Training loss with its running mean, and the held-out loss, from a job's events.
std::string LossChart(absl::Span<const boss::v1::JobEvent> events);
// One line for each segment of the schedule.
std::string SegmentLossChart(absl::Span<const boss::v1::JobEvent> events);

// What a row's sampler is called: its label, or its schedule.
std::string RowLabel(const boss::v1::EvaluationRow& row);

// Velocity evaluations per sample: what makes rows comparable, whatever their solver takes for a step.
int64_t EvaluationsOf(const boss::v1::EvaluationRow& row);
void SortByEvaluations(std::vector<boss::v1::EvaluationRow>& rows);

// One line for each sampler: trajectory error, or Frechet distance, over the number of steps; over the number of
// evaluations where the steps of some samplers take more of them than those of others. On a logarithmic scale where the
// largest value is more than 20 times the least.
enum class Measure { kTrajectoryError, kFrechetDistance };
std::string EvaluationChart(absl::Span<const boss::v1::EvaluationRow> rows, Measure measure);

}  // namespace boss::client
