#include "client/report/svg.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "client/format.h"

namespace boss::client {

std::string EscapeHtml(absl::string_view text) {
  return absl::StrReplaceAll(text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}, {"'", "&#39;"}});
}

double Scale::operator()(double value) const {
  const double share = logarithmic ? (std::log10(value) - std::log10(low)) / (std::log10(high) - std::log10(low))
                                   : (value - low) / (high - low);
  return from + share * (to - from);
}

std::vector<double> Ticks(const Scale& scale, int count) {
  std::vector<double> ticks;
  if (scale.logarithmic) {
    const int first = static_cast<int>(std::floor(std::log10(scale.low) + 1e-9));
    const int last = static_cast<int>(std::ceil(std::log10(scale.high) - 1e-9));
    const int stride = std::max(1, (last - first + count) / std::max(count, 1));
    // A range of hardly more than two decades needs ticks in between.
    const std::vector<double> within =
        scale.high < 200 * scale.low ? std::vector<double>{1, 2, 5} : std::vector<double>{1};
    for (int decade = first; decade <= last; decade += stride) {
      for (const double factor : within) {
        const double tick = factor * std::pow(10.0, decade);
        if (tick >= scale.low * (1 - 1e-9) && tick <= scale.high * (1 + 1e-9)) ticks.push_back(tick);
      }
    }
    return ticks;
  }
  const double rough = (scale.high - scale.low) / std::max(count, 1);
  const double magnitude = std::pow(10.0, std::floor(std::log10(rough)));
  const double ratio = rough / magnitude;
  const double step = magnitude * (ratio < 1.5 ? 1 : ratio < 3 ? 2 : ratio < 7 ? 5 : 10);
  for (double i = std::ceil(scale.low / step - 1e-9); i * step <= scale.high + step * 1e-9; ++i)
    ticks.push_back(i * step);
  return ticks;
}

std::string TickLabel(double value) {
  if (value == 0) return "0";
  if (std::abs(value) >= 1000 && value == std::round(value)) return FormatCount(static_cast<int64_t>(value));
  if (std::abs(value) < 1e-3) return absl::StrFormat("%.0e", value);
  return absl::StrFormat("%.4g", value);
}

Svg::Svg(double width, double height, absl::string_view description) {
  absl::StrAppendFormat(
      &body_, "<svg viewBox=\"0 0 %g %g\" role=\"img\" aria-label=\"%s\" xmlns=\"http://www.w3.org/2000/svg\">\n",
      width, height, EscapeHtml(description));
}

void Svg::Line(double x1, double y1, double x2, double y2, absl::string_view css_class) {
  absl::StrAppendFormat(&body_, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" class=\"line %s\"/>\n", x1, y1,
                        x2, y2, css_class);
}

void Svg::Polyline(const std::vector<std::pair<double, double>>& points, absl::string_view css_class) {
  absl::StrAppendFormat(&body_, "<polyline class=\"line %s\" points=\"", css_class);
  for (const auto& [x, y] : points) absl::StrAppendFormat(&body_, "%.1f,%.1f ", x, y);
  body_ += "\"/>\n";
}

void Svg::Circle(double x, double y, double radius, absl::string_view css_class) {
  absl::StrAppendFormat(&body_, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%g\" class=\"dot %s\"/>\n", x, y, radius,
                        css_class);
}

void Svg::Rect(double x, double y, double width, double height, absl::string_view fill) {
  absl::StrAppendFormat(&body_, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"/>\n", x, y,
                        width, height, fill);
}

void Svg::Text(double x, double y, absl::string_view text, Anchor anchor, absl::string_view css_class) {
  static constexpr const char* kAnchors[] = {"start", "middle", "end"};
  absl::StrAppendFormat(&body_, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" class=\"%s\">%s</text>\n", x, y,
                        kAnchors[static_cast<int>(anchor)], css_class, EscapeHtml(text));
}

void Svg::VerticalText(double x, double y, absl::string_view text) {
  absl::StrAppendFormat(
      &body_, "<text transform=\"translate(%.1f %.1f) rotate(-90)\" text-anchor=\"middle\" class=\"title\">%s</text>\n",
      x, y, EscapeHtml(text));
}

void Svg::Image(double x, double y, double width, double height, absl::string_view png) {
  absl::StrAppendFormat(
      &body_,
      "<image x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" preserveAspectRatio=\"none\" class=\"pixels\" "
      "href=\"data:image/png;base64,%s\"/>\n",
      x, y, width, height, absl::Base64Escape(png));
}

void Svg::Axes(const Scale& x, const Scale& y, absl::string_view x_title, absl::string_view y_title) {
  const double bottom = std::max(y.from, y.to), left = std::min(x.from, x.to);
  const double top = std::min(y.from, y.to), right = std::max(x.from, x.to);
  for (const double tick : Ticks(y, 6)) {
    Line(left, y(tick), right, y(tick), "grid");
    Text(left - 8, y(tick) + 4, TickLabel(tick), Anchor::kEnd);
  }
  for (const double tick : Ticks(x, 8)) {
    if (std::abs(tick - std::round(tick)) > 1e-9) continue;
    Line(x(tick), bottom, x(tick), bottom + 5, "axis");
    Text(x(tick), bottom + 19, TickLabel(tick), Anchor::kMiddle);
  }
  Line(left, bottom, right, bottom, "axis");
  Text((left + right) / 2, bottom + 40, x_title, Anchor::kMiddle, "title");
  VerticalText(left - 52, (top + bottom) / 2, y_title);
}

std::string Svg::Finish() && { return std::move(body_) + "</svg>\n"; }

}  // namespace boss::client
