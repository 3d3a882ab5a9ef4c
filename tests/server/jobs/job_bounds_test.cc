// Jobs that do not fit, into memory or onto the disk, and samplers that diverge: what can go on goes on.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "server/device/host_memory.h"
#include "server/jobs/multistep_search.h"
#include "tests/server/jobs/job_fixture.h"
#include "tests/support/scripted_disk.h"

namespace boss::server {
namespace {

using ::testing::HasSubstr;
using testing::PayloadsOf;

class JobBoundsTest : public testing::JobTest {
 protected:
  ~JobBoundsTest() override { manager_.reset(); }  // before the disk

  void Restart() {
    manager_.reset();
    StartManager();
  }
  void ExpectNoMemory(JobSpec spec) {
    const Job failed = Finish(Submit(std::move(spec)).id);
    EXPECT_EQ(failed.error.code(), absl::StatusCode::kResourceExhausted) << failed.error;
    EXPECT_THAT(std::string(failed.error.message()), HasSubstr("--max-host-memory-bytes"));
    EXPECT_EQ(failed.result.velocity_evaluations, 0);
  }
  // The texts of a job's warnings.
  std::vector<std::string> WarningsOf(const Job& job) {
    std::vector<std::string> texts;
    for (const JobMessage& message : PayloadsOf<JobMessage>(Follow(job.id))) {
      if (message.severity == Severity::kWarning) texts.push_back(message.text);
    }
    return texts;
  }
  OptimizeStepsizesSpec MultistepSearchSpec() const {
    OptimizeStepsizesSpec spec{"teacher", 6, 12};
    spec.batch_size = 4;
    spec.max_multistep_steps = 3;
    return spec;
  }

  boss::testing::ScriptedDisk disk_;
};

TEST_F(JobBoundsTest, PairsAndSamplesThatDoNotFitIntoMemoryAreRefusedBeforeAnythingIsDrawn) {
  PublishTeacher();
  const absl::Cleanup unlimited = [] { LimitHostMemory(std::numeric_limits<int64_t>::max()); };
  LimitHostMemory(1000);
  DistillSpec distill = ToyDistillation("student");  // a pair takes 16 bytes, and there are 150
  ExpectNoMemory(distill);
  // Two blocks of 11 noises with 3 pairs each.
  distill.num_noises = 11;
  distill.held_out_share = 0;
  distill.regenerate_pairs = true;
  ExpectNoMemory(distill);
  distill.num_noises = 10;
  RunToSuccess(distill);
  // 30 pairs, and those of 10 held-out noises at 6 times.
  distill.regenerate_pairs = false;
  distill.method = DistillMethod::kReflow;
  distill.steps = 6;
  distill.num_noises = 20;
  distill.held_out_share = 0.5;
  ExpectNoMemory(distill);
  distill.held_out_share = 0;
  RunToSuccess(distill);

  EvaluateSpec evaluate;
  evaluate.model = "teacher";
  evaluate.steps = {2};
  evaluate.k_max = 4;
  evaluate.num_samples = 63;
  evaluate.reference_dataset = "";
  ExpectNoMemory(evaluate);
  distill.evaluation = evaluate;
  ExpectNoMemory(distill);
  evaluate.num_samples = 62;
  RunToSuccess(evaluate);
}

TEST_F(JobBoundsTest, StatesOfMultistepFitsAreBounded) {
  OptimizeStepsizesSpec spec{"teacher", 100, 1000};
  constexpr int64_t kDisk = int64_t{1} << 50;
  EXPECT_EQ(KeptTrajectories(spec, {2}, kDisk), 0);
  spec.max_multistep_steps = 7;
  EXPECT_EQ(KeptTrajectories(spec, {3, 32, 32}, kDisk), 256);
  // 8 states of 12 MiB.
  EXPECT_EQ(KeptTrajectories(spec, {3, 1024, 1024}, kDisk), 1024 / (8 * 12));
  // 101 states of 8 bytes.
  EXPECT_EQ(KeptTrajectories(spec, {2}, 5 * 808), 5);
  spec.num_samples = 4;
  EXPECT_EQ(KeptTrajectories(spec, {2}, kDisk), 4);
}

TEST_F(JobBoundsTest, AFullDiskCostsASearchItsMultistepSchedulesAlone) {
  const VersionKey key = PublishTeacher();
  const OptimizeStepsizesSpec spec = MultistepSearchSpec();
  const std::vector<Schedule> expected = [&] {
    RunToSuccess(spec);
    return (*store_->FindScheduleSet(key, 1.0))->set.schedules;
  }();
  const std::string multistep = (*store_->FindScheduleSet(key, 1.0, SolverKind::kMultistep))->Name();
  ASSERT_TRUE(store_->RemoveScheduleSet(key, multistep).ok());
  // There is room for the first batch's states only.
  disk_.before = [](const std::string& operation, const std::string& path) {
    const bool fails = operation == "create" && absl::StrContains(path, "states-") && !absl::StrContains(path, "-0");
    return fails ? absl::ResourceExhaustedError("no space left in the test") : absl::OkStatus();
  };
  options_.files = &disk_;
  Restart();
  const auto expect_eulers_set_alone = [&](const Job& job) {
    EXPECT_EQ(job.state, JobState::kSucceeded) << job.error;
    const std::vector<std::string> warnings = WarningsOf(job);
    ASSERT_EQ(warnings.size(), 1u);
    EXPECT_THAT(warnings[0], HasSubstr("no multistep schedules"));
    EXPECT_THAT(warnings[0], HasSubstr("no space left in the test"));
    const auto euler = store_->FindScheduleSet(key, 1.0);
    ASSERT_TRUE(euler.ok()) << euler.status();
    EXPECT_EQ((*euler)->job_id, job.id);
    for (size_t i = 0; i < expected.size(); ++i) EXPECT_EQ((*euler)->set.schedules[i].knots, expected[i].knots);
    EXPECT_FALSE(store_->FindScheduleSet(key, 1.0, SolverKind::kMultistep).ok());
  };
  expect_eulers_set_alone(Finish(Submit(spec).id));
  // A run that goes on does so without them: unit 1 loads the teacher, a batch takes 6 evaluations and 2 sums, and the
  // crash is in the third.
  executor_.BlockAt(executor_.runs() + 1 + 8 + 8 + 3);
  const Job job = Submit(spec);
  executor_.WaitUntilBlocked();
  int64_t units = 0;
  Crash([&] { units = executor_.runs(); });
  expect_eulers_set_alone(Finish(job.id));
  EXPECT_EQ(executor_.runs() - units, 1 + 7);
}

TEST_F(JobBoundsTest, SchedulesThatWereFittedToOtherNoisesAreFittedAgain) {
  const VersionKey key = PublishTeacher();
  OptimizeStepsizesSpec spec = MultistepSearchSpec();
  constexpr int64_t kTwoBatches = 8 * 7 * 2 * sizeof(float);  // 8 trajectories of 7 states
  options_.max_data_bytes = kTwoBatches;
  Restart();
  spec.schedule_set = "whole";
  RunToSuccess(spec);
  const auto whole = *store_->FindScheduleSet(key, "whole-multistep");
  options_.max_data_bytes = int64_t{1} << 30;
  Restart();
  spec.schedule_set = "other";
  const int64_t before = executor_.runs();
  RunToSuccess(spec);
  const int64_t units = executor_.runs() - before;
  spec.schedule_set = "crashed";
  executor_.BlockAt(executor_.runs() + units - 1);
  const Job job = Submit(spec);
  executor_.WaitUntilBlocked();
  Crash([&] { options_.max_data_bytes = kTwoBatches; });
  EXPECT_EQ(Finish(job.id).state, JobState::kSucceeded);
  const auto crashed = store_->FindScheduleSet(key, "crashed-multistep");
  ASSERT_TRUE(crashed.ok()) << crashed.status();
  EXPECT_EQ((*crashed)->set.num_samples, 8);
  EXPECT_EQ((*crashed)->set.num_held_out, 2);
  ASSERT_EQ((*crashed)->set.schedules.size(), 3u);
  for (size_t i = 0; i < 3; ++i)
    EXPECT_EQ((*crashed)->set.schedules[i].coefficients, whole->set.schedules[i].coefficients);
}

TEST_F(JobBoundsTest, AStudentThatDivergesIsPublishedWithEulersSteps) {
  // Deep enough to overflow with weights of about 1000, which one train step makes.
  Manifest deep;
  deep.architecture_json = R"({"model":{"architecture":"mlp","dim":2,"hidden":32,"layers":12}})";
  NamedTensors weights = (*CreateModel(deep.architecture_json, 3))->State();
  for (auto& [name, tensor] : weights) tensor = tensor.detach() * 2;
  ASSERT_TRUE(store_->Publish("teacher", deep, weights).ok());
  DistillSpec spec = ToyDistillation("student");
  spec.held_out_share = 0.2;
  spec.fit_multistep = true;
  spec.training.train_steps = 1;
  spec.training.trainer.learning_rate = 1000;
  spec.training.trainer.warmup_steps = 0;
  spec.training.trainer.decay_steps = 0;
  spec.training.trainer.ema_rate = 0;
  EvaluateSpec& evaluation = spec.evaluation.emplace();
  evaluation.num_samples = 8;
  evaluation.k_max = 8;
  const Job job = RunToSuccess(spec);
  const std::vector<std::string> warnings = WarningsOf(job);
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_THAT(warnings[0], HasSubstr("the sampler diverged"));
  EXPECT_EQ(job.result.schedule->solver, SolverKind::kEuler);
  EXPECT_FALSE(std::isfinite(job.result.evaluation.back().trajectory_error));
  EXPECT_FALSE(std::isfinite(*job.metrics.held_out_loss));
  Start();
  EXPECT_EQ(store_->FindSchedule({"student", 1}, 3, 1.0)->schedule.solver, SolverKind::kEuler);
  EXPECT_EQ(manager_->Get(job.id)->state, JobState::kSucceeded);
  EXPECT_FALSE(std::isfinite(*manager_->Get(job.id)->metrics.held_out_loss));
}

}  // namespace
}  // namespace boss::server
