// The disk that fails is itself to be relied on: it fails where it is told to, and forgets what was not flushed and
// nothing else.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <cerrno>
#include <filesystem>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "core/io/atomic_file.h"
#include "server/store/job_journal.h"
#include "tests/support/fault_file_system.h"
#include "tests/support/fault_plan.h"
#include "tests/support/fault_vfs.h"
#include "tests/support/temp_folder.h"

namespace boss::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

TEST(FaultPlanTest, ReadsPlansAndRefusesOthers) {
  for (const char* text :
       {"", "site=wal.sync n=3 do=kill-half", "do=fail error=EIO lasting=1", "unarmed=1 counts=/tmp/x"})
    EXPECT_TRUE(FaultPlan::Parse(text).ok()) << text;
  for (const char* text : {"n=0", "n=x do=fail", "do=explode", "error=EAGAIN", "sight=wal.sync"})
    EXPECT_EQ(FaultPlan::Parse(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
}

class FaultDiskTest : public ::testing::Test {
 protected:
  FaultDiskTest() : plan_(*FaultPlan::Parse(absl::StrCat("attic=", folder_ / "attic"))), files_(*plan_) {
    EXPECT_TRUE(files_.CreateFolders(Path("")).ok());
  }

  std::string Path(const std::string& name) const {
    return absl::StrCat(folder_.path(), "/models", name.empty() ? "" : "/", name);
  }
  std::string Read(const std::string& name) const { return files_.ReadFile(Path(name)).value_or("nothing"); }
  void WriteDurably(const std::string& name, const std::string& text) {
    EXPECT_TRUE(WriteFileAtomically(Path(name), text, files_).ok());
  }
  // A new file or a longer one, as far as `synced` and `folder_synced` say.
  void Write(const std::string& name, WriteMode mode, const std::string& text, bool synced, bool folder_synced) {
    auto file = files_.OpenForWriting(Path(name), mode);
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_TRUE((*file)->Append(text).ok());
    EXPECT_TRUE(!synced || (*file)->Sync().ok());
    EXPECT_TRUE((*file)->Close().ok());
    EXPECT_TRUE(!folder_synced || files_.SyncFolder(Path("")).ok());
  }
  void LosePower() {
    absl::MutexLock lock(&plan_->power_loss()->mutex());
    plan_->power_loss()->Strike();
  }

  TempFolder folder_;
  std::unique_ptr<FaultPlan> plan_;
  FaultFileSystem files_;
};

TEST_F(FaultDiskTest, CountsBySiteAndFailsTheOneThatItIsTold) {
  plan_->Reset(Fault{"store.rename", 2, Fault::Action::kFail, EIO});
  WriteDurably("a", "1");
  EXPECT_FALSE(plan_->happened());
  const absl::Status status = WriteFileAtomically(Path("b"), "2", files_);
  EXPECT_TRUE(plan_->happened());
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("Input/output error"));
  EXPECT_EQ(Read("b"), "nothing");
  WriteDurably("b", "3");
  EXPECT_THAT(plan_->counts(), ElementsAre(Pair("store.close", 3), Pair("store.create", 3), Pair("store.remove", 1),
                                           Pair("store.rename", 3), Pair("store.sync", 3), Pair("store.syncfolder", 2),
                                           Pair("store.write", 3)));
}

TEST_F(FaultDiskTest, AShortWriteLeavesHalf) {
  Write("a", WriteMode::kCreate, "", true, true);
  plan_->Reset(Fault{"store.write", 1, Fault::Action::kFailHalf, ENOSPC});
  auto file = files_.OpenForWriting(Path("a"), WriteMode::kAppend);
  EXPECT_EQ((*file)->Append("abcd").code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Read("a"), "ab");
}

TEST_F(FaultDiskTest, WhatWasFlushedOutlivesAPowerFailure) {
  WriteDurably("a", "1");
  WriteDurably("a", "2");
  WriteDurably("b", "3");
  ASSERT_TRUE(files_.RemoveAll(Path("b")).ok());
  ASSERT_TRUE(files_.SyncFolder(Path("")).ok());
  LosePower();
  EXPECT_EQ(Read("a"), "2");
  EXPECT_EQ(Read("b"), "nothing");
}

TEST_F(FaultDiskTest, BytesThatWereNotSyncedAreLost) {
  WriteDurably("a", "old");
  Write("a", WriteMode::kAppend, " and new", false, true);
  Write("b", WriteMode::kCreate, "new", false, true);
  LosePower();
  EXPECT_EQ(Read("a"), "old");
  EXPECT_EQ(Read("b"), "");
}

TEST_F(FaultDiskTest, EntriesOfAFolderThatWasNotSyncedAreAsBefore) {
  for (const char* name : {"kept", "replaced", "removed"}) WriteDurably(name, "old");
  ASSERT_TRUE(files_.CreateFolders(Path("folder")).ok());
  WriteDurably("folder/inner", "old");
  Write("created", WriteMode::kCreate, "new", true, false);
  Write("replaced.new", WriteMode::kCreate, "new", true, false);
  ASSERT_TRUE(files_.Rename(Path("replaced.new"), Path("replaced")).ok());
  ASSERT_TRUE(files_.RemoveAll(Path("removed")).ok());
  ASSERT_TRUE(files_.Link(Path("kept"), Path("linked")).ok());
  ASSERT_TRUE(files_.Rename(Path("folder"), Path("moved")).ok());
  EXPECT_EQ(Read("replaced"), "new");
  EXPECT_EQ(Read("removed"), "nothing");
  EXPECT_EQ(Read("moved/inner"), "old");
  LosePower();
  for (const char* name : {"kept", "replaced", "removed", "folder/inner"}) EXPECT_EQ(Read(name), "old") << name;
  EXPECT_THAT(*files_.ListFolder(Path("")), ElementsAre("folder", "kept", "removed", "replaced"));
}

TEST_F(FaultDiskTest, WhatWasNotSyncedBeforeItsFolderMovedIsLostInItsNewPlace) {
  ASSERT_TRUE(files_.CreateFolders(Path("staged")).ok());
  Write("staged/file", WriteMode::kCreate, "new", false, false);
  ASSERT_TRUE(files_.Rename(Path("staged"), Path("published")).ok());
  ASSERT_TRUE(files_.SyncFolder(Path("")).ok());
  LosePower();
  EXPECT_EQ(files_.Stat(Path("published"))->kind, FileInfo::Kind::kFolder);
  EXPECT_EQ(Read("published/file"), "nothing");
}

TEST_F(FaultDiskTest, TheJournalKeepsWhatItCommittedAndNothingElse) {
  const FaultVfs vfs(*plan_);
  const std::string path = folder_ / "bossd.db", crashed = folder_ / "crashed.db";
  auto journal = server::SqliteJobJournal::Open(path, vfs.name());
  ASSERT_TRUE(journal.ok()) << journal.status();
  ASSERT_TRUE((*journal)->Insert({"first", "", "hash", "document"}, {}).ok());
  plan_->Reset(Fault{"wal.sync", 1, Fault::Action::kFail, EIO});
  ASSERT_FALSE((*journal)->Insert({"second", "", "hash", "document"}, {}).ok());
  ASSERT_TRUE(plan_->happened());
  LosePower();
  // What a process that starts now would find.
  for (const char* file : {"", "-wal"}) std::filesystem::copy_file(path + file, crashed + file);
  const auto after = server::SqliteJobJournal::Open(crashed);
  ASSERT_TRUE(after.ok()) << after.status();
  const auto records = (*after)->LoadAll();
  ASSERT_EQ(records->size(), 1u);
  EXPECT_EQ(records->front().id, "first");
}

}  // namespace
}  // namespace boss::testing
