#include "server/store/job_journal.h"

#include <gtest/gtest.h>
#include <sqlite3.h>

#include <fstream>
#include <string>

#include "tests/support/temp_folder.h"

namespace boss::server {
namespace {

class JobJournalTest : public ::testing::Test {
 protected:
  JobJournalTest() { Reopen(); }
  void Reopen() {
    journal_.reset();
    absl::StatusOr<std::unique_ptr<SqliteJobJournal>> opened = SqliteJobJournal::Open(path_);
    ASSERT_TRUE(opened.ok()) << opened.status();
    journal_ = *std::move(opened);
  }
  void Insert(const std::string& id, const std::string& request_id = "", const std::string& hash = "") {
    const EventRecord event{1, "first event of " + id, ""};
    const auto outcome = journal_->Insert({id, request_id, hash, "document of " + id}, {&event, 1});
    ASSERT_TRUE(outcome.ok()) << outcome.status();
    ASSERT_TRUE(outcome->inserted);
  }

  boss::testing::TempFolder folder_;
  const std::string path_ = folder_ / "bossd.db";
  std::unique_ptr<SqliteJobJournal> journal_;
};

TEST_F(JobJournalTest, KeepsRecordsAndEventsOverARestart) {
  Insert("a");
  Insert("b");
  const std::string png("\x89PNG\0\n", 6);
  const EventRecord events[] = {{2, "second", ""}, {3, "third", png}};
  ASSERT_TRUE(journal_->Update("a", "changed", events).ok());
  const EventRecord progress{4, "fourth", ""};
  ASSERT_TRUE(journal_->Update("a", "changed again", {&progress, 1}).ok());

  Reopen();
  const auto records = journal_->LoadAll();
  ASSERT_TRUE(records.ok());
  ASSERT_EQ(records->size(), 2);
  EXPECT_EQ(records->at(0).id, "a");
  EXPECT_EQ(records->at(0).document, "changed again");
  EXPECT_EQ(records->at(0).last_sequence, 4);
  EXPECT_EQ(records->at(1).last_sequence, 1);
  EXPECT_EQ(records->at(1).document, "document of b");
  const auto all = journal_->Events("a", 1, 100);
  ASSERT_TRUE(all.ok());
  ASSERT_EQ(all->size(), 4);
  EXPECT_EQ(all->at(0).document, "first event of a");
  EXPECT_EQ(all->at(2).attachment, png);
  EXPECT_EQ(all->at(3).sequence, 4);
}

TEST_F(JobJournalTest, GivesEventsFromASequenceNumberUpToALimit) {
  Insert("a");
  for (int64_t sequence = 2; sequence <= 9; ++sequence) {
    const EventRecord event{sequence, std::to_string(sequence), ""};
    ASSERT_TRUE(journal_->Update("a", "document", {&event, 1}).ok());
  }
  const auto events = journal_->Events("a", 4, 3);
  ASSERT_TRUE(events.ok());
  ASSERT_EQ(events->size(), 3);
  EXPECT_EQ(events->front().sequence, 4);
  EXPECT_EQ(events->back().document, "6");
  EXPECT_TRUE(journal_->Events("a", 10, 3)->empty());
}

TEST_F(JobJournalTest, RefusesASequenceNumberThatIsTaken) {
  Insert("a");
  const EventRecord event{1, "again", ""};
  EXPECT_FALSE(journal_->Update("a", "changed", {&event, 1}).ok());
  // The document is not changed without its event.
  EXPECT_EQ(journal_->LoadAll()->front().document, "document of a");
}

TEST_F(JobJournalTest, TellsARepeatedRequestFromAnother) {
  Insert("a", "request", "hash");
  Reopen();
  const auto repeat = journal_->Insert({"b", "request", "hash", "other"}, {});
  ASSERT_TRUE(repeat.ok());
  EXPECT_FALSE(repeat->inserted);
  EXPECT_EQ(repeat->id, "a");
  const auto other = journal_->Insert({"c", "request", "another hash", "other"}, {});
  EXPECT_EQ(other.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(journal_->LoadAll()->size(), 1);
  // Jobs without a request_id do not collide.
  Insert("d");
  Insert("e");
}

TEST_F(JobJournalTest, DeletesAJobWithItsEvents) {
  Insert("a", "request", "hash");
  ASSERT_TRUE(journal_->Delete("a").ok());
  EXPECT_TRUE(journal_->LoadAll()->empty());
  EXPECT_TRUE(journal_->Events("a", 1, 10)->empty());
  EXPECT_EQ(journal_->Delete("a").code(), absl::StatusCode::kNotFound);
  // Neither the id nor the request_id is remembered.
  Insert("a", "request", "another hash");
  EXPECT_EQ(journal_->Events("a", 1, 10)->size(), 1);
}

TEST_F(JobJournalTest, SaysWhichJobIsUnknown) {
  const EventRecord event{1, "event", ""};
  for (const absl::Status& status : {journal_->Update("nobody", "", {}), journal_->Update("nobody", "", {&event, 1})}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
    EXPECT_NE(status.message().find("nobody"), absl::string_view::npos);
  }
}

TEST_F(JobJournalTest, RefusesADatabaseOfANewerProgram) {
  journal_.reset();
  sqlite3* database = nullptr;
  ASSERT_EQ(sqlite3_open(path_.c_str(), &database), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(database, "UPDATE schema_version SET version = 1000", nullptr, nullptr, nullptr), SQLITE_OK);
  sqlite3_close(database);
  EXPECT_EQ(SqliteJobJournal::Open(path_).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(JobJournalTest, RefusesAFileThatIsNoDatabase) {
  const std::string path = folder_ / "other.db";
  std::ofstream(path) << std::string(4096, 'x');
  EXPECT_EQ(SqliteJobJournal::Open(path).status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace boss::server
