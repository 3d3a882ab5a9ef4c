// Retention, the low-water mark, limits on disk, and versions that jobs hold.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <limits>
#include <string>

#include "absl/strings/match.h"
#include "tests/server/jobs/job_fixture.h"
#include "tests/support/forwarding_file_system.h"
#include "tests/support/scripted_disk.h"

namespace boss::server {
namespace {

using ::testing::HasSubstr;
using testing::PayloadsOf;

// A disk whose free space a test decides.
class SmallDisk final : public boss::testing::ForwardingFileSystem {
 public:
  absl::StatusOr<int64_t> FreeBytes(const std::string&) const override { return free_bytes.load(); }
  std::atomic<int64_t> free_bytes = std::numeric_limits<int64_t>::max();
};

class JobUpkeepTest : public testing::JobTest {
 protected:
  void RestartWithDisk() {
    manager_.reset();
    options_.files = &disk_;
    options_.min_free_bytes = int64_t{64} << 20;
    StartManager();
  }
  ~JobUpkeepTest() override { manager_.reset(); }

  SmallDisk disk_;
};

TEST_F(JobUpkeepTest, FinishedJobsGoWhenTheirTimeIsUp) {
  options_.retention = absl::Hours(2);
  Start();
  SubmitOptions options;
  options.retention = absl::Hours(1);
  options.request_id = "request";
  const Job brief = Finish(Submit(ToyTraining(), options).id);
  const Job usual = Finish(Submit(ToyTraining()).id);
  EXPECT_EQ(brief.expire_time(), brief.end_time + absl::Hours(1));
  EXPECT_EQ(usual.expire_time(), usual.end_time + absl::Hours(2));
  clock_.Advance(absl::Hours(1));
  // A start deletes what is due; so does everything that a job does.
  options_.id_seed = 2;  // other ids than those of deleted jobs
  Start();
  EXPECT_TRUE(absl::IsNotFound(manager_->Get(brief.id).status()));
  EXPECT_TRUE(manager_->Get(usual.id).ok());
  EXPECT_GT(Submit(ToyTraining(), options).create_time, brief.create_time);
  clock_.Advance(absl::Hours(1));
  RunToSuccess(ToyTraining());
  EXPECT_TRUE(absl::IsNotFound(manager_->Get(usual.id).status()));
  EXPECT_TRUE(absl::IsNotFound(manager_->Watch(usual.id, 1, [] {}).status()));
  // What they published stays.
  EXPECT_TRUE(store_->Resolve("toy@1").ok());
}

TEST_F(JobUpkeepTest, TrainingStatesOfFailedJobsGoBeforeTheJobs) {
  options_.data_retention = absl::Hours(1);
  Start();
  SubmitOptions options;
  options.deadline = clock_.Now() + absl::Milliseconds(150);
  const Job failed = Finish(Submit(ToyTraining(), options).id);
  ASSERT_EQ(failed.error.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_GT(manager_->StoredBytes(failed.id), 0);
  clock_.Advance(absl::Hours(1));
  RunToSuccess(ToyTraining());
  EXPECT_EQ(manager_->StoredBytes(failed.id), 0);
  EXPECT_FALSE(std::filesystem::exists(JobFolder(failed)));
  EXPECT_EQ(manager_->Get(failed.id)->state, JobState::kFailed);
}

TEST_F(JobUpkeepTest, ClientsAreAnsweredWhileFoldersAreRemoved) {
  const std::string other = RunToSuccess(ToyTraining()).id;
  manager_.reset();
  boss::testing::ScriptedDisk disk;
  std::atomic<int> answers = 0;
  disk.before = [&](const std::string& operation, const std::string& path) {
    const bool is_folder = operation == "remove" && absl::StrContains(path, "/jobs/") &&
                           !absl::StrContains(path, ".safetensors");
    // Is not answered if the folder is removed under the manager's lock.
    if (is_folder && manager_->Get(other).ok()) ++answers;
    return absl::OkStatus();
  };
  options_.files = &disk;
  StartManager();
  executor_.BlockAt(executor_.runs() + 1);
  const Job running = Submit(ToyTraining());
  executor_.WaitUntilBlocked();
  const Job queued = Submit(ToyTraining());
  ASSERT_TRUE(manager_->Cancel(queued.id).ok());
  EXPECT_EQ(answers, 1);
  ASSERT_TRUE(manager_->Delete(queued.id).ok());
  EXPECT_EQ(answers, 2);
  executor_.Release();
  EXPECT_EQ(Finish(running.id).state, JobState::kSucceeded);
  manager_->Shutdown();
  EXPECT_EQ(answers, 3);
  manager_.reset();  // before the disk
}

TEST_F(JobUpkeepTest, AFullDiskMakesJobsWaitAndSaysSo) {
  RestartWithDisk();
  disk_.free_bytes = int64_t{10} << 20;
  const Job job = Submit(ToyTraining());
  Follow(job.id, 1, [](const JobEvent& event) { return std::holds_alternative<JobMessage>(event.payload); });
  const Job waiting = *manager_->Get(job.id);
  EXPECT_EQ(waiting.state, JobState::kQueued);
  EXPECT_THAT(waiting.state_reason, HasSubstr("10 MiB of disk are free, the low-water mark is 64 MiB"));
  EXPECT_EQ(manager_->List({})->jobs.front().state_reason, waiting.state_reason);
  disk_.free_bytes = int64_t{100} << 20;
  const Job done = Finish(job.id);
  EXPECT_EQ(done.state, JobState::kSucceeded) << done.error;
  EXPECT_EQ(done.state_reason, "");
}

TEST_F(JobUpkeepTest, PairsThatTakeTooMuchDiskAreRefusedBeforeAnythingIsDrawn) {
  options_.max_data_bytes = 1000;
  Start();
  PublishTeacher();
  const Job failed = Finish(Submit(ToyDistillation("a")).id);
  EXPECT_EQ(failed.error.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(failed.error.message()), HasSubstr("regenerate_pairs"));
  EXPECT_EQ(failed.result.velocity_evaluations, 0);
  DistillSpec spec = ToyDistillation("a");
  spec.regenerate_pairs = true;
  RunToSuccess(spec);
}

TEST_F(JobUpkeepTest, InputsOfLiveJobsCannotBeDeleted) {
  const VersionKey teacher = PublishTeacher();
  PublishTeacher();  // so that the first is not the newest
  executor_.BlockAt(executor_.runs() + 5);
  OptimizeStepsizesSpec spec{"teacher@1", 8, 16};
  const Job job = Submit(spec);
  executor_.WaitUntilBlocked();
  const absl::Status refused = store_->DeleteVersion(teacher, /*force=*/false);
  EXPECT_TRUE(absl::IsFailedPrecondition(refused));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("job " + job.id));
  // Not by a server that was started again, either.
  Crash([&] { executor_.BlockAt(executor_.runs() + 5); });
  executor_.WaitUntilBlocked();
  EXPECT_TRUE(absl::IsFailedPrecondition(store_->DeleteVersion(teacher, /*force=*/false)));
  executor_.Release();
  Finish(job.id);
  EXPECT_TRUE(store_->DeleteVersion(teacher, /*force=*/false).ok());
}

TEST_F(JobUpkeepTest, AForcedDeletionFailsTheJobWithTheReason) {
  const VersionKey teacher = PublishTeacher();
  executor_.BlockAt(1);
  Submit(ToyTraining());
  executor_.WaitUntilBlocked();
  const Job job = Submit(OptimizeStepsizesSpec{"teacher", 8, 16});
  EXPECT_TRUE(store_->DeleteVersion(teacher, /*force=*/true).ok());
  executor_.Release();
  const Job failed = Finish(job.id);
  EXPECT_EQ(failed.state, JobState::kFailed);
  EXPECT_EQ(failed.error.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(failed.error.message()), HasSubstr("teacher"));
}

TEST_F(JobUpkeepTest, RefusesOptionsThatMakeNoSense) {
  SubmitOptions options;
  options.retention = -absl::Seconds(1);
  EXPECT_TRUE(absl::IsInvalidArgument(manager_->Submit(ToyTraining(), options).status()));
  options = {};
  options.max_crashes = -1;
  EXPECT_TRUE(absl::IsInvalidArgument(manager_->Submit(ToyTraining(), options).status()));
}

}  // namespace
}  // namespace boss::server
