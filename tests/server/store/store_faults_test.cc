// A disk that fails while something is written to it.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/server/store/store_fixture.h"
#include "tests/support/forwarding_file_system.h"

namespace boss::server {
namespace {

using testing::Network;
using testing::PlainManifest;
using testing::ScheduleSetOf;

// Fails one operation that changes the disk, or all from that one on.
class FailingDisk final : public boss::testing::ForwardingFileSystem {
 public:
  // The operation after `number` others fails with `error`; `for_good`: and all that follow.
  void FailAt(int number, absl::Status error, bool for_good) {
    left_ = number;
    error_ = std::move(error);
    for_good_ = for_good;
    failed_ = false;
  }
  // \return whether an operation has failed.
  bool Mend() {
    error_ = absl::OkStatus();
    return failed_;
  }

  absl::StatusOr<std::unique_ptr<WritableFile>> OpenForWriting(const std::string& path, WriteMode mode) const override {
    if (const absl::Status status = Next(); !status.ok()) return status;
    absl::StatusOr<std::unique_ptr<WritableFile>> file = ForwardingFileSystem::OpenForWriting(path, mode);
    if (!file.ok()) return file;
    return std::make_unique<File>(*this, *std::move(file));
  }
  absl::Status CreateFolders(const std::string& path) const override {
    return Guard([&] { return ForwardingFileSystem::CreateFolders(path); });
  }
  absl::Status Rename(const std::string& from, const std::string& to) const override {
    return Guard([&] { return ForwardingFileSystem::Rename(from, to); });
  }
  absl::Status Link(const std::string& from, const std::string& to) const override {
    return Guard([&] { return ForwardingFileSystem::Link(from, to); });
  }
  absl::Status RemoveAll(const std::string& path) const override {
    return Guard([&] { return ForwardingFileSystem::RemoveAll(path); });
  }
  absl::Status SyncFolder(const std::string& path) const override {
    return Guard([&] { return ForwardingFileSystem::SyncFolder(path); });
  }

 private:
  class File final : public WritableFile {
   public:
    File(const FailingDisk& disk, std::unique_ptr<WritableFile> file) : disk_(disk), file_(std::move(file)) {}
    absl::Status Append(std::string_view data) override {
      const absl::Status status = disk_.Next();
      if (status.ok()) return file_->Append(data);
      file_->Append(data.substr(0, data.size() / 2)).IgnoreError();  // a short write
      return status;
    }
    absl::Status Sync() override {
      return disk_.Guard([&] { return file_->Sync(); });
    }
    absl::Status Close() override {
      return disk_.Guard([&] { return file_->Close(); });
    }

   private:
    const FailingDisk& disk_;
    const std::unique_ptr<WritableFile> file_;
  };

  absl::Status Next() const {
    if (error_.ok() || left_-- > 0) return absl::OkStatus();
    if (failed_ && !for_good_) return absl::OkStatus();
    failed_ = true;
    return error_;
  }
  absl::Status Guard(const std::function<absl::Status()>& operation) const {
    const absl::Status status = Next();
    return status.ok() ? operation() : status;
  }

  mutable int left_ = 0;
  mutable bool failed_ = false;
  absl::Status error_;
  bool for_good_ = false;
};

// A disk on which no new file or folder fits.
class FullDisk final : public boss::testing::ForwardingFileSystem {
 public:
  absl::StatusOr<std::unique_ptr<WritableFile>> OpenForWriting(const std::string& path, WriteMode mode) const override {
    return absl::ResourceExhaustedError("no space left in the test");
  }
  absl::Status CreateFolders(const std::string& path) const override {
    if (Stat(path).ok()) return absl::OkStatus();
    return absl::ResourceExhaustedError("no space left in the test");
  }
};

class StoreFaultsTest : public testing::StoreTest {
 protected:
  StoreFaultsTest() { Open({}, disk_); }

  // Everything that is listed can be loaded, and the next version has a new number.
  void ExpectSound(int64_t highest) {
    for (const ModelInfo& info : store_->ListModels()) {
      for (const VersionKey& key : info.versions) {
        const absl::Status status = store_->LoadVersionModel(key).status();
        EXPECT_TRUE(status.ok()) << status;
      }
    }
    EXPECT_GT(Publish(99).version, highest);
  }

  FailingDisk disk_;
};

TEST_F(StoreFaultsTest, APublicationThatFailsAnywhereIsNotSeen) {
  Publish(1);
  const absl::Status full = absl::ResourceExhaustedError("no space left in the test");
  int operations = 0;
  for (;; ++operations) {
    disk_.FailAt(operations, full, /*for_good=*/false);
    const absl::StatusOr<VersionKey> key = TryPublish(2);
    const bool failed = disk_.Mend();
    if (key.ok()) break;  // what failed was nothing but tidying up
    ASSERT_TRUE(failed) << key.status();
    EXPECT_EQ(key.status(), full);
    EXPECT_EQ(Versions(), std::vector<int64_t>{1}) << "operation " << operations;
    EXPECT_FALSE(Exists(File({"toy", 2}, ""))) << "operation " << operations;
    EXPECT_TRUE(std::filesystem::is_empty(Path("staging"))) << "operation " << operations;
  }
  EXPECT_GT(operations, 10);
  EXPECT_EQ(Versions(), (std::vector<int64_t>{1, 2}));
}

TEST_F(StoreFaultsTest, ADiskThatGoesAwayWhilePublishingLeavesWholeVersions) {
  const absl::Status gone = absl::UnavailableError("the test took the disk away");
  int64_t highest = Publish(1).version;
  for (int operations = 0;; ++operations) {
    disk_.FailAt(operations, gone, /*for_good=*/true);
    const std::vector<int64_t> before = Versions();
    const absl::StatusOr<VersionKey> key = TryPublish(2);
    if (!key.ok()) {
      EXPECT_EQ(Versions(), before);
    }
    const bool failed = disk_.Mend();
    Open({}, disk_);
    for (const int64_t version : before)
      EXPECT_TRUE(store_->GetVersion({"toy", version}).ok()) << "operation " << operations;
    EXPECT_EQ(store_->Totals().quarantined, 0);
    highest = std::max(highest, Versions().back());
    ExpectSound(highest);
    highest = Versions().back();
    if (!failed) break;
    ASSERT_LT(operations, 1000);
  }
}

TEST_F(StoreFaultsTest, ADeletionThatFailsAnywhereIsDoneOrNot) {
  const absl::Status error = absl::UnavailableError("an error of the test");
  int64_t highest = 0;
  for (const bool for_good : {false, true}) {
    for (int operations = 0;; ++operations) {
      const VersionKey key = Publish(1);
      ASSERT_GT(key.version, highest);
      highest = key.version;
      ASSERT_TRUE(store_->AddScheduleSet(key, ScheduleSetOf(4, 1.0)).ok());
      ASSERT_TRUE(store_->SetAlias("toy", "prod", key.version).ok());
      disk_.FailAt(operations, error, for_good);
      const absl::Status status = store_->DeleteVersion(key, true);
      const bool failed = disk_.Mend();
      // What was not deleted is whole, with all that belongs to it.
      for (int round = 0; round < 2; ++round) {
        const absl::StatusOr<VersionInfo> info = store_->GetVersion(key);
        EXPECT_EQ(info.ok(), !status.ok()) << "operation " << operations << ": " << status;
        if (info.ok()) {
          EXPECT_EQ(info->aliases, std::vector<std::string>{"prod"});
          EXPECT_EQ(store_->ListScheduleSets(key)->size(), 1);
          EXPECT_TRUE(store_->LoadVersionModel(key).ok());
        } else {
          EXPECT_EQ(store_->Resolve("toy@prod").status().code(), absl::StatusCode::kNotFound);
        }
        Open({}, disk_);
      }
      EXPECT_EQ(store_->Totals().quarantined, 0);
      if (!failed) break;
      ASSERT_LT(operations, 1000);
    }
  }
}

TEST_F(StoreFaultsTest, AnImportThatFailsAnywhereIsNotSeen) {
  const std::string source = Path("source");
  std::filesystem::copy(File(Publish(1), ""), source);
  std::filesystem::create_directory(source + "/schedules");
  Write(source + "/schedules/set.json", ScheduleSetToJson(ScheduleSetOf(4, 1.0)));
  for (int operations = 0;; ++operations) {
    disk_.FailAt(operations, absl::ResourceExhaustedError("no space left in the test"), /*for_good=*/false);
    const absl::StatusOr<VersionKey> key = store_->ImportFolder(source, "copy");
    const bool failed = disk_.Mend();
    if (!key.ok()) {
      EXPECT_TRUE(Versions("copy").empty()) << "operation " << operations;
      EXPECT_FALSE(Exists(Path("models/copy/schedules/1"))) << "operation " << operations;
    } else {
      EXPECT_EQ(key->version, 1);
      EXPECT_EQ(store_->ListScheduleSets(*key)->size(), 1);
      EXPECT_EQ(Versions("copy"), std::vector<int64_t>{1});
      break;
    }
    ASSERT_TRUE(failed);
  }
}

TEST_F(StoreFaultsTest, AnAliasMovesWholeOrNotAtAll) {
  Publish(1);
  Publish(2);
  ASSERT_TRUE(store_->SetAlias("toy", "prod", 1).ok());
  for (int operations = 0;; ++operations) {
    disk_.FailAt(operations, absl::ResourceExhaustedError("no space left in the test"), /*for_good=*/false);
    const absl::Status status = store_->SetAlias("toy", "prod", 2);
    const bool failed = disk_.Mend();
    EXPECT_EQ(store_->Resolve("toy@prod")->version, status.ok() ? 2 : 1);
    Open({}, disk_);
    EXPECT_EQ(store_->Resolve("toy@prod")->version, status.ok() ? 2 : 1);
    if (!failed) break;
    ASSERT_TRUE(store_->SetAlias("toy", "prod", 1).ok());
  }
}

TEST_F(StoreFaultsTest, AFullDiskServesAndLetsOldVersionsGo) {
  const VersionKey old = Publish(1), newest = Publish(2);
  ASSERT_TRUE(store_->SetAlias("toy", "prod", 1).ok());
  const FullDisk full;
  Open({.keep_versions = 1}, full);
  EXPECT_EQ(TryPublish(3).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(store_->SetAlias("toy", "prod", 2).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(store_->AddScheduleSet(old, ScheduleSetOf(4, 1.0)).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(store_->Resolve("toy@prod")->version, 1);
  EXPECT_TRUE(store_->LoadVersionModel(newest).ok());
  ASSERT_TRUE(store_->DeleteVersion(old, true).ok());
  Open();
  EXPECT_EQ(Versions(), std::vector<int64_t>{2});
  EXPECT_TRUE(store_->GetModel("toy")->aliases.empty());
}

TEST_F(StoreFaultsTest, WhatCannotBeQuarantinedOnAFullDiskStillIsNotServed) {
  const VersionKey good = Publish(1), bad = Publish(2);
  FlipLastByte(File(bad, "model.safetensors"));
  for (int operations = 0;; ++operations) {
    disk_.FailAt(operations, absl::ResourceExhaustedError("no space left in the test"), /*for_good=*/true);
    EXPECT_EQ(store_->LoadVersionModel(bad).status().code(), absl::StatusCode::kDataLoss);
    ExpectQuarantined(bad, "model.safetensors is corrupt");
    const bool failed = disk_.Mend();
    EXPECT_EQ(*store_->Resolve("toy"), good);
    if (!failed) break;
    Open();  // moves it
    ExpectQuarantined(bad, "model.safetensors is corrupt");
    store_.reset();
    if (!Exists(File(bad, ""))) {  // for the next failure
      std::filesystem::rename(Path("quarantine/toy/2"), File(bad, "").substr(0, File(bad, "").size() - 1));
    }
    FlipLastByte(File(bad, "model.safetensors"));
    Open({}, disk_);
    ASSERT_TRUE(store_->GetVersion(bad).ok());
    FlipLastByte(File(bad, "model.safetensors"));
  }
}

}  // namespace
}  // namespace boss::server
