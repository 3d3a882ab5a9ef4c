// Jobs that stop and go on: what they publish is, bit for bit, what they would have published undisturbed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "tests/server/jobs/job_fixture.h"
#include "tests/support/scripted_disk.h"

namespace boss::server {
namespace {

using testing::ExpectSameWeights;
using ::testing::HasSubstr;
using testing::PayloadsOf;

// Units of a toy training up to its 16th train step: the model is copied, and the states of steps 7 and 14 are saved.
constexpr int64_t kUnitOfStep16 = 1 + 16 + 2;

class JobResumeTest : public testing::JobTest {
 protected:
  // Blocks the next job at each of `units` (counted from its first), pauses it there, and resumes it.
  Job RunWithPauses(JobSpec spec, const std::vector<int64_t>& units) {
    const int64_t first = executor_.runs();
    executor_.BlockAt(first + units[0]);
    const Job job = Submit(std::move(spec));
    for (size_t i = 0; i < units.size(); ++i) {
      executor_.WaitUntilBlocked();
      EXPECT_EQ(manager_->Pause(job.id)->state, JobState::kPausing);
      executor_.Release();
      WaitForState(job.id, JobState::kPaused);
      if (i + 1 < units.size()) executor_.BlockAt(executor_.runs() + units[i + 1]);
      EXPECT_EQ(manager_->Resume(job.id)->state, JobState::kQueued);
    }
    const Job done = Finish(job.id);
    EXPECT_EQ(done.state, JobState::kSucceeded) << done.error;
    EXPECT_EQ(done.starts, static_cast<int>(units.size()) + 1);
    return done;
  }

  // Shuts the manager down while the job waits at the gate, and starts another one on the same folder.
  void ShutdownAtTheGateAndRestart() {
    std::thread shutdown([&] { manager_->Shutdown(); });
    SubmitOptions probe;
    probe.validate_only = true;
    while (manager_->Submit(ToyTraining(), probe).ok()) std::this_thread::yield();
    executor_.Release();
    shutdown.join();
    Start();
  }
};

TEST_F(JobResumeTest, PausedTrainingEqualsUndisturbedTraining) {
  const Job undisturbed = RunToSuccess(ToyTraining("a"));
  const Job paused = RunWithPauses(ToyTraining("b"), {6, 9, 14});
  ExpectSameWeights(*Output(paused), *Output(undisturbed));
}

TEST_F(JobResumeTest, APauseWhoseStateCannotBeSavedSaysSo) {
  const Job undisturbed = RunToSuccess(ToyTraining("a"));
  manager_.reset();
  boss::testing::ScriptedDisk disk;
  std::atomic<bool> fails = false;
  disk.before = [&](const std::string& operation, const std::string& path) {
    const bool is_state = operation == "sync" && absl::StrContains(path, "state-");
    return is_state && fails ? absl::DataLossError("an error of the test") : absl::OkStatus();
  };
  options_.files = &disk;
  StartManager();
  executor_.BlockAt(executor_.runs() + kUnitOfStep16);
  const Job job = Submit(ToyTraining("b"));
  executor_.WaitUntilBlocked();
  ASSERT_TRUE(manager_->Pause(job.id).ok());
  fails = true;
  executor_.Release();
  WaitForState(job.id, JobState::kPaused);
  fails = false;
  const Job paused = *manager_->Get(job.id);
  EXPECT_THAT(paused.state_reason, HasSubstr("an error of the test"));
  const auto is_news = [](const JobEvent& event) {
    const auto* change = std::get_if<StateChange>(&event.payload);
    return change != nullptr && change->to == JobState::kPaused;
  };
  const std::vector<JobEvent> events = Follow(job.id, 1, is_news);
  EXPECT_THAT(std::get<StateChange>(events.back().payload).reason, HasSubstr("an error of the test"));
  const auto messages = PayloadsOf<JobMessage>(events);
  ASSERT_FALSE(messages.empty());
  EXPECT_EQ(messages.back().severity, Severity::kWarning);
  EXPECT_THAT(messages.back().text, HasSubstr("an error of the test"));
  // It goes on from the state before.
  ASSERT_TRUE(manager_->Resume(job.id).ok());
  const Job done = Finish(job.id);
  EXPECT_EQ(done.state, JobState::kSucceeded) << done.error;
  ExpectSameWeights(*Output(done), *Output(undisturbed));
  manager_.reset();  // before the disk
}

TEST_F(JobResumeTest, APauseIsTakenBackBeforeItTakesEffect) {
  const Job undisturbed = RunToSuccess(ToyTraining("a"));
  executor_.BlockAt(executor_.runs() + 8);
  const Job job = Submit(ToyTraining("b"));
  executor_.WaitUntilBlocked();
  EXPECT_EQ(manager_->Pause(job.id)->state, JobState::kPausing);
  EXPECT_EQ(manager_->Resume(job.id)->state, JobState::kRunning);
  executor_.Release();
  const Job done = Finish(job.id);
  EXPECT_EQ(done.state, JobState::kSucceeded);
  EXPECT_EQ(done.starts, 1);
  ExpectSameWeights(*Output(done), *Output(undisturbed));
}

TEST_F(JobResumeTest, AJobGoesOnAfterShutdownAndRestart) {
  const Job undisturbed = RunToSuccess(ToyTraining("a"));
  executor_.BlockAt(executor_.runs() + kUnitOfStep16);
  const Job job = Submit(ToyTraining("b"));
  executor_.WaitUntilBlocked();
  ShutdownAtTheGateAndRestart();
  const Job done = Finish(job.id);
  EXPECT_EQ(done.state, JobState::kSucceeded) << done.error;
  EXPECT_EQ(done.starts, 2);
  ExpectSameWeights(*Output(done), *Output(undisturbed));
  // One history, without a gap where the server was down.
  const std::vector<JobEvent> events = Follow(job.id);
  for (size_t i = 0; i < events.size(); ++i) EXPECT_EQ(events[i].sequence, static_cast<int64_t>(i) + 1);
  std::vector<JobState> states;
  for (const StateChange& change : PayloadsOf<StateChange>(events)) states.push_back(change.to);
  EXPECT_EQ(states, (std::vector<JobState>{JobState::kQueued, JobState::kRunning, JobState::kQueued, JobState::kRunning,
                                           JobState::kSucceeded}));
}

TEST_F(JobResumeTest, AJobGoesOnAfterACrash) {
  const Job undisturbed = RunToSuccess(ToyTraining("a"));
  executor_.BlockAt(executor_.runs() + kUnitOfStep16);
  const Job job = Submit(ToyTraining("b"));
  executor_.WaitUntilBlocked();
  Crash();
  const std::vector<JobEvent> events = Follow(job.id);
  const Job done = *manager_->Get(job.id);
  ASSERT_EQ(done.state, JobState::kSucceeded) << done.error;
  ExpectSameWeights(*Output(done), *Output(undisturbed));
  bool went_on = false;
  for (const JobMessage& message : PayloadsOf<JobMessage>(events)) {
    went_on = went_on || message.text.find("goes on from train step 14") != std::string::npos;
  }
  EXPECT_TRUE(went_on);
}

TEST_F(JobResumeTest, ADamagedTrainingStateIsPassedOver) {
  const Job undisturbed = RunToSuccess(ToyTraining("a"));
  executor_.BlockAt(executor_.runs() + kUnitOfStep16);
  const Job job = Submit(ToyTraining("b"));
  executor_.WaitUntilBlocked();
  ASSERT_TRUE(manager_->Pause(job.id).ok());
  executor_.Release();
  WaitForState(job.id, JobState::kPaused);
  // The state of the pause, and the checkpoint before it.
  const std::string newest = JobFolder(job) + "/state-16.safetensors";
  ASSERT_TRUE(std::filesystem::exists(newest));
  ASSERT_TRUE(std::filesystem::exists(JobFolder(job) + "/state-14.safetensors"));
  EXPECT_FALSE(std::filesystem::exists(JobFolder(job) + "/state-7.safetensors"));
  std::filesystem::resize_file(newest, 1000);
  ASSERT_TRUE(manager_->Resume(job.id).ok());
  const Job done = Finish(job.id);
  EXPECT_EQ(done.state, JobState::kSucceeded) << done.error;
  ExpectSameWeights(*Output(done), *Output(undisturbed));
  bool warned = false;
  for (const JobMessage& message : PayloadsOf<JobMessage>(Follow(job.id)))
    warned = warned || message.severity == Severity::kWarning;
  EXPECT_TRUE(warned);
}

TEST_F(JobResumeTest, ADistillationPausedWhileDrawingPairsEqualsAnUndisturbedOne) {
  PublishTeacher();
  RunToSuccess(OptimizeStepsizesSpec{"teacher", 8, 16});
  const int64_t before = executor_.runs();
  const Job undisturbed = RunToSuccess(ToyDistillation("a"));
  const int64_t between = executor_.runs();
  // One unit loads the teacher, 10 batches of 8 evaluations draw the pairs, in pieces of 4 batches: this is in the
  // second piece.
  const Job paused = RunWithPauses(ToyDistillation("b"), {1 + 32 + 7});
  ExpectSameWeights(*Output(paused), *Output(undisturbed));
  // The teacher is loaded again and the 7 evaluations of the second piece are lost; the first piece is not drawn again.
  EXPECT_EQ(executor_.runs() - between, between - before + 1 + 7);
}

TEST_F(JobResumeTest, ADistillationPausedWhileStraighteningEqualsAnUndisturbedOne) {
  PublishTeacher();
  RunToSuccess(OptimizeStepsizesSpec{"teacher", 8, 16});
  const Job undisturbed = RunToSuccess(ToyDistillation("a"));
  const Job paused = RunWithPauses(ToyDistillation("b"), {1 + 80 + 1 + 4, 5});
  ExpectSameWeights(*Output(paused), *Output(undisturbed));
}

TEST_F(JobResumeTest, AVersionIsPublishedOnceEvenIfTheEndIsLost) {
  const Job first = RunToSuccess(ToyTraining("a"));
  manager_.reset();
  // The process died between publishing and recording it.
  Job lost = first;
  lost.state = JobState::kRunning;
  lost.output_version.clear();
  ASSERT_TRUE(journal_->Update(first.id, JobToJson(lost), {}).ok());
  Start();
  const Job done = Finish(first.id);
  EXPECT_EQ(done.state, JobState::kSucceeded) << done.error;
  EXPECT_EQ(done.output_version, "a@1");
  EXPECT_EQ(store_->GetModel("a")->versions.size(), 1);
}

TEST_F(JobResumeTest, AJobThatCannotBeReadIsSetAsideAndTheOthersGoOn) {
  SubmitOptions options;
  options.request_id = "damaged";
  const Job damaged = Submit(ToyTraining("a"), options);
  Finish(damaged.id);
  const Job other = RunToSuccess(ToyTraining("b"));
  manager_.reset();
  ASSERT_TRUE(journal_->Update(damaged.id, R"({"id":"0"})", {}).ok());
  std::filesystem::create_directories(JobFolder(damaged));
  Start();
  EXPECT_EQ(manager_->Get(damaged.id).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(manager_->Cancel(damaged.id).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(manager_->Get(other.id).ok());
  EXPECT_EQ(manager_->List({})->jobs.size(), 1u);
  EXPECT_EQ(journal_->LoadAll()->size(), 2u);
  EXPECT_TRUE(std::filesystem::exists(JobFolder(damaged)));
  // It keeps its request_id, too.
  EXPECT_EQ(manager_->Submit(ToyTraining("a"), options).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(manager_->Submit(ToyTraining("c"), options).status().code(), absl::StatusCode::kAlreadyExists);
  RunToSuccess(ToyTraining("b"));

  ASSERT_TRUE(manager_->Delete(damaged.id).ok());
  EXPECT_EQ(manager_->Get(damaged.id).status().code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(std::filesystem::exists(JobFolder(damaged)));
  EXPECT_EQ(Finish(Submit(ToyTraining("a"), options).id).state, JobState::kSucceeded);
}

}  // namespace
}  // namespace boss::server
