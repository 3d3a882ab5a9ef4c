// The cost matrix as a heat map.
#include <algorithm>
#include <array>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/picture.h"
#include "client/report/charts.h"
#include "client/report/svg.h"

namespace boss::client {
namespace {

// The colour map viridis (van der Walt and Smith), at nine points.
constexpr std::array<std::array<double, 3>, 9> kViridis = {{{68, 1, 84},
                                                            {71, 45, 123},
                                                            {59, 82, 139},
                                                            {44, 114, 142},
                                                            {33, 145, 140},
                                                            {40, 174, 128},
                                                            {94, 201, 98},
                                                            {173, 220, 48},
                                                            {253, 231, 37}}};

std::array<uint8_t, 3> Viridis(double share) {
  const double place = std::clamp(share, 0.0, 1.0) * (kViridis.size() - 1);
  const size_t below = std::min(static_cast<size_t>(place), kViridis.size() - 2);
  std::array<uint8_t, 3> color;
  for (int c = 0; c < 3; ++c) {
    color[c] = static_cast<uint8_t>(
        std::lround(kViridis[below][c] + (place - below) * (kViridis[below + 1][c] - kViridis[below][c])));
  }
  return color;
}

// Where a time lies along the matrix, from 0 to 1: the cells are the fine grid's points, whatever their times.
double PlaceOf(const boss::v1::ScheduleSet& set, double time) {
  const auto& grid = set.fine_time_grid();
  if (grid.size() != set.k_max() + 1) return time;
  const auto above = std::lower_bound(grid.begin(), grid.end(), time);
  if (above == grid.begin() || above == grid.end()) return above == grid.begin() ? 0 : 1;
  const auto below = above - 1;
  return (static_cast<double>(below - grid.begin()) + (time - *below) / (*above - *below)) / set.k_max();
}

}  // namespace

std::string CostMatrixChart(const boss::v1::ScheduleSet& set, absl::Span<const int> steps) {
  const int points = set.k_max() + 1;
  if (set.k_max() < 1 || set.cost_matrix_size() != points * points) return "";
  // The colours' range leaves out jumps to the next point: these are the fine sampler's own steps, whose errors are
  // rounding.
  double low = INFINITY, high = 0;
  for (int i = 0; i < points; ++i) {
    for (int j = i + 2; j < points; ++j) {
      const double cost = set.cost_matrix(i * points + j);
      if (!(cost > 0) || !std::isfinite(cost)) continue;
      low = std::min(low, cost), high = std::max(high, cost);
    }
  }
  if (high == 0) return "";
  // A flow that is exactly straight has rounding errors for costs; a dozen decades below the largest say nothing.
  low = std::max(low, high * 1e-12);
  const double range = std::max(std::log10(high / low), 1e-9);

  Picture picture;
  picture.width = picture.height = points;
  picture.channels = 4;
  picture.pixels.assign(size_t{4} * points * points, 0);
  for (int i = 0; i < points; ++i) {
    for (int j = i + 1; j < points; ++j) {
      const double cost = std::max(set.cost_matrix(i * points + j), low);
      const auto color = Viridis(std::isfinite(cost) ? std::log10(cost / low) / range : 1.0);
      uint8_t* pixel = &picture.pixels[size_t{4} * (i * points + j)];
      std::copy(color.begin(), color.end(), pixel);
      pixel[3] = 255;
    }
  }
  const auto png = EncodePng(picture);
  if (!png.ok()) return "";

  constexpr double kLeft = 76, kTop = 16, kSide = 460, kBar = 590;
  Svg svg(720, kTop + kSide + 58, "Cost matrix: error of one Euler jump from time t to time t'");
  const double half_cell = 0.5 / set.k_max();
  const Scale x_place{-half_cell, 1 + half_cell, kLeft, kLeft + kSide};
  const Scale y_place{-half_cell, 1 + half_cell, kTop, kTop + kSide};
  const auto x = [&](double time) { return x_place(PlaceOf(set, time)); };
  const auto y = [&](double time) { return y_place(PlaceOf(set, time)); };
  svg.Image(kLeft, kTop, kSide, kSide, *png);
  for (const double tick : Ticks({0, 1, 0, 1}, 5)) {
    svg.Line(kLeft - 5, y(tick), kLeft, y(tick), "axis");
    svg.Text(kLeft - 9, y(tick) + 4, TickLabel(tick), Anchor::kEnd);
    svg.Line(x(tick), kTop + kSide, x(tick), kTop + kSide + 5, "axis");
    svg.Text(x(tick), kTop + kSide + 19, TickLabel(tick), Anchor::kMiddle);
  }
  svg.Text(kLeft + kSide / 2, kTop + kSide + 42, "time t' that the jump arrives at", Anchor::kMiddle, "title");
  svg.VerticalText(22, kTop + kSide / 2, "time t that the jump starts from");

  // A schedule's jumps, from corner to corner along the steps that it takes.
  int color = 1;
  double legend = kTop + kSide - 14;
  for (const int k : steps) {
    for (const auto& schedule : set.schedules()) {
      if (schedule.steps() != k) continue;
      const std::string css_class = absl::StrCat("c", color++ % 6);
      for (int i = 0; i < k; ++i) {
        svg.Circle(x(schedule.time_grid(i + 1)), y(schedule.time_grid(i)), 4.5, absl::StrCat(css_class, " ringed"));
      }
      svg.Circle(kLeft + 16, legend, 4.5, absl::StrCat(css_class, " ringed"));
      svg.Text(kLeft + 28, legend + 4, absl::StrCat("jumps of the Bellman schedule, K = ", k), Anchor::kStart);
      legend -= 20;
    }
  }

  constexpr int kBands = 64;
  const Scale bar{low, high, kTop + kSide, kTop, true};
  for (int band = 0; band < kBands; ++band) {
    const auto band_color = Viridis((band + 0.5) / kBands);
    svg.Rect(kBar, kTop + kSide - (band + 1) * kSide / kBands, 18, kSide / kBands + 0.6,
             absl::StrFormat("#%02x%02x%02x", band_color[0], band_color[1], band_color[2]));
  }
  if (high > low) {
    for (const double tick : Ticks(bar, 8)) {
      svg.Line(kBar + 18, bar(tick), kBar + 23, bar(tick), "axis");
      svg.Text(kBar + 28, bar(tick) + 4, TickLabel(tick), Anchor::kStart);
    }
  }
  svg.VerticalText(kBar + 92, kTop + kSide / 2, "mean squared error of the jump (log scale)");
  return std::move(svg).Finish();
}

}  // namespace boss::client
