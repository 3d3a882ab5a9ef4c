// What jobs count while they run.
#include <string>

#include "tests/server/jobs/job_fixture.h"
#include "tests/support/prometheus_text.h"

namespace boss::server {
namespace {

class JobMetricsTest : public testing::JobTest {
 protected:
  JobMetricsTest() {
    options_.metrics = metrics_.jobs();
    manager_.reset();
    StartManager();
    PublishTeacher();
  }
  ~JobMetricsTest() override {
    executor_.Release();  // a failed test must not hang
    manager_.reset();
  }

  // Of a series, as it is written; of a family, the sum.
  double Value(const std::string& name) const {
    const auto text = boss::testing::ParsePrometheusText(metrics_.Text());
    EXPECT_TRUE(text.ok()) << text.status();
    return text->Sum(name);
  }
  static std::string Stage(const std::string& what, const std::string& kind, const std::string& stage) {
    return "boss_job_stage_seconds_" + what + "{kind=\"" + kind + "\",stage=\"" + stage + "\"}";
  }

  Metrics metrics_{"0", "cpu"};
};

TEST_F(JobMetricsTest, ATrainingCountsItsStepsStagesAndCheckpoints) {
  EXPECT_EQ(Value("boss_last_checkpoint_timestamp_seconds"), 0);
  const absl::Time start = clock_.Now();
  RunToSuccess(ToyTraining());
  EXPECT_EQ(Value("boss_train_steps_total{kind=\"TRAIN\"}"), 30);
  EXPECT_EQ(Value("boss_train_steps_total"), 30);
  for (const char* stage : {"preparing", "training", "publishing"}) {
    EXPECT_EQ(Value(Stage("count", "TRAIN", stage)), 1) << stage;
  }
  EXPECT_EQ(Value("boss_job_stage_seconds_count"), 3);
  // A unit of device work takes 10 ms: the 30 train steps, and what is saved and averaged in between.
  EXPECT_GE(Value(Stage("sum", "TRAIN", "training")), 0.3);
  const double all = absl::ToDoubleSeconds(clock_.Now() - start);
  EXPECT_LE(Value("boss_job_stage_seconds_sum"), all + 1e-9);
  const double saved = Value("boss_last_checkpoint_timestamp_seconds");
  EXPECT_GT(saved, absl::ToDoubleSeconds(start - absl::UnixEpoch()));
  EXPECT_LE(saved, absl::ToDoubleSeconds(clock_.Now() - absl::UnixEpoch()));
}

TEST_F(JobMetricsTest, ADistillationGoesThroughAllItsStages) {
  RunToSuccess(ToyDistillation("student"));
  for (const char* stage : {"preparing", "trajectories", "cost matrix", "schedule", "straightening", "publishing"}) {
    EXPECT_EQ(Value(Stage("count", "DISTILL", stage)), 1) << stage;
  }
  EXPECT_GE(Value(Stage("count", "DISTILL", "pairs")), 1);
  EXPECT_GT(Value(Stage("sum", "DISTILL", "trajectories")), 0);
  EXPECT_EQ(Value("boss_train_steps_total{kind=\"DISTILL\"}"), 20);
}

// A stage that is left early counts, and again when the job goes on with it.
TEST_F(JobMetricsTest, AnInterruptedStageIsLeftAndEnteredAgain) {
  executor_.BlockAt(12);
  const Job job = Submit(ToyTraining());
  executor_.WaitUntilBlocked();
  ASSERT_TRUE(manager_->Pause(job.id).ok());
  executor_.Release();
  WaitForState(job.id, JobState::kPaused);
  EXPECT_EQ(Value(Stage("count", "TRAIN", "training")), 1);
  const double steps = Value("boss_train_steps_total");
  EXPECT_GT(steps, 0);
  EXPECT_LT(steps, 30);
  ASSERT_TRUE(manager_->Resume(job.id).ok());
  EXPECT_EQ(Finish(job.id).state, JobState::kSucceeded);
  EXPECT_EQ(Value(Stage("count", "TRAIN", "training")), 2);
  EXPECT_EQ(Value("boss_train_steps_total"), 30);
}

}  // namespace
}  // namespace boss::server
