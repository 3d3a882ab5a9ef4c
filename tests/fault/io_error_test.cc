// Errors of the disk: each surfaces as one, nothing half is seen, and what failed works as soon as the disk does.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/store/job_journal.h"
#include "server/store/model_store.h"
#include "tests/server/jobs/job_fixture.h"
#include "tests/support/fault_file_system.h"
#include "tests/support/fault_vfs.h"
#include "tests/support/tiny_models.h"

namespace boss::testing {
namespace {

using server::JobRecord;
using server::JobState;
using server::ModelStore;
using server::SqliteJobJournal;
using server::VersionKey;
using ::testing::AnyOf;
using ::testing::HasSubstr;

struct DiskError {
  int number;
  Fault::Action action;
  absl::StatusCode code;
  const char* text;
};
constexpr DiskError kErrors[] = {
    {ENOSPC, Fault::Action::kFail, absl::StatusCode::kResourceExhausted, "No space left on device"},
    {ENOSPC, Fault::Action::kFailHalf, absl::StatusCode::kResourceExhausted, "No space left on device"},
    {EIO, Fault::Action::kFail, absl::StatusCode::kUnknown, "Input/output error"},
    {EIO, Fault::Action::kFailHalf, absl::StatusCode::kUnknown, "Input/output error"},
    {EACCES, Fault::Action::kFail, absl::StatusCode::kPermissionDenied, "Permission denied"},
    {EROFS, Fault::Action::kFail, absl::StatusCode::kPermissionDenied, "Read-only file system"},
};

Fault FaultOf(const DiskError& error, int64_t occurrence, std::string site = "") {
  return {std::move(site), occurrence, error.action, error.number, /*lasting=*/false};
}

// ---- The store ----

class StoreErrorTest : public ::testing::Test {
 protected:
  StoreErrorTest() {
    store_ = Open(folder_ / "template");
    PublishTinyModel(*store_, "toy", kTinyVectorArchitecture, 1);
    PublishTinyModel(*store_, "toy", kTinyVectorArchitecture, 2);
    EXPECT_TRUE(store_->SetAlias("toy", "prod", 1).ok());
    EXPECT_TRUE(store_->AddScheduleSet({"toy", 1}, TinyScheduleSet(3)).ok());
  }

  std::unique_ptr<ModelStore> Open(const std::string& folder) {
    auto store = ModelStore::Open(folder, clock_, files_);
    EXPECT_TRUE(store.ok()) << store.status();
    return *std::move(store);
  }

  // Everything that clients can see, files included.
  static std::string Contents(const ModelStore& store) {
    std::vector<std::string> lines;
    for (const server::ModelInfo& model : store.ListModels()) {
      for (const auto& [alias, version] : model.aliases)
        lines.push_back(absl::StrCat(model.name, " ", alias, " ", version));
      for (const VersionKey& key : model.versions) {
        const auto files = store.OpenForExport(key);
        EXPECT_TRUE(files.ok()) << files.status();
        EXPECT_TRUE(store.LoadVersionModel(key).ok()) << key.ToString();
        for (const auto& file : *files) {
          if (file.name != server::kManifestFile)
            lines.push_back(absl::StrCat(key.ToString(), " ", file.name, " ", file.sha256));
        }
        const auto sets = store.ListScheduleSets(key);
        EXPECT_TRUE(sets.ok()) << sets.status();
        for (const auto& set : *sets) lines.push_back(absl::StrCat(key.ToString(), " ", set->Name()));
      }
    }
    return absl::StrJoin(lines, "\n");
  }

  // Lets each disk operation of `change` fail in each way.
  void FailEverywhere(const std::function<absl::Status(ModelStore&)>& change) {
    const std::string before = Contents(*store_);
    for (const DiskError& error : kErrors) {
      for (int64_t n = 1;; ++n) {
        SCOPED_TRACE(absl::StrCat(error.text, ", ", FaultActionName(error.action), " at operation ", n));
        const std::string folder = folder_ / "copy";
        std::filesystem::remove_all(folder);
        std::filesystem::copy(folder_ / "template", folder, std::filesystem::copy_options::recursive);
        const auto store = Open(folder);
        plan_.Reset(FaultOf(error, n));
        const absl::Status status = change(*store);
        const bool happened = plan_.happened();
        plan_.Reset();
        const std::string after = Contents(*store);
        if (status.ok()) {
          EXPECT_NE(after, before);
        } else {
          EXPECT_EQ(status.code(), error.code) << status;
          EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr(error.text), HasSubstr(folder)));
          EXPECT_EQ(after, before);
          EXPECT_EQ(Contents(*Open(folder)), before);
          EXPECT_EQ(change(*store), absl::OkStatus());
        }
        const std::string now = Contents(*store);
        EXPECT_NE(now, before);
        EXPECT_EQ(Contents(*Open(folder)), now);
        if (!happened) break;
        ASSERT_LT(n, 100);
      }
    }
  }

  TempFolder folder_;
  RealClock clock_;
  FaultPlan plan_;
  const FaultFileSystem files_{plan_};
  std::unique_ptr<ModelStore> store_;
};

TEST_F(StoreErrorTest, Publishing) {
  FailEverywhere([](ModelStore& store) {
    server::Manifest manifest;
    manifest.architecture_json = kTinyVectorArchitecture;
    return store.Publish("toy", std::move(manifest), TinyModel(kTinyVectorArchitecture, 3)->State()).status();
  });
}

TEST_F(StoreErrorTest, MovingAnAlias) {
  FailEverywhere([](ModelStore& store) { return store.SetAlias("toy", "prod", 2); });
}

TEST_F(StoreErrorTest, DeletingAVersion) {
  FailEverywhere([](ModelStore& store) { return store.DeleteVersion({"toy", 2}, /*force=*/false); });
}

TEST_F(StoreErrorTest, AddingASchedule) {
  FailEverywhere([](ModelStore& store) { return store.AddScheduleSet({"toy", 2}, TinyScheduleSet(4)); });
}

TEST_F(StoreErrorTest, RemovingASchedule) {
  FailEverywhere([](ModelStore& store) { return store.RemoveScheduleSet({"toy", 1}, TinyScheduleSet(3).Name()); });
}

// ---- The journal ----

class JournalErrorTest : public ::testing::Test {
 protected:
  std::string path() const { return folder_ / "bossd.db"; }

  void Open() {
    journal_.reset();
    auto journal = SqliteJobJournal::Open(path(), vfs_.name());
    ASSERT_TRUE(journal.ok()) << journal.status();
    journal_ = *std::move(journal);
  }

  std::string Contents() {
    std::vector<std::string> lines;
    const auto records = journal_->LoadAll();
    EXPECT_TRUE(records.ok()) << records.status();
    for (const JobRecord& record : *records) {
      lines.push_back(absl::StrCat(record.id, " ", record.request_id, " ", record.document));
      const auto events = journal_->Events(record.id, 1, 1000);
      EXPECT_TRUE(events.ok()) << events.status();
      for (const auto& event : *events) lines.push_back(absl::StrCat(event.sequence, " ", event.document));
    }
    return absl::StrJoin(lines, "\n");
  }

  static absl::StatusCode CodeOf(const DiskError& error) {
    if (error.number == ENOSPC) return absl::StatusCode::kResourceExhausted;
    return error.number == EIO ? absl::StatusCode::kInternal : absl::StatusCode::kPermissionDenied;
  }

  // `change` is given a number of its own each time.
  void FailEverywhere(const std::function<absl::Status(int64_t number)>& change) {
    int64_t number = 0;
    for (const DiskError& error : kErrors) {
      for (int64_t n = 1;; ++n) {
        SCOPED_TRACE(absl::StrCat(error.text, ", ", FaultActionName(error.action), " at operation ", n));
        const std::string before = Contents();
        ++number;
        plan_.Reset(FaultOf(error, n));
        const absl::Status status = change(number);
        const bool happened = plan_.happened();
        plan_.Reset();
        if (!status.ok()) {
          EXPECT_EQ(status.code(), CodeOf(error)) << status;
          EXPECT_THAT(std::string(status.message()),
                      AllOf(HasSubstr("job journal: "), AnyOf(HasSubstr(error.text), HasSubstr("disk is full"))));
          EXPECT_EQ(Contents(), before);
          const absl::Status again = change(number);
          EXPECT_TRUE(again.ok()) << again;
        }
        const std::string after = Contents();
        EXPECT_NE(after, before);
        Open();
        EXPECT_EQ(Contents(), after);
        if (!happened) break;
        ASSERT_TRUE(!status.ok()) << "an error of the disk went unnoticed";
        ASSERT_LT(n, 100);
      }
    }
  }

  static std::string Id(int64_t number) { return absl::StrCat("job-", number); }
  absl::Status Insert(int64_t number) {
    const server::EventRecord event{1, "submitted", ""};
    return journal_->Insert({Id(number), absl::StrCat("request-", number), "hash", "document"}, {&event, 1}).status();
  }

  TempFolder folder_;
  FaultPlan plan_;
  const FaultVfs vfs_{plan_};
  std::unique_ptr<SqliteJobJournal> journal_;
};

TEST_F(JournalErrorTest, Inserting) {
  Open();
  FailEverywhere([&](int64_t number) { return Insert(number); });
}

TEST_F(JournalErrorTest, Updating) {
  Open();
  ASSERT_TRUE(Insert(0).ok());
  FailEverywhere([&](int64_t number) {
    const server::EventRecord event{number + 1, absl::StrCat("event ", number), std::string(9000, 'x')};
    return journal_->Update(Id(0), absl::StrCat("document ", number), {&event, 1});
  });
}

TEST_F(JournalErrorTest, Deleting) {
  Open();
  for (int64_t number = 1; number < 100; ++number) ASSERT_TRUE(Insert(number).ok());
  FailEverywhere([&](int64_t number) { return journal_->Delete(Id(number)); });
}

TEST_F(JournalErrorTest, AFailingCheckpointLosesNothing) {
  Open();
  // So much that the write-ahead log goes into the database with the first insertion.
  const std::string large(6 << 20, 'x');
  int64_t number = 0;
  for (const DiskError& error : kErrors) {
    for (const char* site : {"journal.write", "journal.sync"}) {
      SCOPED_TRACE(absl::StrCat(error.text, " at ", site));
      plan_.Reset(FaultOf(error, 1, site));
      ++number;
      const server::EventRecord event{1, "submitted", large};
      const absl::Status status = journal_->Insert({Id(number), "", "hash", "document"}, {&event, 1}).status();
      EXPECT_TRUE(status.ok()) << status;
      EXPECT_TRUE(plan_.happened());
      plan_.Reset();
      Open();
      EXPECT_EQ(journal_->LoadAll()->size(), static_cast<size_t>(number));
      EXPECT_EQ(journal_->Events(Id(number), 1, 1)->at(0).attachment, large);
    }
  }
}

TEST_F(JournalErrorTest, OpeningSaysWhatIsWrong) {
  for (int64_t n = 1;; ++n) {
    SCOPED_TRACE(absl::StrCat("operation ", n));
    plan_.Reset(FaultOf(kErrors[0], n));
    const absl::Status status = SqliteJobJournal::Open(path(), vfs_.name()).status();
    const bool happened = plan_.happened();
    plan_.Reset();
    if (!happened) {
      EXPECT_TRUE(status.ok()) << status;
      break;
    }
    if (!status.ok()) {
      EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    }
    Open();
    EXPECT_TRUE(journal_->LoadAll()->empty());
    journal_.reset();
    std::filesystem::remove(path());
    ASSERT_LT(n, 100);
  }
}

// ---- Jobs ----

class JobErrorTest : public server::testing::JobTest {
 protected:
  JobErrorTest() { StartOnFaultyDisk(); }
  ~JobErrorTest() override {
    plan_.Reset();
    manager_.reset();
    journal_.reset();
  }

  void StartOnFaultyDisk() {
    manager_.reset();
    journal_.reset();
    store_.reset();
    options_.files = &files_;
    store_ = *ModelStore::Open(folder_.path(), clock_, files_);
    journal_ = *SqliteJobJournal::Open(folder_ / "bossd.db", vfs_.name());
    StartManager();
  }

  server::TrainSpec ShortTraining(const std::string& output) {
    server::TrainSpec spec = ToyTraining(output);
    spec.training.train_steps = 6;
    spec.training.checkpoint_interval = 2;
    return spec;
  }

  FaultPlan plan_;
  const FaultFileSystem files_{plan_};
  const FaultVfs vfs_{plan_};
};

TEST_F(JobErrorTest, AJobWhoseStateOrResultCannotBeWrittenFailsAndTheNextOneRuns) {
  int failed = 0;
  for (const char* area : {"state", "store"}) {
    for (const char* operation : {"create", "write", "sync", "close", "rename", "syncfolder", "mkdir"}) {
      for (const DiskError& error : kErrors) {
        const std::string site = absl::StrCat(area, ".", operation);
        SCOPED_TRACE(absl::StrCat(error.text, ", ", FaultActionName(error.action), " at ", site));
        plan_.Reset(FaultOf(error, 1, site));
        const server::Job job = Finish(Submit(ShortTraining("toy")).id);
        EXPECT_TRUE(plan_.happened());
        plan_.Reset();
        EXPECT_EQ(job.state, JobState::kFailed);
        EXPECT_EQ(job.error.code(), error.code) << job.error;
        EXPECT_THAT(std::string(job.error.message()), AllOf(HasSubstr(error.text), HasSubstr(folder_.path())));
        EXPECT_EQ(store_->FindByJob("toy", job.id).status().code(), absl::StatusCode::kNotFound);
        ++failed;
      }
    }
  }
  RunToSuccess(ShortTraining("toy"));
  EXPECT_EQ(store_->GetModel("toy")->versions.size(), 1u);
  // All of them are still there, and as they were, after a restart.
  StartOnFaultyDisk();
  server::JobPageRequest page;
  page.page_size = 1000;
  page.filter.states = {JobState::kFailed};
  EXPECT_EQ(manager_->List(page)->jobs.size(), static_cast<size_t>(failed));
}

TEST_F(JobErrorTest, ASubmissionThatCannotBeWrittenIsRefusedAndCanBeRepeated) {
  int64_t number = 0;
  for (const DiskError& error : kErrors) {
    for (const char* site : {"wal.write", "wal.sync"}) {
      SCOPED_TRACE(absl::StrCat(error.text, " at ", site));
      server::SubmitOptions options;
      options.request_id = absl::StrCat("request-", ++number);
      plan_.Reset(FaultOf(error, 1, site));
      const auto refused = manager_->Submit(ShortTraining("toy"), options);
      plan_.Reset();
      ASSERT_FALSE(refused.ok());
      EXPECT_THAT(std::string(refused.status().message()), HasSubstr("job journal: "));
      EXPECT_EQ(manager_->List({})->jobs.size(), static_cast<size_t>(number - 1));
      const server::Job job = Finish(Submit(ShortTraining("toy"), options).id);
      EXPECT_EQ(job.state, JobState::kSucceeded) << job.error;
    }
  }
}

TEST_F(JobErrorTest, WhileTheJournalTakesNothingTheServerAnswersAndThenGoesOn) {
  const server::Job before = RunToSuccess(ShortTraining("toy"));
  executor_.BlockAt(executor_.runs() + 4);
  const server::Job job = Submit(ShortTraining("toy"));
  executor_.WaitUntilBlocked();
  plan_.Reset(Fault{"wal.write", 1, Fault::Action::kFail, ENOSPC, /*lasting=*/true});
  EXPECT_EQ(manager_->Submit(ShortTraining("toy"), {}).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(manager_->Cancel(job.id).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(manager_->Get(job.id)->state, JobState::kRunning);
  EXPECT_EQ(manager_->List({})->jobs.size(), 2u);
  EXPECT_EQ(Follow(before.id).back().sequence, before.last_sequence);
  // The job fails over it; that, too, can only be recorded when the disk is back.
  executor_.Release();
  const auto events_before = journal_->Events(job.id, 1, 1000)->size();
  EXPECT_EQ(manager_->Get(job.id)->last_sequence, static_cast<int64_t>(events_before));
  plan_.Reset();
  const server::Job ended = Finish(job.id);
  EXPECT_THAT(ended.state, AnyOf(JobState::kFailed, JobState::kSucceeded));
  if (ended.state == JobState::kFailed) {
    EXPECT_EQ(ended.error.code(), absl::StatusCode::kResourceExhausted) << ended.error;
  }
  RunToSuccess(ShortTraining("toy"));
  const std::vector<server::JobEvent> events = Follow(job.id);
  for (size_t i = 0; i < events.size(); ++i) EXPECT_EQ(events[i].sequence, static_cast<int64_t>(i) + 1);
}

}  // namespace
}  // namespace boss::testing
