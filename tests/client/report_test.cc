#include "client/report/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/picture.h"
#include "client/report/charts.h"
#include "client/report/svg.h"
#include "tests/client/fake_server.h"

namespace boss::client {
namespace {

using boss::v1::Job;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

int Count(const std::string& text, const std::string& part) {
  int count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++count;
  return count;
}

// Whether tags are closed in the order in which they were opened.
bool IsBalanced(const std::string& html) {
  std::vector<std::string> open;
  for (size_t at = html.find('<'); at != std::string::npos; at = html.find('<', at + 1)) {
    const size_t end = html.find('>', at);
    if (end == std::string::npos) return false;
    const std::string tag = html.substr(at + 1, end - at - 1);
    const std::string name = tag.substr(tag[0] == '/' ? 1 : 0, tag.find_first_of(" /", 1) - (tag[0] == '/' ? 1 : 0));
    if (tag[0] == '!' || tag.back() == '/' || name == "meta" || name == "img") continue;
    if (tag[0] != '/') {
      open.push_back(name);
    } else if (open.empty() || open.back() != tag.substr(1)) {
      return false;
    } else {
      open.pop_back();
    }
  }
  return open.empty();
}

ReportData MakeData() {
  ReportData data;
  data.title = "Distillation <report>";
  data.jobs.push_back({MakeDistillJob(), MakeEvents(40, Job::SUCCEEDED)});
  data.schedules = MakeScheduleSet();
  data.grids = {{"teacher & co", "png one"}, {"K = 4", "png two"}};
  data.footer = "made here";
  return data;
}

TEST(ReportTest, IsWellFormedAndSelfContained) {
  const std::string html = RenderReport(MakeData());
  EXPECT_TRUE(IsBalanced(html));
  EXPECT_THAT(html, HasSubstr("<title>Distillation &lt;report&gt;</title>"));
  EXPECT_THAT(html, Not(HasSubstr("<script")));
  EXPECT_THAT(html, Not(HasSubstr("src=\"http")));
  EXPECT_THAT(html, Not(HasSubstr("href=\"http")));
  EXPECT_THAT(html, Not(HasSubstr("nan")));
  EXPECT_THAT(html, HasSubstr("prefers-color-scheme: dark"));
  EXPECT_EQ(Count(html, "<svg "), 6);  // two of the evaluation, times, matrix, loss, segments
  EXPECT_EQ(Count(html, "<img "), 2);
  EXPECT_THAT(html, HasSubstr("teacher &amp; co"));
}

TEST(ReportTest, MarksTheBestOfEachNumberOfSteps) {
  const std::string html = RenderReport(MakeData());
  EXPECT_EQ(Count(html, "number best"), 4);
  EXPECT_THAT(html, HasSubstr("<td class=\"number best\">0.4000</td>"));
  EXPECT_THAT(html, HasSubstr("<td class=\"number best\">0.2500</td>"));
  // At K = 4 the other sampler has the least distance.
  EXPECT_THAT(html, HasSubstr("<td class=\"number best\">20.000</td>"));
  EXPECT_THAT(html, HasSubstr("<td class=\"number\">21.000</td>"));
}

TEST(ReportTest, WideGridsTakeTwoPlaces) {
  ReportData data = MakeData();
  data.grids[0].png = *EncodePng(Picture{5, 2, 1, std::vector<uint8_t>(10)});
  data.grids[1].png = *EncodePng(Picture{4, 2, 1, std::vector<uint8_t>(8)});
  EXPECT_EQ(Count(RenderReport(data), "<figure class=\"wide\">"), 1);
}

TEST(ReportTest, LeavesOutWhatThereIsNot) {
  ReportData data;
  data.title = "Empty";
  data.jobs.push_back({Job(), {}});
  const std::string html = RenderReport(data);
  EXPECT_TRUE(IsBalanced(html));
  EXPECT_EQ(Count(html, "<svg "), 0);
  for (const char* heading : {"<h2>Samples", "<h2>Evaluation", "<h2>Schedule", "<h2>Training"}) {
    EXPECT_THAT(html, Not(HasSubstr(heading)));
  }
}

TEST(ReportTest, SaysWhatAMultistepSetIs) {
  ReportData data = MakeData();
  EXPECT_THAT(RenderReport(data), HasSubstr("<b>every K to 8</b>"));
  boss::v1::ScheduleSet& set = *data.schedules;
  set.set_solver(boss::v1::SOLVER_MULTISTEP);
  set.set_num_held_out(25);
  set.clear_cost_matrix();
  set.mutable_schedules()->DeleteSubrange(4, 4);
  for (auto& schedule : *set.mutable_schedules()) {
    schedule.clear_total_cost();
    schedule.set_held_out_error(0.25 / schedule.steps());
  }
  const std::string html = RenderReport(data);
  EXPECT_TRUE(IsBalanced(html));
  for (const char* part :
       {"<b>multistep, every K to 4</b>", "Fine grid of 8 intervals, 100 trajectories of flow@1, 25 of them held out",
        ">multistep</text>", ">held-out error</text>", ">0.0625</text>", ">0.125</text>",
        "the times of the multistep schedules", "no cost matrix"})
    EXPECT_THAT(html, HasSubstr(part));
  for (const char* part : {"Bellman", "total cost", "summed cost", "<h3>Cost matrix"})
    EXPECT_THAT(html, Not(HasSubstr(part)));
}

TEST(ReportTest, ShowsTheStepsThatItsJobsAreAbout) {
  EXPECT_THAT(ReportSteps(MakeData().jobs), ElementsAre(4, 2));
  EXPECT_THAT(ReportSteps({}), ElementsAre(4, 2, 6, 8));
}

TEST(ChartTest, ScheduleHasADotForEachTime) {
  const std::string svg = ScheduleChart(MakeScheduleSet(), {4, 99});
  // A dot of the legend, and K + 1 times of each kind.
  EXPECT_EQ(Count(svg, "class=\"dot c1\""), 1 + 5);
  EXPECT_EQ(Count(svg, "class=\"dot hollow\""), 1 + 5);
  EXPECT_THAT(svg, HasSubstr("K = 4"));
  EXPECT_EQ(ScheduleChart(MakeScheduleSet(), {99}), "");
}

TEST(ChartTest, CostMatrixMarksTheJumps) {
  const std::string svg = CostMatrixChart(MakeScheduleSet(), {4});
  EXPECT_EQ(Count(svg, "ringed"), 4 + 1);
  EXPECT_THAT(svg, HasSubstr("href=\"data:image/png;base64,iVBOR"));
  auto set = MakeScheduleSet();
  set.clear_cost_matrix();
  EXPECT_EQ(CostMatrixChart(set, {4}), "");
}

TEST(ChartTest, CostMatrixOfAnUnevenGridHasACellForEachOfItsTimes) {
  const auto dots = [](const std::string& svg) {
    std::vector<std::string> found;
    for (size_t at = svg.find("<circle"); at != std::string::npos; at = svg.find("<circle", at + 1))
      found.push_back(svg.substr(at, svg.find('>', at) - at));
    return found;
  };
  auto set = MakeScheduleSet();
  const std::vector<std::string> uniform = dots(CostMatrixChart(set, {4}));
  // The same knots at other times: the jumps lie in the same cells.
  for (int i = 0; i <= set.k_max(); ++i) set.add_fine_time_grid(std::pow(i / 8.0, 3));
  for (auto& schedule : *set.mutable_schedules()) {
    for (int i = 0; i <= schedule.steps(); ++i) schedule.set_time_grid(i, set.fine_time_grid(schedule.knots(i)));
  }
  const std::string svg = CostMatrixChart(set, {4});
  EXPECT_EQ(dots(svg), uniform);
  EXPECT_EQ(uniform.size(), 4u + 1);
  set.clear_fine_time_grid();
  EXPECT_NE(dots(CostMatrixChart(set, {4})), uniform);
}

TEST(ChartTest, CostMatrixOfAStraightFlowIsDrawnToo) {
  auto set = MakeScheduleSet();
  for (double& cost : *set.mutable_cost_matrix()) cost = 0;
  EXPECT_EQ(CostMatrixChart(set, {4}), "");
  set.set_cost_matrix(2, 1e-30);
  EXPECT_THAT(CostMatrixChart(set, {4}), Not(HasSubstr("nan")));
}

TEST(ChartTest, LinesLeaveOutWhatCannotBeDrawn) {
  const Series series{.label = "a", .points = {{0, 1}, {1, NAN}, {2, INFINITY}, {3, 0}, {4, 0.01}}, .markers = true};
  const std::string logarithmic = LineChart({series}, "x", "y", true, "d");
  EXPECT_EQ(Count(logarithmic, "<circle"), 2 + 1);
  EXPECT_THAT(logarithmic, Not(HasSubstr("nan")));
  EXPECT_THAT(logarithmic, Not(HasSubstr("inf")));
  EXPECT_EQ(Count(LineChart({series}, "x", "y", false, "d"), "<circle"), 3 + 1);
  EXPECT_EQ(LineChart({}, "x", "y", true, "d"), "");
}

TEST(ChartTest, LossesComeFromTheEvents) {
  const auto events = MakeEvents(20, Job::SUCCEEDED);
  EXPECT_THAT(LossChart(events), HasSubstr("held-out loss"));
  EXPECT_THAT(SegmentLossChart(events), HasSubstr("segment 2"));
  EXPECT_EQ(LossChart({}), "");
  EXPECT_EQ(SegmentLossChart({}), "");
}

TEST(ChartTest, RowsOfOneLabelAreOneLineUnlessTheyAreCompared) {
  const Job job = MakeDistillJob();
  std::vector<boss::v1::EvaluationRow> rows(job.result().evaluation().begin(), job.result().evaluation().end());
  EXPECT_EQ(Count(EvaluationChart(rows, Measure::kTrajectoryError), "<polyline"), 2);
  // Another version straightened for another K goes on with the line.
  rows.push_back(rows.back());
  rows.back().set_steps(6);
  rows.back().set_model("flow@3");
  EXPECT_EQ(Count(EvaluationChart(rows, Measure::kTrajectoryError), "<polyline"), 2);
  rows.back().set_steps(4);
  const std::string svg = EvaluationChart(rows, Measure::kTrajectoryError);
  EXPECT_EQ(Count(svg, "<polyline"), 3);
  EXPECT_THAT(svg, HasSubstr("flow@3 bellman"));
  EXPECT_EQ(EvaluationChart(absl::MakeConstSpan(rows).first(2), Measure::kTrajectoryError), "");  // one K only
  for (auto& row : rows) row.clear_frechet_distance();
  EXPECT_EQ(EvaluationChart(rows, Measure::kFrechetDistance), "");
}

TEST(ChartTest, SamplersOfOtherSolversAreComparedByTheirEvaluations) {
  const Job job = MakeDistillJob();
  std::vector<boss::v1::EvaluationRow> rows(job.result().evaluation().begin(), job.result().evaluation().end());
  std::string svg = EvaluationChart(rows, Measure::kTrajectoryError);
  EXPECT_THAT(svg, HasSubstr("solver steps K"));
  EXPECT_THAT(svg, Not(HasSubstr("log scale")));
  boss::v1::EvaluationRow heun = rows.back();
  heun.set_label("heun");
  heun.set_solver(boss::v1::SOLVER_HEUN);
  heun.set_steps(1);
  heun.set_nfe(2);
  heun.set_trajectory_error(21 * rows.back().trajectory_error());
  rows.push_back(heun);
  svg = EvaluationChart(rows, Measure::kTrajectoryError);
  EXPECT_THAT(svg, HasSubstr("velocity evaluations per sample"));
  EXPECT_THAT(svg, HasSubstr("trajectory error (log scale)"));
  ReportJob one{.job = job};
  *one.job.mutable_result()->add_evaluation() = heun;
  EXPECT_EQ(ReportSteps({one}), ReportSteps({ReportJob{.job = job}}));
}

TEST(ChartTest, EighteenSamplersAreToldApart) {
  std::vector<boss::v1::EvaluationRow> rows;
  for (int i = 0; i < 18; ++i) {
    for (const int steps : {2, 4}) {
      boss::v1::EvaluationRow& row = rows.emplace_back();
      row.set_label(absl::StrCat("sampler ", i));
      row.set_steps(steps);
      row.set_trajectory_error(1.0 / (steps + i));
    }
  }
  const std::string svg = EvaluationChart(rows, Measure::kTrajectoryError);
  const std::string style = RenderReport({});
  std::set<std::string> lines;
  for (size_t at = svg.find("<polyline"); at != std::string::npos; at = svg.find("<polyline", at + 1)) {
    const size_t begin = svg.find("class=\"line ", at) + 12;
    lines.insert(svg.substr(begin, svg.find('"', begin) - begin));
  }
  EXPECT_EQ(lines.size(), 18u);
  EXPECT_THAT(svg, HasSubstr("viewBox=\"0 0 560 551\""));  // 9 rows of names below the axes
  for (const std::string& line : lines) {
    // Two dots of the curve and one of the legend.
    EXPECT_EQ(Count(svg, absl::StrCat("class=\"dot ", line, "\"")), 3) << line;
    for (const std::string& part : std::vector<std::string>(absl::StrSplit(line, ' ')))
      EXPECT_THAT(style, HasSubstr(absl::StrCat(".", part, " {"))) << line;
  }
}

TEST(SvgTest, TicksAreRoundAndWithinTheScale) {
  EXPECT_THAT(Ticks({0, 1, 0, 1}, 5), ElementsAre(0, ::testing::DoubleEq(0.2), ::testing::DoubleEq(0.4),
                                                  ::testing::DoubleNear(0.6, 1e-9), ::testing::DoubleEq(0.8), 1));
  const auto decades = Ticks({1e-6, 1e3, 0, 1, true}, 20);
  ASSERT_EQ(decades.size(), 10);
  EXPECT_NEAR(decades[0], 1e-6, 1e-12);
  const auto within = Ticks({0.9, 11, 0, 1, true}, 5);
  ASSERT_EQ(within.size(), 4);  // 1, 2, 5, 10
  EXPECT_NEAR(within[3], 10, 1e-9);
}

TEST(SvgTest, CountsAreMarkedAtWholeNumbers) {
  Svg svg(100, 100, "d");
  svg.Axes({1.9, 4.1, 0, 90}, {0, 1, 90, 0}, "steps", "error");
  const std::string text = std::move(svg).Finish();
  for (const char* whole : {">2<", ">3<", ">4<"}) EXPECT_THAT(text, HasSubstr(whole));
  EXPECT_THAT(text, ::testing::Not(HasSubstr(">2.2<")));
  EXPECT_THAT(text, HasSubstr(">0.2<"));
}

TEST(SvgTest, LogarithmicScaleIsEvenInDecades) {
  const Scale scale{0.01, 100, 0, 4, true};
  EXPECT_NEAR(scale(0.1), 1, 1e-12);
  EXPECT_NEAR(scale(10), 3, 1e-12);
}

}  // namespace
}  // namespace boss::client
