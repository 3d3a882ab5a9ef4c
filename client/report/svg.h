// Drawings in SVG whose colours are the report's style sheet's.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace boss::client {

std::string EscapeHtml(absl::string_view text);

// Maps values to positions; logarithmic to base 10 if asked.
struct Scale {
  double low = 0, high = 1;  // values; \pre low < high, and low > 0 if logarithmic
  double from = 0, to = 1;   // positions
  bool logarithmic = false;
  double operator()(double value) const;
};

// Round values within the scale, about `count` of them; powers of ten (and what lies between, if these are few) on a
// logarithmic scale.
std::vector<double> Ticks(const Scale& scale, int count);
// As an axis shows them: "0.25", "2,000", "1e-5".
std::string TickLabel(double value);

enum class Anchor { kStart, kMiddle, kEnd };

class Svg {
 public:
  // `description` is for readers who do not see the drawing.
  Svg(double width, double height, absl::string_view description);

  // Classes are of the style sheet: "axis", "grid", "c0" .. "c5" (series), "muted", "thin", "dash".
  void Line(double x1, double y1, double x2, double y2, absl::string_view css_class);
  void Polyline(const std::vector<std::pair<double, double>>& points, absl::string_view css_class);
  void Circle(double x, double y, double radius, absl::string_view css_class);
  void Rect(double x, double y, double width, double height, absl::string_view fill);
  void Text(double x, double y, absl::string_view text, Anchor anchor, absl::string_view css_class = "");
  // Upwards, centred at (x, y).
  void VerticalText(double x, double y, absl::string_view text);
  // A PNG, stretched to the rectangle without smoothing.
  void Image(double x, double y, double width, double height, absl::string_view png);

  // Grid lines, tick labels and titles of both axes. x counts something: only whole numbers are marked.
  void Axes(const Scale& x, const Scale& y, absl::string_view x_title, absl::string_view y_title);

  std::string Finish() &&;

 private:
  std::string body_;
};

}  // namespace boss::client
