// Straightening to the times of a schedule set that the job names.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/base/error_details.h"
#include "tests/server/jobs/job_fixture.h"
#include "tests/support/tiny_models.h"

namespace boss::server {
namespace {

using testing::PayloadsOf;
using testing::RowsOf;

class JobTargetTest : public testing::JobTest {
 protected:
  JobTargetTest() : teacher_(PublishTeacher()) {}

  // multistep-g1-k8: schedules of 1 to 3 steps that begin with every point, so that no search would choose them.
  void AddSet() {
    StoredScheduleSet stored = boss::testing::TinyMultistepSet(8, 3);
    for (Schedule& schedule : stored.set.schedules) {
      std::vector<double> times;
      for (int i = 0; i < schedule.time_grid.steps(); ++i) schedule.knots[static_cast<size_t>(i)] = i;
      for (const int knot : schedule.knots) times.push_back(knot / 8.0);
      schedule.time_grid = *TimeGrid::Create(times);
    }
    const absl::Status status = store_->AddScheduleSet(teacher_, stored, /*replace=*/true);
    ASSERT_TRUE(status.ok()) << status;
  }
  DistillSpec Distillation() const {
    DistillSpec spec = ToyDistillation("student");
    spec.schedule_set = "multistep-g1-k8";
    return spec;
  }
  absl::Status Refusal(const DistillSpec& spec) { return manager_->Submit(spec, {}).status(); }

  const VersionKey teacher_;
  const std::vector<int> knots_ = {0, 1, 2, 8};
};

TEST_F(JobTargetTest, TheTimesOfAMultistepSetAreStraightenedToWithoutASearch) {
  AddSet();
  DistillSpec spec = Distillation();
  spec.num_noises = 400;
  spec.fit_multistep = true;
  spec.evaluation.emplace();
  spec.evaluation->steps = {3};
  spec.evaluation->num_samples = 20;
  spec.evaluation->k_max = 8;
  const Job job = RunToSuccess(spec);
  for (const StageChange& change : PayloadsOf<StageChange>(Follow(job.id)))
    EXPECT_NE(change.to, JobStage::kTrajectories);
  EXPECT_EQ(job.result.schedule_set, "multistep-g1-k8");
  const NativeSchedule native = *store_->FindSchedule({"student", 1}, 3, 1.0);
  EXPECT_EQ(native.kind, "bellman");
  EXPECT_EQ(native.schedule.knots, knots_);
  EXPECT_EQ(native.schedule.time_grid, *TimeGrid::Create({0, 0.125, 0.25, 1}));
  EXPECT_EQ(native.schedule.total_cost, 0);
  // Its coefficients are those of the weights that were straightened.
  EXPECT_EQ(native.schedule.solver, SolverKind::kMultistep);
  EXPECT_EQ(native.num_samples, 40);
  EXPECT_EQ(native.num_held_out, 10);
  EXPECT_EQ(RowsOf(job)[2], "student@1 straightened 3 bellman");
  EXPECT_EQ(RowsOf(job)[3], "student@1 straightened-multistep 3 bellman");

  spec.evaluation.reset();
  spec.fit_multistep = false;
  RunToSuccess(spec);
  const NativeSchedule plain = *store_->FindSchedule({"student", 2}, 3, 1.0);
  EXPECT_EQ(plain.schedule.knots, knots_);
  EXPECT_EQ(plain.schedule.solver, SolverKind::kEuler);
  EXPECT_TRUE(plain.schedule.coefficients.empty());
  EXPECT_EQ(plain.num_samples, 0);
}

TEST_F(JobTargetTest, ASetThatDoesNotFitIsRefused) {
  EXPECT_EQ(Refusal(Distillation()).code(), absl::StatusCode::kNotFound);
  AddSet();
  StoredScheduleSet imported;
  imported.client_name = "imported";
  imported.set.schedules = {{.time_grid = TimeGrid::Uniform(3)}};
  ASSERT_TRUE(store_->AddScheduleSet(teacher_, imported, /*replace=*/false).ok());
  struct Case {
    DistillSpec spec;
    std::string field, text;
  };
  std::vector<Case> cases(7, Case{Distillation(), "spec.schedule_set", ""});
  cases[0].spec.k_max = 9;
  cases[0].text = "another one of 8";
  cases[1].spec.fine_time_grid = {0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 1};
  cases[1].text = "another one of 8";
  cases[2].spec.guidance_scale = 2;
  cases[2].text = "guidance scale 2";
  cases[3].spec.schedule_set = "imported";
  cases[3].text = "has none";
  cases[4].spec.method = DistillMethod::kReflow;
  cases[4].text = "uniform times";
  cases[5].spec.steps = 4;
  cases[5].field = "spec.steps";
  cases[5].text = "[1, 3]";
  cases[6].spec.fresh_schedule = true;
  cases[6].field = "spec.fresh_schedule";
  cases[6].text = "expected false";
  for (const Case& wrong : cases) {
    const absl::Status status = Refusal(wrong.spec);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << wrong.text;
    EXPECT_EQ(FieldOf(status), wrong.field) << status;
    EXPECT_NE(status.message().find(wrong.text), absl::string_view::npos) << status;
  }
}

TEST_F(JobTargetTest, ASetThatIsGoneFailsTheJobUnlessItHasBegun) {
  AddSet();
  // While one job runs, the next one waits.
  executor_.BlockAt(executor_.runs() + 10);
  const Job running = Submit(Distillation()), waiting = Submit(Distillation());
  executor_.WaitUntilBlocked();
  ASSERT_TRUE(manager_->Pause(running.id).ok());
  ASSERT_TRUE(store_->RemoveScheduleSet(teacher_, "multistep-g1-k8").ok());
  executor_.Release();
  const Job failed = Finish(waiting.id);
  EXPECT_EQ(failed.state, JobState::kFailed);
  EXPECT_EQ(failed.error.code(), absl::StatusCode::kFailedPrecondition) << failed.error;
  ASSERT_TRUE(manager_->Resume(running.id).ok());
  EXPECT_EQ(Finish(running.id).state, JobState::kSucceeded);
  EXPECT_EQ(store_->FindSchedule({"student", 1}, 3, 1.0)->schedule.knots, knots_);
}

}  // namespace
}  // namespace boss::server
