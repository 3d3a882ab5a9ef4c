#include "client/report/charts.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/format.h"
#include "client/report/svg.h"

namespace boss::client {
namespace {

constexpr int kColors = 6;
constexpr const char* kDashes[] = {"", " dashed", " dotted"};
constexpr double kWideRange = 20;  // of measures, from the least to the largest
constexpr double kLegendLine = 18, kLegendRow = 19;
constexpr size_t kMaxLegendInside = 6;  // more names would hide the lines

// The colour, and what tells it from the same colour before it.
std::string StyleClass(int style) {
  return absl::StrCat("c", style % kColors, kDashes[style / kColors % std::size(kDashes)]);
}

std::vector<Series> Named(const std::vector<Series>& series) {
  std::vector<Series> named = series;
  std::erase_if(named, [](const Series& one) { return one.faint || one.points.empty(); });
  return named;
}

void LegendLine(Svg& svg, const Series& series, double left, double y) {
  svg.Line(left, y, left + kLegendLine, y, StyleClass(series.style));
  if (series.markers) svg.Circle(left + kLegendLine / 2, y, 3.5, StyleClass(series.style));
}

// Series names in the top right corner, below each other.
void LegendInside(Svg& svg, const std::vector<Series>& named, double right, double top) {
  for (const Series& one : named) {
    LegendLine(svg, one, right - kLegendLine, top);
    svg.Text(right - kLegendLine - 8, top + 4, one.label, Anchor::kEnd);
    top += kLegendRow;
  }
}

// Of names below the axes: they take two columns, unless one is too long for that.
size_t LegendRows(const std::vector<Series>& named) {
  const bool has_long = std::any_of(named.begin(), named.end(), [](const auto& one) { return one.label.size() > 32; });
  return has_long ? named.size() : (named.size() + 1) / 2;
}

void LegendBelow(Svg& svg, const std::vector<Series>& named, double left, double right, double top) {
  const size_t rows = LegendRows(named);
  for (size_t i = 0; i < named.size(); ++i) {
    const double x = left + (right - left) / 2 * static_cast<double>(i / rows);
    const double y = top + kLegendRow * static_cast<double>(i % rows);
    LegendLine(svg, named[i], x, y);
    svg.Text(x + kLegendLine + 8, y + 4, named[i].label, Anchor::kStart);
  }
}

// Widened so that points do not lie on the frame.
Scale ValueScale(double low, double high, bool logarithmic, double from, double to) {
  if (logarithmic) {
    const double margin = std::max(std::pow(high / low, 0.06), 1.05);
    return {low / margin, high * margin, from, to, true};
  }
  if (high <= low) high = low + 1;
  return {std::min(low, 0.0), high + 0.06 * (high - low), from, to, false};
}

}  // namespace

std::string RowLabel(const boss::v1::EvaluationRow& row) {
  return row.label().empty() ? ScheduleName(row.schedule()) : row.label();
}

int64_t EvaluationsOf(const boss::v1::EvaluationRow& row) { return row.nfe() > 0 ? row.nfe() : row.steps(); }

void SortByEvaluations(std::vector<boss::v1::EvaluationRow>& rows) {
  std::stable_sort(rows.begin(), rows.end(),
                   [](const auto& a, const auto& b) { return EvaluationsOf(a) < EvaluationsOf(b); });
}

std::string ScheduleChart(const boss::v1::ScheduleSet& set, absl::Span<const int> steps) {
  std::vector<const boss::v1::Schedule*> chosen;
  for (const int k : steps) {
    for (const auto& schedule : set.schedules()) {
      if (schedule.steps() == k) chosen.push_back(&schedule);
    }
  }
  if (chosen.empty()) return "";
  constexpr double kWidth = 960, kLeft = 130, kRight = 850, kRow = 58, kTop = 44;
  const double bottom = kTop + kRow * static_cast<double>(chosen.size());
  const bool is_multistep = set.solver() == boss::v1::SOLVER_MULTISTEP;
  const char* const name = is_multistep ? "multistep" : "Bellman";
  Svg svg(kWidth, bottom + 52, absl::StrCat("Solver times of the ", name, " schedules and of uniform steps"));
  const Scale x{0, 1, kLeft, kRight};
  svg.Circle(kLeft, 14, 5, "c1");
  svg.Text(kLeft + 12, 18, name, Anchor::kStart);
  svg.Circle(kLeft + 92, 14, 4, "hollow");
  svg.Text(kLeft + 104, 18, "uniform", Anchor::kStart);
  svg.Text(kWidth - 4, 18, is_multistep ? "held-out error" : "total cost", Anchor::kEnd, "muted");
  for (const double tick : Ticks(x, 10)) {
    svg.Line(x(tick), kTop - 10, x(tick), bottom, "grid");
    svg.Text(x(tick), bottom + 19, TickLabel(tick), Anchor::kMiddle);
  }
  double y = kTop;
  for (const auto* schedule : chosen) {
    svg.Text(kLeft - 22, y + 20, absl::StrCat("K = ", schedule->steps()), Anchor::kEnd, "strong");
    svg.Line(kLeft, y + 10, kRight, y + 10, "c1");
    svg.Line(kLeft, y + 30, kRight, y + 30, "axis");
    for (const double t : schedule->time_grid()) svg.Circle(x(t), y + 10, 5.5, "c1");
    for (int i = 0; i <= schedule->steps(); ++i) svg.Circle(x(double(i) / schedule->steps()), y + 30, 4, "hollow");
    svg.Text(kWidth - 4, y + 15, FormatReal(is_multistep ? schedule->held_out_error() : schedule->total_cost()),
             Anchor::kEnd, "muted");
    y += kRow;
  }
  svg.Text((kLeft + kRight) / 2, bottom + 42, "time t, from noise (0) to data (1)", Anchor::kMiddle, "title");
  return std::move(svg).Finish();
}

std::string LineChart(const std::vector<Series>& series, const std::string& x_title, const std::string& y_title,
                      bool logarithmic, const std::string& description) {
  std::vector<Series> drawn = series;
  double x_low = INFINITY, x_high = -INFINITY, y_low = INFINITY, y_high = -INFINITY;
  for (Series& one : drawn) {
    std::erase_if(one.points, [&](const auto& point) {
      return !std::isfinite(point.first) || !std::isfinite(point.second) || (logarithmic && point.second <= 0);
    });
    for (const auto& [px, py] : one.points) {
      x_low = std::min(x_low, px), x_high = std::max(x_high, px);
      y_low = std::min(y_low, py), y_high = std::max(y_high, py);
    }
  }
  if (x_low > x_high) return "";
  if (x_low == x_high) x_high = x_low + 1;
  constexpr double kWidth = 560, kHeight = 372, kLeft = 78, kRight = 550, kTop = 14, kBottom = 318;
  const std::vector<Series> named = Named(drawn);
  const bool is_legend_inside = named.size() <= kMaxLegendInside;
  const double legend_height = is_legend_inside ? 0 : kLegendRow * static_cast<double>(LegendRows(named)) + 8;
  Svg svg(kWidth, kHeight + legend_height, description);
  const double x_margin = 0.02 * (x_high - x_low);
  const Scale x{x_low - x_margin, x_high + x_margin, kLeft, kRight};
  const Scale y = ValueScale(y_low, y_high, logarithmic, kBottom, kTop);
  svg.Axes(x, y, x_title, y_title);
  for (const Series& one : drawn) {
    const std::string css_class = absl::StrCat(StyleClass(one.style), one.faint ? " faint" : "");
    std::vector<std::pair<double, double>> points;
    for (const auto& [px, py] : one.points) points.emplace_back(x(px), y(py));
    svg.Polyline(points, css_class);
    if (one.markers) {
      for (const auto& [px, py] : points) svg.Circle(px, py, 3.5, css_class);
    }
  }
  if (is_legend_inside) {
    LegendInside(svg, named, kRight, kTop + 10);
  } else {
    LegendBelow(svg, named, 18, kRight, kHeight + 8);
  }
  return std::move(svg).Finish();
}

std::string LossChart(absl::Span<const boss::v1::JobEvent> events) {
  Series raw{.label = "training loss", .faint = true, .style = 0};
  Series smooth{.label = "training loss (running mean)", .style = 0};
  Series held_out{.label = "held-out loss", .markers = true, .style = 1};
  constexpr double kKeep = 0.9;
  double mean = 0, weight = 0;
  for (const auto& event : events) {
    if (!event.has_metrics()) continue;
    const auto& metrics = event.metrics();
    const double step = static_cast<double>(metrics.train_step());
    if (metrics.has_held_out_loss()) held_out.points.emplace_back(step, metrics.held_out_loss());
    if (!std::isfinite(metrics.loss())) continue;
    mean = kKeep * mean + (1 - kKeep) * metrics.loss();
    weight = kKeep * weight + (1 - kKeep);
    raw.points.emplace_back(step, metrics.loss());
    smooth.points.emplace_back(step, mean / weight);
  }
  return LineChart({raw, smooth, held_out}, "train step", "loss (log scale)", true, "Loss over train steps");
}

std::string SegmentLossChart(absl::Span<const boss::v1::JobEvent> events) {
  std::vector<Series> segments;
  for (const auto& event : events) {
    for (int i = 0; i < event.metrics().segment_held_out_loss_size(); ++i) {
      if (i == static_cast<int>(segments.size())) {
        segments.push_back({.label = absl::StrCat("segment ", i + 1), .markers = true, .style = i});
      }
      segments[i].points.emplace_back(static_cast<double>(event.metrics().train_step()),
                                      event.metrics().segment_held_out_loss(i));
    }
  }
  return LineChart(segments, "train step", "held-out loss (log scale)", true,
                   "Held-out loss of each segment over train steps");
}

std::string EvaluationChart(absl::Span<const boss::v1::EvaluationRow> rows, Measure measure) {
  const bool frechet = measure == Measure::kFrechetDistance;
  // A version that was straightened for one K has one row, so that rows of one label are one line, whatever their
  // versions; unless a label occurs twice for a K: then versions differ in what they are compared for.
  std::set<std::pair<std::string, int>> seen;
  std::set<std::string> ambiguous;
  std::set<double> evaluations_per_step;
  for (const auto& row : rows) {
    if (row.label() == "fine") continue;
    if (row.steps() > 0) evaluations_per_step.insert(static_cast<double>(EvaluationsOf(row)) / row.steps());
    if (!seen.emplace(RowLabel(row), row.steps()).second) ambiguous.insert(RowLabel(row));
  }
  const bool over_evaluations = evaluations_per_step.size() > 1;
  std::vector<Series> series;
  std::map<std::string, size_t> places;
  std::set<double> places_on_axis;
  for (const auto& row : rows) {
    if ((frechet && !row.has_frechet_distance()) || row.label() == "fine") continue;
    const std::string label = RowLabel(row);
    const std::string name = ambiguous.contains(label) ? absl::StrCat(row.model(), " ", label) : label;
    const auto [place, is_new] = places.try_emplace(name, series.size());
    if (is_new) {
      series.push_back({.label = name, .markers = true, .style = static_cast<int>(series.size())});
    }
    const double x = static_cast<double>(over_evaluations ? EvaluationsOf(row) : row.steps());
    places_on_axis.insert(x);
    series[place->second].points.emplace_back(x, frechet ? row.frechet_distance() : row.trajectory_error());
  }
  // A single number of steps is no curve.
  if (places_on_axis.size() < 2) return "";
  for (Series& one : series) std::sort(one.points.begin(), one.points.end());
  double low = INFINITY, high = 0;
  for (const Series& one : series) {
    for (const auto& [x, y] : one.points) low = std::min(low, y), high = std::max(high, y);
  }
  // One sampler that is far off would press all others together.
  const bool logarithmic = low > 0 && std::isfinite(high) && high > kWideRange * low;
  const char* const measured = frechet ? "Frechet distance" : "Trajectory error";
  return LineChart(series, over_evaluations ? "velocity evaluations per sample" : "solver steps K",
                   absl::StrCat(frechet ? measured : "trajectory error", logarithmic ? " (log scale)" : ""),
                   logarithmic, absl::StrCat(measured, " over ", over_evaluations ? "evaluations" : "solver steps"));
}

}  // namespace boss::client
