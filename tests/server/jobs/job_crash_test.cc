// Jobs that ran when the server ended without a word: what they had saved is not done again, and what keeps crashing
// comes to an end.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "core/io/safetensors.h"
#include "tests/server/jobs/job_fixture.h"

namespace boss::server {
namespace {

using ::testing::ElementsAre;
using testing::ExpectSameWeights;
using ::testing::HasSubstr;
using testing::PayloadsOf;

class JobCrashTest : public testing::JobTest {
 protected:
  // Submits a job that is held at that unit of its run.
  Job SubmitAndHold(JobSpec spec, int64_t unit, const SubmitOptions& options = {}) {
    executor_.BlockAt(executor_.runs() + unit);
    const Job job = Submit(std::move(spec), options);
    executor_.WaitUntilBlocked();
    return job;
  }
  // Crashes, and holds the next run at that unit of its.
  void CrashAndHold(int64_t unit) {
    // The gate is set before the next run begins: nothing of this run gets through it any more.
    const int64_t runs = executor_.runs();
    Crash([&] { executor_.BlockAt(executor_.runs() + unit); });
    executor_.WaitUntilBlocked();
    EXPECT_GE(executor_.runs(), runs + unit);
  }
};

TEST_F(JobCrashTest, AJobThatMakesNoProgressFailsAfterItsCrashes) {
  TrainSpec spec = ToyTraining();
  spec.training.checkpoint_interval = 1000;
  SubmitOptions options;
  options.max_crashes = 2;
  const Job job = SubmitAndHold(spec, 4, options);
  CrashAndHold(4);
  EXPECT_EQ(manager_->Get(job.id)->crashes, 1);
  CrashAndHold(4);
  EXPECT_EQ(manager_->Get(job.id)->crashes, 2);
  Crash();
  const Job failed = Finish(job.id);
  EXPECT_EQ(failed.state, JobState::kFailed);
  EXPECT_EQ(failed.error.code(), absl::StatusCode::kAborted);
  EXPECT_THAT(std::string(failed.error.message()), HasSubstr("3 times in a row"));
  EXPECT_THAT(std::string(failed.error.message()), HasSubstr("training"));
  EXPECT_EQ(failed.starts, 3);
  std::vector<std::string> reasons;
  for (const StateChange& change : PayloadsOf<StateChange>(Follow(job.id))) {
    if (change.to == JobState::kQueued) reasons.push_back(change.reason);
  }
  EXPECT_THAT(reasons, ElementsAre("submitted", HasSubstr("1 of 2"), HasSubstr("2 of 2")));
  // The others go on.
  EXPECT_EQ(Finish(Submit(ToyTraining("other")).id).state, JobState::kSucceeded);
}

TEST_F(JobCrashTest, ProgressThatWasSavedForgivesEarlierCrashes) {
  const Job undisturbed = RunToSuccess(ToyTraining("a"));
  SubmitOptions options;
  options.max_crashes = 1;
  // Unit 1 copies the model; a state is saved every 7 train steps, in a unit of its own. A run that goes on restores in
  // a unit, too.
  const Job job = SubmitAndHold(ToyTraining("b"), 1 + 7 + 1 + 1, options);
  for (int crash = 0; crash < 3; ++crash) {
    CrashAndHold(2 + 7 + 1 + 1);
    EXPECT_EQ(manager_->Get(job.id)->crashes, 0) << crash;
  }
  executor_.Release();
  const Job done = Finish(job.id);
  ASSERT_EQ(done.state, JobState::kSucceeded) << done.error;
  EXPECT_EQ(done.starts, 4);
  ExpectSameWeights(*Output(done), *Output(undisturbed));
}

TEST_F(JobCrashTest, WaitsLongerAfterEachCrash) {
  options_.crash_backoff = absl::Seconds(10);
  TrainSpec spec = ToyTraining();
  spec.training.checkpoint_interval = 1000;
  const Job job = SubmitAndHold(spec, 4);
  for (const absl::Duration expected : {absl::Seconds(10), absl::Seconds(20), absl::Seconds(40)}) {
    Crash();
    const Job waiting = *manager_->Get(job.id);
    EXPECT_EQ(waiting.state, JobState::kQueued);
    EXPECT_EQ(waiting.not_before - waiting.update_time, expected);
    EXPECT_THAT(waiting.state_reason, HasSubstr(absl::FormatDuration(expected)));
    executor_.BlockAt(executor_.runs() + 4);
    clock_.Advance(expected);
    executor_.WaitUntilBlocked();
  }
  executor_.Release();
  EXPECT_EQ(Finish(job.id).state, JobState::kSucceeded);
}

TEST_F(JobCrashTest, WhatAClientAskedForHoldsOverACrash) {
  TrainSpec spec = ToyTraining();
  SubmitOptions options;
  options.max_crashes = 0;
  const Job paused = SubmitAndHold(spec, 4, options);
  ASSERT_TRUE(manager_->Pause(paused.id).ok());
  Crash();
  EXPECT_EQ(manager_->Get(paused.id)->state, JobState::kPaused);
  ASSERT_TRUE(manager_->Cancel(paused.id).ok());
  const Job cancelled = SubmitAndHold(spec, 4, options);
  ASSERT_TRUE(manager_->Cancel(cancelled.id).ok());
  Crash();
  EXPECT_EQ(manager_->Get(cancelled.id)->state, JobState::kCancelled);
}

TEST_F(JobCrashTest, EventsGoOnWithoutGapOrRepeat) {
  const Job job = SubmitAndHold(ToyTraining(), 12);
  std::vector<JobEvent> before;
  Follow(job.id, 1, [&](const JobEvent& event) {
    before.push_back(event);
    return event.sequence == manager_->Get(job.id)->last_sequence;
  });
  Crash();
  const std::vector<JobEvent> all = Follow(job.id);
  ASSERT_GT(all.size(), before.size());
  for (size_t i = 0; i < all.size(); ++i) EXPECT_EQ(all[i].sequence, static_cast<int64_t>(i) + 1);
  for (size_t i = 0; i < before.size(); ++i) {
    EXPECT_EQ(EventToRecord(all[i]).document, EventToRecord(before[i]).document);
  }
}

TEST_F(JobCrashTest, ASearchGoesOnBehindItsSavedBatches) {
  PublishTeacher();
  OptimizeStepsizesSpec spec{"teacher", 8, 20};
  spec.batch_size = 5;
  const int64_t before = executor_.runs();
  const Job undisturbed = RunToSuccess(spec);
  const int64_t units = executor_.runs() - before;
  const auto expected = store_->FindScheduleSet({"teacher", 1}, 1.0, TimeGrid::Uniform(8));
  ASSERT_TRUE(expected.ok());

  // Unit 1 loads the teacher; a batch is 8 evaluations and one that adds it up: this is in the third batch.
  const Job job = SubmitAndHold(spec, 1 + 9 + 9 + 4);
  const int64_t crash_at = executor_.runs();
  int64_t rest = 0;
  Crash([&] { rest = executor_.runs(); });
  EXPECT_GE(rest, crash_at);
  const Job done = Finish(job.id);
  ASSERT_EQ(done.state, JobState::kSucceeded) << done.error;
  EXPECT_EQ(executor_.runs() - rest, units - 18);
  const auto got = store_->FindScheduleSet({"teacher", 1}, 1.0, TimeGrid::Uniform(8));
  ASSERT_TRUE(got.ok());
  EXPECT_EQ((*got)->set.cost_matrix, (*expected)->set.cost_matrix);
  EXPECT_EQ((*got)->job_id, job.id);
}

TEST_F(JobCrashTest, ASearchWhoseSavedSumsAreOfAnotherFormBeginsAnew) {
  const VersionKey key = PublishTeacher();
  OptimizeStepsizesSpec spec{"teacher", 8, 20};
  spec.batch_size = 5;
  spec.max_multistep_steps = 2;
  const int64_t before = executor_.runs();
  RunToSuccess(spec);
  const int64_t units = executor_.runs() - before;
  const StoredScheduleSet euler = **store_->FindScheduleSet(key, 1.0),
                          multistep = **store_->FindScheduleSet(key, 1.0, SolverKind::kMultistep);

  const Job job = SubmitAndHold(spec, 1 + 9 + 9 + 4);
  const std::string path = JobFolder(job) + "/search.safetensors";
  int64_t rest = 0;
  Crash([&] {
    // Of the velocities, each product with itself alone, and no row for the one that does not exist.
    Safetensors state = *ReadSafetensors(path);
    for (auto& [name, tensor] : state.tensors) {
      if (name == "velocity_velocity") tensor = tensor.diagonal().slice(0, 0, 8).clone();
      if (name == "velocity_state") tensor = tensor.slice(0, 0, 8).clone();
    }
    ASSERT_TRUE(WriteSafetensors(path, state).ok());
    rest = executor_.runs();
  });
  const Job done = Finish(job.id);
  ASSERT_EQ(done.state, JobState::kSucceeded) << done.error;
  EXPECT_EQ(executor_.runs() - rest, units);
  EXPECT_EQ((*store_->FindScheduleSet(key, 1.0))->set.cost_matrix, euler.set.cost_matrix);
  const auto again = *store_->FindScheduleSet(key, 1.0, SolverKind::kMultistep);
  EXPECT_EQ(again->job_id, job.id);
  ASSERT_EQ(again->set.schedules.size(), 2u);
  for (size_t i = 0; i < 2; ++i)
    EXPECT_EQ(again->set.schedules[i].coefficients, multistep.set.schedules[i].coefficients);
}

TEST_F(JobCrashTest, AnEvaluationKeepsTheRowsThatItHas) {
  PublishTeacher();
  EvaluateSpec spec;
  spec.model = "teacher";
  spec.steps = {2, 3, 4};
  spec.num_samples = 8;
  spec.k_max = 8;
  spec.reference_dataset = "";
  const Job undisturbed = RunToSuccess(spec);
  // Unit 1 loads the model, 8 draw the fine samples, 2 and 3 the first two rows: this is in the third.
  const Job job = SubmitAndHold(spec, 1 + 8 + 2 + 3 + 2);
  EXPECT_EQ(manager_->Get(job.id)->result.evaluation.size(), 2);
  Crash();
  const Job done = Finish(job.id);
  ASSERT_EQ(done.state, JobState::kSucceeded) << done.error;
  ASSERT_EQ(done.result.evaluation.size(), 3);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(done.result.evaluation[i].steps, spec.steps[i]);
    EXPECT_EQ(done.result.evaluation[i].trajectory_error, undisturbed.result.evaluation[i].trajectory_error);
  }
  EXPECT_EQ(PayloadsOf<EvaluationRow>(Follow(job.id)).size(), 3);
}

TEST_F(JobCrashTest, PairsThatAreDrawnWhileTrainingAreTheSameAfterACrash) {
  PublishTeacher();
  RunToSuccess(OptimizeStepsizesSpec{"teacher", 8, 16});
  DistillSpec spec = ToyDistillation("a");
  spec.regenerate_pairs = true;
  spec.num_noises = 20;  // a block is 20 noises, 60 pairs, 3 train steps of 16
  const int64_t before = executor_.runs();
  const Job undisturbed = RunToSuccess(spec);
  const int64_t units = executor_.runs() - before;
  spec.output_model = "b";
  for (const int64_t unit : {units / 4, units / 2, 3 * units / 4}) {
    const Job job = SubmitAndHold(spec, unit);
    for (const auto& entry : std::filesystem::directory_iterator(JobFolder(job))) {
      EXPECT_EQ(entry.path().filename().string().find("pairs"), std::string::npos) << entry;
    }
    Crash();
    const Job done = Finish(job.id);
    ASSERT_EQ(done.state, JobState::kSucceeded) << done.error;
    ExpectSameWeights(*Output(done), *Output(undisturbed));
  }
  // Other noises than a distillation that stores its pairs: it sees more of them.
  spec.regenerate_pairs = false;
  spec.output_model = "c";
  const auto stored = Output(RunToSuccess(spec))->State(), drawn = Output(undisturbed)->State();
  EXPECT_FALSE(stored.front().second.equal(drawn.front().second));
}

TEST_F(JobCrashTest, StatesAreSavedByTimeToo) {
  options_.checkpoint_period = absl::Milliseconds(95);  // a train step takes 10 ms here
  Start();
  TrainSpec spec = ToyTraining("a");
  spec.training.checkpoint_interval = 1000;
  const Job undisturbed = RunToSuccess(spec);
  spec.output_model = "b";
  const Job job = SubmitAndHold(spec, 1 + 25);
  Crash();
  const Job done = Finish(job.id);
  ASSERT_EQ(done.state, JobState::kSucceeded) << done.error;
  ExpectSameWeights(*Output(done), *Output(undisturbed));
  std::vector<std::string> texts;
  for (const JobMessage& message : PayloadsOf<JobMessage>(Follow(job.id))) texts.push_back(message.text);
  EXPECT_THAT(texts, ElementsAre(HasSubstr("goes on from train step")));
}

}  // namespace
}  // namespace boss::server
