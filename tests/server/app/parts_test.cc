// The small parts of the composition root.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/synchronization/mutex.h"
#include "server/app/data_lock.h"
#include "server/app/job_counter.h"
#include "server/app/seed_models.h"
#include "server/app/signals.h"
#include "tests/support/fault_file_system.h"
#include "tests/support/fault_plan.h"
#include "tests/support/power_loss.h"
#include "tests/support/temp_folder.h"
#include "tests/support/tiny_models.h"

namespace boss::server {
namespace {

TEST(DataLockTest, OneHolderAtATime) {
  const boss::testing::TempFolder folder;
  auto first = DataLock::Acquire(folder / "data");
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_TRUE(absl::IsFailedPrecondition(DataLock::Acquire(folder / "data").status()));
  first->reset();
  EXPECT_TRUE(DataLock::Acquire(folder / "data").ok());
}

TEST(DataLockTest, ANewFolderOutlivesAPowerFailure) {
  const boss::testing::TempFolder folder;
  const auto plan = *boss::testing::FaultPlan::Parse("attic=" + (folder / "attic"));
  const boss::testing::FaultFileSystem files(*plan);
  {
    const auto lock = DataLock::Acquire(folder / "new/nested/data", files);
    ASSERT_TRUE(lock.ok()) << lock.status();
    absl::MutexLock power(&plan->power_loss()->mutex());
    plan->power_loss()->Strike();
  }
  EXPECT_TRUE(std::filesystem::is_directory(folder / "new/nested/data"));
  plan->Reset(boss::testing::Fault{"other.mkdir", 1, boss::testing::Fault::Action::kFail, EIO});
  const absl::Status failed = DataLock::Acquire(folder / "another", files).status();
  EXPECT_TRUE(absl::StrContains(failed.message(), "Input/output error")) << failed;
  EXPECT_FALSE(std::filesystem::exists(folder / "another"));
}

TEST(SeedModelsTest, ImportsWhatTheStoreLacksAndLeavesOutWhatItCannot) {
  const boss::testing::TempFolder folder;
  const RealClock clock;
  const auto store = ModelStore::Open(folder / "data", clock);
  ASSERT_TRUE(store.ok()) << store.status();
  boss::testing::PublishTinyModel(**store, "there", boss::testing::kTinyVectorArchitecture);
  boss::testing::WriteSeedModel(folder / "seeds", "there", boss::testing::kTinyVectorArchitecture);
  boss::testing::WriteSeedModel(folder / "seeds", "new", boss::testing::kTinyVectorArchitecture);
  boss::testing::WriteSeedModel(folder / "seeds", "broken", boss::testing::kTinyVectorArchitecture);
  std::filesystem::resize_file(folder / "seeds/broken/model.safetensors", 10);
  std::filesystem::create_directories(folder / "seeds/no-model");
  std::filesystem::create_symlink("circle", folder / "seeds/circle");  // cannot be looked into, whoever looks
  ASSERT_TRUE(ImportSeedModels(**store, folder / "seeds").ok());
  EXPECT_EQ((*store)->GetModel("there")->versions.size(), 1u);
  EXPECT_EQ((*store)->GetModel("new")->versions.size(), 1u);
  EXPECT_FALSE((*store)->GetModel("broken").ok());
  EXPECT_FALSE((*store)->GetModel("no-model").ok());
  EXPECT_TRUE(absl::IsNotFound(ImportSeedModels(**store, folder / "nowhere")));
}

TEST(SeedModelsTest, ImportsNothingMoreOnceItIsToStop) {
  const boss::testing::TempFolder folder;
  const RealClock clock;
  const auto store = ModelStore::Open(folder / "data", clock);
  ASSERT_TRUE(store.ok()) << store.status();
  boss::testing::WriteSeedModel(folder / "seeds", "new", boss::testing::kTinyVectorArchitecture);
  absl::Notification stop;
  stop.Notify();
  EXPECT_TRUE(ImportSeedModels(**store, folder / "seeds", &stop).ok());
  EXPECT_FALSE((*store)->GetModel("new").ok());
}

TEST(JobCounterTest, FollowsJobsThroughTheirStates) {
  JobCounter counter;
  counter.OnChange(JobKind::kTrain, std::nullopt, JobState::kQueued);
  counter.OnChange(JobKind::kTrain, std::nullopt, JobState::kQueued);
  counter.OnChange(JobKind::kTrain, JobState::kQueued, JobState::kRunning);
  counter.OnChange(JobKind::kTrain, JobState::kRunning, JobState::kSucceeded);
  counter.OnChange(JobKind::kTrain, std::nullopt, JobState::kFailed);  // had failed before the start
  const auto families = counter.Collect();
  ASSERT_EQ(families.size(), 2u);
  const auto value = [&](const CollectedFamily& family, const std::string& state) {
    for (const auto& series : family.series) {
      if (series.labels.at(0).second == "TRAIN" && series.labels.at(1).second == state) return series.value;
    }
    return -1.0;
  };
  EXPECT_EQ(families[0].name, "boss_jobs");
  EXPECT_EQ(value(families[0], "QUEUED"), 1);
  EXPECT_EQ(value(families[0], "RUNNING"), 0);
  EXPECT_EQ(families[1].name, "boss_jobs_finished_total");
  EXPECT_EQ(value(families[1], "SUCCEEDED"), 1);
  EXPECT_EQ(value(families[1], "FAILED"), 0);
  EXPECT_EQ(families[0].series.size(), 4u * 5);
  EXPECT_EQ(families[1].series.size(), 4u * 3);
}

TEST(ProcessSignalsTest, EachSignalIsReceivedOnceAndStopEndsTheWait) {
  ProcessSignals signals;
  for (const int signal : {SIGHUP, SIGINT, SIGTERM}) {
    kill(getpid(), signal);
    EXPECT_EQ(signals.Wait(), signal);
  }
  signals.Stop();
  EXPECT_EQ(signals.Wait(), std::nullopt);
  EXPECT_EQ(signals.Wait(), std::nullopt);
}

}  // namespace
}  // namespace boss::server
