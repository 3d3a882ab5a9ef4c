#include "client/format.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "client/cli/job_follower.h"
#include "client/cli/parse.h"
#include "tests/client/fake_server.h"

namespace boss::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(FormatTest, BytesTakeTheUnitThatFits) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1024), "1.0 KiB");
  EXPECT_EQ(FormatBytes(1024 * 1024 - 1), "1.0 MiB");
  EXPECT_EQ(FormatBytes(3 * 1024 * 1024 + 200 * 1024), "3.2 MiB");
  EXPECT_EQ(FormatBytes(int64_t{5} << 40), "5.0 TiB");
}

TEST(FormatTest, CountsAreGrouped) {
  EXPECT_EQ(FormatCount(0), "0");
  EXPECT_EQ(FormatCount(999), "999");
  EXPECT_EQ(FormatCount(1000), "1,000");
  EXPECT_EQ(FormatCount(1234567), "1,234,567");
  EXPECT_EQ(FormatCount(-123456), "-123,456");
}

TEST(FormatTest, DurationsKeepTwoParts) {
  EXPECT_EQ(FormatElapsed(absl::Milliseconds(850)), "850 ms");
  EXPECT_EQ(FormatElapsed(absl::Milliseconds(1240)), "1.24 s");
  EXPECT_EQ(FormatElapsed(absl::Seconds(12.34)), "12.3 s");
  EXPECT_EQ(FormatElapsed(absl::Seconds(59.97)), "1m 00s");
  EXPECT_EQ(FormatElapsed(absl::Seconds(72)), "1m 12s");
  EXPECT_EQ(FormatElapsed(absl::Hours(2) + absl::Minutes(3)), "2h 03m");
  EXPECT_EQ(FormatElapsed(absl::Hours(76)), "3d 04h");
}

TEST(FormatTest, TimesSurviveTheirMessages) {
  const absl::Time time = absl::FromUnixMillis(1700000000123);
  google::protobuf::Timestamp timestamp;
  SetTime(time, &timestamp);
  EXPECT_EQ(ToTime(timestamp), time);
  google::protobuf::Duration duration;
  SetDuration(absl::Milliseconds(2500), &duration);
  EXPECT_EQ(duration.seconds(), 2);
  EXPECT_EQ(ToDuration(duration), absl::Milliseconds(2500));
  EXPECT_EQ(FormatTime({}), "-");
}

TEST(FormatTest, EnumsReadAsWords) {
  EXPECT_EQ(SolverName(boss::v1::SOLVER_RK45), "rk45");
  EXPECT_EQ(ScheduleName(boss::v1::SCHEDULE_KIND_BELLMAN), "bellman");
  EXPECT_EQ(StageName(boss::v1::JOB_STAGE_COST_MATRIX), "cost matrix");
  EXPECT_EQ(KindName(boss::v1::Job::OPTIMIZE_STEPSIZES), "optimize-stepsizes");
}

TEST(FormatTest, TablesAlignTheirColumns) {
  Table table({{"NAME"}, {"K", true}, {"NOTE"}});
  table.AddRow({"a", "10", ""});
  table.AddRow({"longer", "2", "x"});
  EXPECT_EQ(table.Render(),
            "NAME     K  NOTE\n"
            "a       10\n"
            "longer   2  x\n");
}

TEST(FormatTest, EvaluationTableHasOneLineForEachRow) {
  const std::string table = RenderEvaluation(MakeDistillJob().result().evaluation());
  EXPECT_EQ(std::count(table.begin(), table.end(), '\n'), 5);
  EXPECT_THAT(table, HasSubstr("flow@2   2  bellman   euler     2            0.4000            30.000"));
}

TEST(ParseTest, SchedulesAreNamesOrTimes) {
  EXPECT_EQ(ParseSchedule("bellman")->kind, boss::v1::SCHEDULE_KIND_BELLMAN);
  EXPECT_EQ(ParseSchedule("uniform")->kind, boss::v1::SCHEDULE_KIND_UNIFORM);
  EXPECT_EQ(ParseSchedule("auto")->kind, boss::v1::SCHEDULE_KIND_UNSPECIFIED);
  const auto times = ParseSchedule("0,0.25,1");
  EXPECT_EQ(times->kind, boss::v1::SCHEDULE_KIND_EXPLICIT);
  EXPECT_THAT(times->time_grid, ElementsAre(0, 0.25, 1));
  for (const char* wrong : {"", "best", "0", "0,1,", "0,0.5,0.5,1", "0.1,1", "0,0.9", "0,nan,1", "1,0"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseSchedule(wrong).status())) << wrong;
  }
}

TEST(ParseTest, IntegersAreListsAndRanges) {
  EXPECT_THAT(*ParseIntegers("3"), ElementsAre(3));
  EXPECT_THAT(*ParseIntegers("0-3,7,-1"), ElementsAre(0, 1, 2, 3, 7, -1));
  for (const char* wrong : {"", "a", "1,,2", "3-1", "1-", "0-99999999999"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseIntegers(wrong).status())) << wrong;
  }
}

TEST(ParseTest, NamesOfSolversAndFormats) {
  EXPECT_EQ(*ParseSolver("heun"), boss::v1::SOLVER_HEUN);
  EXPECT_FALSE(ParseSolver("").ok());
  EXPECT_FALSE(ParseSolver("dopri").ok());
  EXPECT_EQ(*ParseOutputFormat("float32"), boss::v1::OUTPUT_FORMAT_FLOAT32);
  EXPECT_FALSE(ParseOutputFormat("jpeg").ok());
  EXPECT_EQ(ParseKeyValue("a=b=c")->second, "b=c");
  EXPECT_FALSE(ParseKeyValue("=b").ok());
}

boss::v1::JobProgress Straightening() {
  boss::v1::JobProgress progress;
  progress.set_stage(boss::v1::JOB_STAGE_STRAIGHTENING);
  progress.set_stage_index(5);
  progress.set_stage_count(6);
  progress.set_fraction(0.5);
  progress.set_step(940);
  progress.set_total_steps(2000);
  progress.set_samples_per_second(412);
  progress.mutable_eta()->set_seconds(72);
  return progress;
}

TEST(ProgressTest, ShowsStageStepsLossSpeedAndTimeLeft) {
  boss::v1::JobMetrics metrics;
  metrics.set_train_step(940);
  metrics.set_loss(0.01234);
  EXPECT_EQ(
      RenderProgress(Straightening(), &metrics, 200),
      "straightening (5 of 6)  [============>           ]  50%  940/2000  loss 0.0123  412 samples/s  1m 12s left");
}

TEST(ProgressTest, LeavesOutWhatDoesNotFit) {
  for (int width = 1; width < 120; ++width) {
    EXPECT_LE(RenderProgress(Straightening(), nullptr, width).size(), width);
  }
  EXPECT_EQ(RenderProgress(Straightening(), nullptr, 64), "straightening (5 of 6)  [============>           ]  50%");
}

TEST(ProgressTest, BarIsFullOnlyAtTheEnd) {
  boss::v1::JobProgress progress;
  progress.set_fraction(0.999);
  EXPECT_THAT(RenderProgress(progress, nullptr, 80), HasSubstr("[=======================>]"));
  progress.set_fraction(1);
  EXPECT_THAT(RenderProgress(progress, nullptr, 80), HasSubstr("[========================] 100%"));
  progress.set_fraction(NAN);
  EXPECT_THAT(RenderProgress(progress, nullptr, 80), HasSubstr("[>                       ]   0%"));
}

boss::v1::JobEvent ProgressEvent(double fraction) {
  boss::v1::JobEvent event;
  *event.mutable_progress() = Straightening();
  event.mutable_progress()->set_fraction(fraction);
  return event;
}

TEST(FollowerTest, PrintsALineForEachTenthWhereThereIsNoTerminal) {
  std::ostringstream out, err;
  const Console console{out, err};
  JobFollower follower(console);
  for (int i = 0; i <= 100; ++i) follower.OnEvent(ProgressEvent(i / 100.0));
  follower.Finish();
  const std::string lines = err.str();
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 11);
  EXPECT_EQ(lines.find('\r'), std::string::npos);
  EXPECT_EQ(out.str(), "");
}

TEST(FollowerTest, RedrawsOneLineOnATerminal) {
  std::ostringstream out, err;
  const Console console{out, err, /*interactive=*/true, /*width=*/60};
  JobFollower follower(console);
  follower.OnEvent(ProgressEvent(0.1));
  follower.OnEvent(ProgressEvent(0.2));
  EXPECT_EQ(err.str().find('\n'), std::string::npos);
  boss::v1::JobEvent message;
  message.mutable_message()->set_text("note");
  follower.OnEvent(message);
  EXPECT_THAT(err.str(), HasSubstr("\r\x1b[Knote\n\rstraightening"));
  follower.Finish();
  EXPECT_EQ(err.str().back(), '\n');
}

TEST(FollowerTest, EveryKindOfEventHasALine) {
  auto events = MakeEvents(4, boss::v1::Job::FAILED);
  events[3].mutable_state_change()->mutable_error()->set_message("the loss is not finite");
  EXPECT_THAT(RenderEvent(events[0]), HasSubstr("state RUNNING"));
  EXPECT_THAT(RenderEvent(events[1]), HasSubstr("train step 10  loss 1.00000"));
  EXPECT_THAT(RenderEvent(events[3]), HasSubstr("state FAILED: the loss is not finite"));
  boss::v1::JobEvent event;
  event.mutable_stage_change()->set_to(boss::v1::JOB_STAGE_PAIRS);
  EXPECT_THAT(RenderEvent(event), HasSubstr("stage pairs"));
  *event.mutable_evaluation() = MakeDistillJob().result().evaluation(0);
  EXPECT_THAT(RenderEvent(event), HasSubstr("flow@2  K 2  uniform  trajectory error 0.5000  Frechet distance 40.000"));
  event.mutable_preview()->set_train_step(500);
  EXPECT_THAT(RenderEvent(event), HasSubstr("preview at train step 500"));
}

}  // namespace
}  // namespace boss::client
