// What the disk's and the journal's metrics tell, over disks that fail.
#include <errno.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "server/app/data_metrics.h"
#include "server/app/timed_file_system.h"
#include "server/app/timed_journal.h"
#include "tests/support/fault_file_system.h"
#include "tests/support/fault_plan.h"
#include "tests/support/fault_vfs.h"
#include "tests/support/forwarding_file_system.h"
#include "tests/support/manual_clock.h"
#include "tests/support/prometheus_text.h"
#include "tests/support/temp_folder.h"
#include "tests/support/tiny_models.h"

namespace boss::server {
namespace {

using boss::testing::Fault;
using boss::testing::FaultFileSystem;
using boss::testing::FaultPlan;
using boss::testing::TempFolder;

class TimedDiskTest : public ::testing::Test {
 protected:
  // The sum of a series, e.g. boss_store_errors_total{operation="sync"}.
  double Value(const std::string& name) const {
    const auto text = boss::testing::ParsePrometheusText(metrics_.Text());
    EXPECT_TRUE(text.ok()) << text.status();
    return text->Sum(name);
  }

  const TempFolder folder_;
  boss::testing::ManualClock clock_;
  FaultPlan plan_;
  const Metrics metrics_{"1", "cpu"};
};

TEST_F(TimedDiskTest, AFullDiskIsAnErrorOfTheOperationThatItFails) {
  const FaultFileSystem disk(plan_);
  const TimedFileSystem files(disk, metrics_.store(), clock_);
  auto store = ModelStore::Open(folder_ / "data", clock_, files);
  ASSERT_TRUE(store.ok()) << store.status();
  EXPECT_EQ(Value("boss_store_errors_total"), 0);  // that files are not there yet is none
  plan_.Reset(Fault{.site = "store.write", .action = Fault::Action::kFail, .error = ENOSPC});
  Manifest manifest;
  manifest.architecture_json = boss::testing::kTinyVectorArchitecture;
  const NamedTensors weights = boss::testing::TinyModel(manifest.architecture_json, 1)->State();
  EXPECT_TRUE(absl::IsResourceExhausted((*store)->Publish("vectors", manifest, weights).status()));
  EXPECT_EQ(Value("boss_store_errors_total{operation=\"append\"}"), 1);
  EXPECT_EQ(Value("boss_store_errors_total"), 1);
  plan_.Reset(Fault{.site = "store.sync", .action = Fault::Action::kFail, .error = EIO});
  EXPECT_FALSE((*store)->Publish("vectors", manifest, weights).ok());
  EXPECT_EQ(Value("boss_store_errors_total{operation=\"sync\"}"), 1);
  plan_.Reset();
  EXPECT_TRUE((*store)->Publish("vectors", manifest, weights).ok());
  EXPECT_EQ(Value("boss_store_errors_total"), 2);
  EXPECT_GT(Value("boss_store_seconds_count{operation=\"sync\"}"), 2);
  EXPECT_GT(Value("boss_store_seconds_count{operation=\"rename\"}"), 0);
}

TEST_F(TimedDiskTest, AnOperationTakesTheTimeThatTheDiskTakes) {
  // A disk on which a rename takes two seconds.
  class SlowDisk final : public boss::testing::ForwardingFileSystem {
   public:
    explicit SlowDisk(boss::testing::ManualClock& clock) : clock_(clock) {}
    absl::Status Rename(const std::string& from, const std::string& to) const override {
      clock_.Advance(absl::Seconds(2));
      return ForwardingFileSystem::Rename(from, to);
    }

   private:
    boss::testing::ManualClock& clock_;
  };
  const SlowDisk disk(clock_);
  const TimedFileSystem files(disk, metrics_.store(), clock_);
  ASSERT_TRUE(files.CreateFolders(folder_ / "a").ok());
  ASSERT_TRUE(files.Rename(folder_ / "a", folder_ / "b").ok());
  EXPECT_TRUE(absl::IsNotFound(files.Rename(folder_ / "a", folder_ / "b")));
  EXPECT_EQ(Value("boss_store_seconds_sum{operation=\"rename\"}"), 4);
  EXPECT_EQ(Value("boss_store_seconds_count{operation=\"rename\"}"), 2);
  EXPECT_EQ(Value("boss_store_seconds_sum{operation=\"mkdir\"}"), 0);
  EXPECT_EQ(Value("boss_store_errors_total"), 0);
}

TEST_F(TimedDiskTest, AJournalThatCannotWriteCountsWhatItRefused) {
  boss::testing::FaultVfs vfs(plan_);
  auto sqlite = SqliteJobJournal::Open(folder_ / kJournalFile, vfs.name());
  ASSERT_TRUE(sqlite.ok()) << sqlite.status();
  TimedJournal journal(*std::move(sqlite), metrics_.journal(), clock_);
  ASSERT_TRUE(journal.Insert({.id = "a", .document = "{}"}, {}).ok());
  plan_.Reset(Fault{.site = "wal.write", .action = Fault::Action::kFail, .error = ENOSPC, .lasting = true});
  EXPECT_FALSE(journal.Update("a", "{\"b\": 1}", {}).ok());
  plan_.Reset();
  EXPECT_TRUE(journal.Update("a", "{\"b\": 1}", {}).ok());
  EXPECT_TRUE(absl::IsNotFound(journal.Update("b", "{}", {})));
  EXPECT_TRUE(absl::IsNotFound(journal.Delete("b")));
  EXPECT_EQ(journal.LoadAll()->size(), 1u);
  EXPECT_TRUE(journal.Events("a", 1, 10).ok());
  EXPECT_EQ(Value("boss_journal_seconds_count{operation=\"insert\"}"), 1);
  EXPECT_EQ(Value("boss_journal_seconds_count{operation=\"update\"}"), 3);
  EXPECT_EQ(Value("boss_journal_seconds_count{operation=\"delete\"}"), 1);
  EXPECT_EQ(Value("boss_journal_seconds_count{operation=\"load\"}"), 1);
  EXPECT_EQ(Value("boss_journal_seconds_count{operation=\"events\"}"), 1);
  EXPECT_EQ(Value("boss_journal_errors_total{operation=\"update\"}"), 1);
  EXPECT_EQ(Value("boss_journal_errors_total"), 1);
}

TEST_F(TimedDiskTest, TheDataFolderSaysWhatItHolds) {
  const auto store = ModelStore::Open(folder_.path(), clock_);
  ASSERT_TRUE(store.ok()) << store.status();
  boss::testing::PublishTinyModel(**store, "vectors", boss::testing::kTinyVectorArchitecture);
  const auto journal = SqliteJobJournal::Open(folder_ / kJournalFile);
  ASSERT_TRUE(journal.ok()) << journal.status();
  const auto value = [&](const std::string& name) {
    for (const CollectedFamily& family : CollectData(**store, PosixFileSystem(), folder_.path())) {
      if (family.name == name) return family.series.at(0).value;
    }
    return -1.0;
  };
  EXPECT_EQ(value("boss_model_versions"), 1);
  EXPECT_GT(value("boss_store_bytes"), 1000);
  const double before = value("boss_journal_bytes");
  EXPECT_GT(before, 0);
  ASSERT_TRUE((*journal)->Insert({.id = "a", .document = std::string(100'000, 'x')}, {}).ok());
  EXPECT_GT(value("boss_journal_bytes"), before + 100'000);
  EXPECT_GT(value("boss_data_free_bytes"), 0);
  EXPECT_GT(value("boss_data_size_bytes"), value("boss_data_free_bytes"));
}

}  // namespace
}  // namespace boss::server
