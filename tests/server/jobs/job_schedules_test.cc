// Schedules of jobs: over uneven fine grids, under names of the clients, and given in full.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "tests/server/jobs/job_fixture.h"

namespace boss::server {
namespace {

using testing::PayloadsOf;
using testing::RowsOf;

// EDM's sigmas (rho 7) as times 1 / (1 + sigma).
std::vector<double> EdmTimes(int k_max) {
  const double from = std::pow(80.0, 1 / 7.0), to = std::pow(0.002, 1 / 7.0);
  std::vector<double> times = {0};
  for (int i = 1; i < k_max; ++i) times.push_back(1 / (1 + std::pow(from + (to - from) * i / (k_max - 1), 7)));
  times.push_back(1);
  return times;
}

class JobSchedulesTest : public testing::JobTest {
 protected:
  StoredScheduleSet Imported(const std::string& name, const std::vector<std::vector<double>>& grids) {
    StoredScheduleSet set;
    set.client_name = name;
    for (const std::vector<double>& times : grids)
      set.set.schedules.emplace_back().time_grid = *TimeGrid::Create(times);
    return set;
  }
};

TEST_F(JobSchedulesTest, ASearchOverAnEdmGridStoresTheGridAndItsTimes) {
  const VersionKey key = PublishTeacher();
  OptimizeStepsizesSpec spec{"teacher", 12, 20};
  spec.batch_size = 8;
  spec.fine_time_grid = EdmTimes(12);
  const Job job = RunToSuccess(spec);
  EXPECT_EQ(job.result.velocity_evaluations, 12 * 20);
  const TimeGrid grid = *TimeGrid::Create(spec.fine_time_grid);
  EXPECT_EQ(job.result.schedule_set.substr(0, 21), "bellman-euler-g1-k12-");
  Start();
  const auto stored = store_->FindScheduleSet(key, 1.0, grid);
  ASSERT_TRUE(stored.ok()) << stored.status();
  EXPECT_EQ((*stored)->Name(), job.result.schedule_set);
  EXPECT_EQ((*stored)->set.fine_grid, grid);
  ASSERT_EQ((*stored)->set.schedules.size(), 12u);
  for (const Schedule& schedule : (*stored)->set.schedules) {
    for (int i = 0; i <= schedule.time_grid.steps(); ++i) EXPECT_EQ(schedule.time_grid[i], grid[schedule.knots[i]]);
  }
  EXPECT_EQ((*stored)->set.schedules[11].time_grid, grid);

  // Beside a search over the uniform grid, which it does not replace.
  RunToSuccess(OptimizeStepsizesSpec{"teacher", 12, 20});
  EXPECT_EQ(store_->ListScheduleSets(key)->size(), 2u);
}

TEST_F(JobSchedulesTest, ANameKeepsASearchFromBeingTheDefault) {
  const VersionKey key = PublishTeacher();
  OptimizeStepsizesSpec spec{"teacher", 6, 8};
  spec.schedule_set = "mine";
  EXPECT_EQ(RunToSuccess(spec).result.schedule_set, "mine");
  EXPECT_EQ(store_->FindScheduleSet(key, 1.0).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ((*store_->FindScheduleSet(key, "mine"))->set.k_max, 6);
  spec.k_max = 4;
  RunToSuccess(spec);
  EXPECT_EQ((*store_->FindScheduleSet(key, "mine"))->set.k_max, 4);  // replaced
}

TEST_F(JobSchedulesTest, DistillationCutsTrajectoriesOfItsFineGrid) {
  PublishTeacher();
  RunToSuccess(OptimizeStepsizesSpec{"teacher", 8, 16});
  DistillSpec spec = ToyDistillation("student");
  spec.fine_time_grid = EdmTimes(8);
  EvaluateSpec& evaluation = spec.evaluation.emplace();
  evaluation.num_samples = 20;
  evaluation.k_max = 8;
  evaluation.fine_time_grid = spec.fine_time_grid;
  const Job job = RunToSuccess(spec);
  // The set over the uniform grid does not serve.
  EXPECT_EQ(PayloadsOf<StageChange>(Follow(job.id))[1].to, JobStage::kTrajectories);
  const NativeSchedule native = *store_->FindSchedule({"student", 1}, 3, 1.0);
  ASSERT_EQ(native.schedule.knots.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(native.schedule.time_grid[static_cast<int>(i)], spec.fine_time_grid[native.schedule.knots[i]]);
  }
  EXPECT_EQ(job.result.schedule->time_grid, native.schedule.time_grid);
  EXPECT_EQ(job.result.evaluation[0].label, "fine");
  EXPECT_EQ(job.result.evaluation[0].trajectory_error, 0);
  EXPECT_EQ(job.result.evaluation[0].schedule, "explicit");

  // Another run of the same takes what this one searched.
  const Job second = RunToSuccess(spec);
  for (const StageChange& change : PayloadsOf<StageChange>(Follow(second.id)))
    EXPECT_NE(change.to, JobStage::kTrajectories);
}

TEST_F(JobSchedulesTest, ACrashedSearchOverAnUnevenGridGoesOn) {
  const VersionKey key = PublishTeacher();
  OptimizeStepsizesSpec spec{"teacher", 6, 12};
  spec.batch_size = 4;
  spec.fine_time_grid = EdmTimes(6);
  spec.schedule_set = "whole";
  RunToSuccess(spec);
  spec.schedule_set = "crashed";
  executor_.BlockAt(executor_.runs() + 12);
  const Job job = Submit(spec);
  executor_.WaitUntilBlocked();
  Crash();
  EXPECT_EQ(Finish(job.id).state, JobState::kSucceeded);
  const auto whole = *store_->FindScheduleSet(key, "whole"), crashed = *store_->FindScheduleSet(key, "crashed");
  EXPECT_EQ(crashed->set.cost_matrix, whole->set.cost_matrix);
  EXPECT_EQ(crashed->set.fine_grid, whole->set.fine_grid);
}

TEST_F(JobSchedulesTest, ADistillationThatGoesOnKeepsItsTimes) {
  const VersionKey key = PublishTeacher();
  RunToSuccess(OptimizeStepsizesSpec{"teacher", 8, 16});
  const StoredScheduleSet first = **store_->FindScheduleSet(key, 1.0);
  const Job undisturbed = RunToSuccess(ToyDistillation("a"));
  for (const bool is_replaced : {true, false}) {
    // Unit 1 loads the teacher, 80 draw the pairs: this is among the train steps.
    executor_.BlockAt(executor_.runs() + 1 + 80 + 1 + 4);
    const Job job = Submit(ToyDistillation("b"));
    executor_.WaitUntilBlocked();
    ASSERT_TRUE(manager_->Pause(job.id).ok());
    executor_.Release();
    WaitForState(job.id, JobState::kPaused);
    if (is_replaced) {
      StoredScheduleSet other = first;
      Schedule& schedule = other.set.schedules[2];
      ASSERT_NE(schedule.knots, (std::vector<int>{0, 1, 2, 8}));
      schedule.knots = {0, 1, 2, 8};
      schedule.time_grid = *TimeGrid::Create({0, 0.125, 0.25, 1});
      ASSERT_TRUE(store_->AddScheduleSet(key, other).ok());
    } else {
      ASSERT_TRUE(store_->RemoveScheduleSet(key, first.Name()).ok());
    }
    ASSERT_TRUE(manager_->Resume(job.id).ok());
    const Job done = Finish(job.id);
    ASSERT_EQ(done.state, JobState::kSucceeded) << done.error;
    testing::ExpectSameWeights(*Output(done), *Output(undisturbed));
    EXPECT_EQ(done.result.schedule->knots, undisturbed.result.schedule->knots);
    EXPECT_EQ(done.result.schedule->total_cost, undisturbed.result.schedule->total_cost);
    EXPECT_EQ(done.result.schedule_set, first.Name());
    for (const StageChange& change : PayloadsOf<StageChange>(Follow(job.id)))
      EXPECT_NE(change.to, JobStage::kTrajectories);
    ASSERT_TRUE(store_->AddScheduleSet(key, first).ok());
  }
}

TEST_F(JobSchedulesTest, EvaluationsJudgeNamedSetsAndGivenTimes) {
  const VersionKey key = PublishTeacher();
  RunToSuccess(OptimizeStepsizesSpec{"teacher", 10, 16});
  ASSERT_TRUE(store_->AddScheduleSet(key, Imported("ays", {{0, 0.3, 1}, {0, 0.2, 0.4, 0.6, 1}})).ok());
  ASSERT_TRUE(store_->AddScheduleSet(key, Imported("gits", {{0, 0.7, 1}})).ok());
  EvaluateSpec spec;
  spec.model = "teacher";
  spec.steps = {2, 4};
  spec.num_samples = 16;
  spec.k_max = 10;
  spec.schedules.named = true;
  spec.schedules.sets = {"bellman-euler-g1-k10"};
  spec.schedules.time_grids = {{0, 0.3, 1}, {0, 0.5, 0.75, 1}};
  spec.schedules.bellman = false;
  const Job job = RunToSuccess(spec);
  EXPECT_EQ(RowsOf(job),
            (std::vector<std::string>{
                "teacher@1 uniform 2 uniform", "teacher@1 uniform 4 uniform", "teacher@1 bellman-euler-g1-k10 2 named",
                "teacher@1 bellman-euler-g1-k10 4 named", "teacher@1 ays 2 named", "teacher@1 ays 4 named",
                "teacher@1 gits 2 named", "teacher@1 explicit 1 2 explicit", "teacher@1 explicit 2 3 explicit"}));
  EXPECT_EQ(job.result.evaluation[4].schedule_set, "ays");
  // The same times from the same noises are the same samples.
  EXPECT_EQ(job.result.evaluation[7].trajectory_error, job.result.evaluation[4].trajectory_error);
  EXPECT_NE(job.result.evaluation[6].trajectory_error, job.result.evaluation[4].trajectory_error);
  const auto messages = PayloadsOf<JobMessage>(Follow(job.id));
  ASSERT_EQ(messages.size(), 1u);
  EXPECT_EQ(messages[0].text, "the schedule set gits has no schedule of 4 steps: no row");

  // A straightened version has its own row, and those that are asked for besides.
  RunToSuccess(ToyDistillation("student"));
  ASSERT_TRUE(store_->AddScheduleSet({"student", 1}, Imported("mine", {{0, 0.3, 0.6, 1}})).ok());
  EvaluateSpec of_student;
  of_student.model = "student";
  of_student.steps = {3};
  of_student.num_samples = 8;
  of_student.k_max = 8;
  of_student.schedules = {.uniform = false, .bellman = false, .sets = {"mine"}};
  EXPECT_EQ(RowsOf(RunToSuccess(of_student)),
            (std::vector<std::string>{"student@1 straightened 3 bellman", "student@1 mine 3 named"}));
}

TEST_F(JobSchedulesTest, ASetThatIsNotThereIsRefusedAtOnceOrWarnedOf) {
  const VersionKey key = PublishTeacher();
  PublishTeacher("bare");
  StoredScheduleSet guided = Imported("guided", {{0, 0.3, 1}});
  guided.set.guidance_scale = 2;
  ASSERT_TRUE(store_->AddScheduleSet(key, guided).ok());
  EvaluateSpec spec;
  spec.model = "teacher";
  spec.other_models = {"bare"};
  spec.steps = {2};
  spec.num_samples = 4;
  spec.k_max = 4;
  spec.schedules = {.uniform = false, .bellman = false, .sets = {"guided"}};
  const Job job = RunToSuccess(spec);
  EXPECT_EQ(RowsOf(job), (std::vector<std::string>{"teacher@1 guided 2 named"}));
  const auto messages = PayloadsOf<JobMessage>(Follow(job.id));
  ASSERT_EQ(messages.size(), 2u);
  EXPECT_EQ(messages[0].text, "the schedule set guided was made for guidance scale 2, the request's is 1");
  EXPECT_EQ(messages[1].text, "bare@1 has no schedule set guided: it gets no rows");

  spec.schedules.sets = {"unheard-of"};
  const auto missing = manager_->Submit(spec, {});
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound) << missing.status();
  EXPECT_NE(std::string(missing.status().message()).find("spec.schedule_sets"), std::string::npos);
  spec.schedules.sets = {"guided"};
  spec.steps = {7};
  EXPECT_EQ(Finish(Submit(spec).id).error.code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace boss::server
