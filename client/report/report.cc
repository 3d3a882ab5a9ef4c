#include "client/report/report.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <set>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/format.h"
#include "client/report/charts.h"
#include "client/report/style.h"
#include "client/report/svg.h"

namespace boss::client {
namespace {

using boss::v1::EvaluationRow;
using boss::v1::Job;

std::string Figure(const std::string& content, absl::string_view caption, absl::string_view css_class = "") {
  return content.empty() ? ""
                         : absl::StrCat("<figure class=\"", css_class, "\">", content, "<figcaption>",
                                        EscapeHtml(caption), "</figcaption></figure>\n");
}

std::string Fact(absl::string_view name, absl::string_view value) {
  return value.empty() ? ""
                       : absl::StrCat("<div class=\"fact\"><span>", EscapeHtml(name), "</span><b>", EscapeHtml(value),
                                      "</b></div>\n");
}

// All jobs' rows by number of evaluations, in the order of the jobs.
std::vector<EvaluationRow> RowsOf(const std::vector<ReportJob>& jobs) {
  std::vector<EvaluationRow> rows;
  for (const ReportJob& one : jobs)
    rows.insert(rows.end(), one.job.result().evaluation().begin(), one.job.result().evaluation().end());
  SortByEvaluations(rows);
  return rows;
}

std::string NumberCell(const std::string& text, bool best) {
  return absl::StrCat("<td class=\"number", best ? " best" : "", "\">", text, "</td>");
}

std::string EvaluationTable(const std::vector<EvaluationRow>& rows) {
  std::map<int64_t, double> best_error, best_distance;
  std::map<int64_t, int> count;
  for (const EvaluationRow& row : rows) {
    ++count[EvaluationsOf(row)];
    const auto keep_least = [&row](std::map<int64_t, double>& least, double value) {
      const auto [place, is_new] = least.try_emplace(EvaluationsOf(row), value);
      if (!is_new) place->second = std::min(place->second, value);
    };
    keep_least(best_error, row.trajectory_error());
    if (row.has_frechet_distance()) keep_least(best_distance, row.frechet_distance());
  }
  std::string html =
      "<div class=\"scroll\"><table><thead><tr><th "
      "class=\"number\">K</th><th>Sampler</th><th>Version</th><th>Solver</th><th "
      "class=\"number\">NFE</th><th class=\"number\">Trajectory error</th><th class=\"number\">Frechet "
      "distance</th><th "
      "class=\"number\">Samples/s</th></tr></thead><tbody>\n";
  int64_t previous = -1;
  for (const EvaluationRow& row : rows) {
    const int64_t k = EvaluationsOf(row);
    const bool compared = count[k] > 1;
    absl::StrAppend(&html, "<tr", k != previous ? " class=\"group\"" : "", ">",
                    NumberCell(absl::StrCat(row.steps()), false), "<td>", EscapeHtml(RowLabel(row)), "</td><td>",
                    EscapeHtml(row.model()), "</td><td>", EscapeHtml(SolverName(row.solver())), "</td>",
                    NumberCell(absl::StrCat(row.nfe()), false),
                    NumberCell(absl::StrFormat("%.4f", row.trajectory_error()),
                               compared && row.trajectory_error() == best_error[k]),
                    row.has_frechet_distance() ? NumberCell(absl::StrFormat("%.3f", row.frechet_distance()),
                                                            compared && row.frechet_distance() == best_distance[k])
                                               : NumberCell("&ndash;", false),
                    NumberCell(absl::StrFormat("%.1f", row.samples_per_second()), false), "</tr>\n");
    previous = k;
  }
  return absl::StrCat(html, "</tbody></table></div>\n");
}

std::string EvaluationSection(const std::vector<EvaluationRow>& rows) {
  if (rows.empty()) return "";
  const EvaluationRow& first = rows.front();
  std::string note =
      absl::StrCat("Root mean square difference to the fine sampler (", first.baseline(), ", ", first.baseline_steps(),
                   " Euler steps) from the same ", FormatCount(first.num_samples()), " noises");
  if (first.has_frechet_distance())
    absl::StrAppend(&note, "; Frechet distance of features (", first.feature_network(), ")");
  absl::StrAppend(&note, ". Lower is better; the best at each number of evaluations (NFE) is marked.");
  return absl::StrCat(
      "<h2>Evaluation</h2>\n<p class=\"note\">", EscapeHtml(note), "</p>\n", EvaluationTable(rows),
      "<div class=\"pair\">\n",
      Figure(EvaluationChart(rows, Measure::kTrajectoryError), "Trajectory error against the fine sampler"),
      Figure(EvaluationChart(rows, Measure::kFrechetDistance), "Frechet distance to the reference images"), "</div>\n");
}

std::string ScheduleSection(const ReportData& data, const std::vector<int>& steps) {
  if (!data.schedules) return "";
  const auto& set = *data.schedules;
  std::vector<int> ascending = steps;
  std::sort(ascending.begin(), ascending.end());
  const std::string times = ScheduleChart(set, ascending);
  // More than two schedules would hide the map.
  const std::string matrix = CostMatrixChart(set, absl::MakeConstSpan(steps).first(std::min<size_t>(steps.size(), 2)));
  if (times.empty() && matrix.empty()) return "";
  const bool is_multistep = set.solver() == boss::v1::SOLVER_MULTISTEP;
  std::string basis = absl::StrCat("Fine grid of ", set.k_max(), " intervals, ", FormatCount(set.num_samples()),
                                   " trajectories of ", set.model());
  if (set.num_held_out() > 0) absl::StrAppend(&basis, ", ", FormatCount(set.num_held_out()), " of them held out");
  absl::StrAppend(&basis, ", guidance scale ", FormatReal(set.guidance_scale()), ".",
                  is_multistep ? " Multistep schedules have no cost matrix." : "");
  std::string html = absl::StrCat(
      "<h2>Schedule</h2>\n<p class=\"note\">", EscapeHtml(basis), "</p>\n",
      Figure(times, is_multistep
                        ? "Where a sampler of K steps evaluates the velocity: the times of the multistep schedules, "
                          "beside equal steps. The error is the root mean square one, with the set's coefficients, "
                          "against the fine sampler on the held-out noises."
                        : "Where a sampler of K steps evaluates the velocity: the times that minimise the summed cost "
                          "of its jumps, beside equal steps."));
  if (!matrix.empty()) {
    absl::StrAppend(&html, "<h3>Cost matrix</h3>\n",
                    Figure(matrix,
                           "Mean squared error of one Euler jump from time t to time t' against the fine state at t'. "
                           "Bright regions are where the flow "
                           "is curved and steps must be short.",
                           "narrow"));
  }
  return html;
}

std::string TrainingSection(const std::vector<ReportJob>& jobs) {
  std::string html;
  for (const ReportJob& one : jobs) {
    const std::string loss = LossChart(one.events);
    if (loss.empty()) continue;
    if (jobs.size() > 1)
      absl::StrAppend(&html, "<h3>", EscapeHtml(absl::StrCat(KindName(one.job.kind()), " ", one.job.name())),
                      "</h3>\n");
    absl::StrAppend(&html, "<div class=\"pair\">\n", Figure(loss, "Training loss and held-out loss"),
                    Figure(SegmentLossChart(one.events), "Held-out loss of each segment of the schedule"), "</div>\n");
  }
  return html.empty() ? "" : absl::StrCat("<h2>Training</h2>\n", html);
}

// Whether a PNG is more than twice as wide as high, by the sizes in its first chunk.
bool IsWide(absl::string_view png) {
  if (png.size() < 24) return false;
  const auto read = [&png](size_t at) {
    uint32_t value = 0;
    for (size_t i = at; i < at + 4; ++i) value = value << 8 | static_cast<uint8_t>(png[i]);
    return value;
  };
  return read(16) > uint64_t{2} * read(20);
}

std::string GridSection(const std::vector<ReportGrid>& grids) {
  if (grids.empty()) return "";
  std::string html =
      "<h2>Samples</h2>\n<p class=\"note\">Pictures at the same place come from the same noise.</p>\n<div "
      "class=\"grids\">\n";
  for (const ReportGrid& grid : grids) {
    absl::StrAppend(&html, Figure(absl::StrCat("<img alt=\"", EscapeHtml(grid.label), "\" src=\"data:image/png;base64,",
                                               absl::Base64Escape(grid.png), "\">"),
                                  grid.label, IsWide(grid.png) ? "wide" : ""));
  }
  return absl::StrCat(html, "</div>\n");
}

std::string JobsSection(const std::vector<ReportJob>& jobs) {
  std::string html =
      "<h2>Jobs</h2>\n<div "
      "class=\"scroll\"><table><thead><tr><th>Name</th><th>Kind</th><th>State</th><th>Input</th><th>Output</th><th "
      "class=\"number\">Duration</th><th class=\"number\">Evaluations</th></tr></thead><tbody>\n";
  for (const ReportJob& one : jobs) {
    const Job& job = one.job;
    const bool ended = job.start_time().seconds() > 0 && job.end_time().seconds() > 0;
    absl::StrAppend(
        &html, "<tr><td>", EscapeHtml(job.name()), "</td><td>", EscapeHtml(KindName(job.kind())), "</td><td>",
        EscapeHtml(Job::State_Name(job.state())), "</td><td>", EscapeHtml(absl::StrJoin(job.input_models(), ", ")),
        "</td><td>", EscapeHtml(job.output_model()), "</td>",
        NumberCell(ended ? FormatElapsed(ToTime(job.end_time()) - ToTime(job.start_time())) : "&ndash;", false),
        NumberCell(
            job.result().velocity_evaluations() > 0 ? FormatCount(job.result().velocity_evaluations()) : "&ndash;",
            false),
        "</tr>\n");
  }
  return absl::StrCat(html, "</tbody></table></div>\n");
}

// The figures that matter most, of the first job that has them.
std::string KeyFacts(const ReportData& data, const std::vector<EvaluationRow>& rows) {
  std::string html;
  for (const ReportJob& one : data.jobs) {
    if (!one.job.has_distill()) continue;
    const auto& spec = one.job.distill();
    const bool lora = spec.tuning() == boss::v1::DistillSpec::LORA;
    absl::StrAppend(&html, Fact("Teacher", one.job.input_models().empty() ? spec.model() : one.job.input_models(0)),
                    Fact("Published", one.job.output_model()),
                    Fact("Method", absl::StrCat(spec.method() == boss::v1::DistillSpec::REFLOW ? "reflow" : "BOSS",
                                                ", K = ", spec.steps(),
                                                lora ? absl::StrCat(", LoRA rank ", spec.lora().rank()) : "")),
                    Fact("Training", absl::StrCat(FormatCount(spec.training().train_steps()), " steps of ",
                                                  spec.training().batch_size())));
    break;
  }
  if (data.schedules) {
    const bool is_multistep = data.schedules->solver() == boss::v1::SOLVER_MULTISTEP;
    absl::StrAppend(&html, Fact("Schedules", absl::StrCat(is_multistep ? "multistep, " : "", "every K to ",
                                                          data.schedules->schedules_size())));
  }
  if (!rows.empty())
    absl::StrAppend(&html, Fact("Judged on", absl::StrCat(FormatCount(rows.front().num_samples()), " noises")));
  return html.empty() ? "" : absl::StrCat("<div class=\"facts\">\n", html, "</div>\n");
}

}  // namespace

std::vector<int> ReportSteps(const std::vector<ReportJob>& jobs) {
  std::vector<int> steps;
  const auto add = [&steps](int k) {
    if (k > 0 && std::find(steps.begin(), steps.end(), k) == steps.end()) steps.push_back(k);
  };
  for (const ReportJob& one : jobs) add(one.job.distill().steps());
  std::set<int> judged;
  for (const ReportJob& one : jobs) {
    for (const EvaluationRow& row : one.job.result().evaluation()) {
      // Heun's steps are half as many as those that it is compared with.
      if (row.label() != "fine" && row.solver() != boss::v1::SOLVER_HEUN) judged.insert(row.steps());
    }
  }
  for (const int k : judged) add(k);
  if (steps.empty()) steps = {4, 2, 6, 8};
  return steps;
}

std::string RenderReport(const ReportData& data) {
  const std::vector<EvaluationRow> rows = RowsOf(data.jobs);
  const std::vector<int> steps = ReportSteps(data.jobs);
  std::string lead = "Few-step sampling of a flow-matching model: optimal stepsizes, straightening, evaluation.";
  return absl::StrCat(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" "
      "content=\"width=device-width, initial-scale=1\">\n<title>",
      EscapeHtml(data.title), "</title>\n<style>", kReportStyle, "</style>\n</head>\n<body>\n<main>\n<h1>",
      EscapeHtml(data.title), "</h1>\n<p class=\"lead\">", lead, "</p>\n", KeyFacts(data, rows),
      GridSection(data.grids), EvaluationSection(rows), ScheduleSection(data, steps), TrainingSection(data.jobs),
      JobsSection(data.jobs), "<footer>", EscapeHtml(data.footer), "</footer>\n</main>\n</body>\n</html>\n");
}

}  // namespace boss::client
