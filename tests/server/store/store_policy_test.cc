// Who keeps a version, what is deleted, and how much fits.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "tests/server/store/store_fixture.h"
#include "tests/support/forwarding_file_system.h"

namespace boss::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::PlainManifest;
using testing::ScheduleSetOf;

class StorePolicyTest : public testing::StoreTest {
 protected:
  StorePolicyTest() { Open(); }

  // Expects that the version is not deleted unless forced, because of `holder`.
  void ExpectHeld(const VersionKey& key, const std::string& holder) {
    const absl::Status refused = store_->DeleteVersion(key, false);
    EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition) << refused;
    EXPECT_THAT(std::string(refused.message()), HasSubstr(key.ToString()));
    EXPECT_THAT(std::string(refused.message()), HasSubstr(holder));
    EXPECT_TRUE(store_->LoadVersionModel(key).ok());
  }
};

class SmallDisk final : public boss::testing::ForwardingFileSystem {
 public:
  absl::StatusOr<int64_t> FreeBytes(const std::string& path) const override { return free_bytes; }
  int64_t free_bytes = 0;
};

// ---- Uses ----

TEST_F(StorePolicyTest, AVersionInUseIsNotDeletedUnlessForced) {
  const VersionKey key = Publish(1);
  {
    absl::StatusOr<VersionUse> job = store_->Use(key, "job 12ab");
    ASSERT_TRUE(job.ok()) << job.status();
    EXPECT_EQ(job->key(), key);
    ExpectHeld(key, "job 12ab");
    const absl::StatusOr<VersionUse> again = store_->Use(key, "job 12ab");
    const absl::StatusOr<VersionUse> loaded = store_->Use(key, "loaded");
    ExpectHeld(key, "job 12ab, job 12ab, loaded");
    VersionUse moved = *std::move(job);
    job = absl::UnknownError("");
    ExpectHeld(key, "job 12ab, job 12ab, loaded");
    moved = VersionUse();
    ExpectHeld(key, "(job 12ab, loaded)");
  }
  EXPECT_TRUE(store_->DeleteVersion(key, false).ok());
  EXPECT_EQ(store_->Use(key, "late").status().code(), absl::StatusCode::kNotFound);

  const VersionKey other = Publish(2);
  const absl::StatusOr<VersionUse> use = store_->Use(other, "loaded");
  EXPECT_TRUE(store_->DeleteVersion(other, true).ok());
  EXPECT_TRUE(Versions().empty());
}

TEST_F(StorePolicyTest, AUseMayOutliveTheStore) {
  absl::StatusOr<VersionUse> use = store_->Use(Publish(1), "a test");
  ASSERT_TRUE(use.ok());
  store_.reset();
  use = absl::UnknownError("");
}

TEST_F(StorePolicyTest, AVersionIsEitherUsedOrDeleted) {
  for (int round = 0; round < 20; ++round) {
    const VersionKey key = Publish(1);
    std::atomic<bool> go = false;
    absl::Status deleted;
    std::thread deletion([&] {
      while (!go) std::this_thread::yield();
      deleted = store_->DeleteVersion(key, false);
    });
    go = true;
    const absl::StatusOr<VersionUse> use = store_->Use(key, "a test");
    deletion.join();
    EXPECT_NE(use.ok(), deleted.ok());
    EXPECT_EQ(store_->LoadVersionModel(key).ok(), use.ok());
  }
}

// ---- Deletion ----

TEST_F(StorePolicyTest, WhatHoldsAVersionIsNamed) {
  const VersionKey base = Publish(1);
  Publish(2);
  const VersionKey adapter = PublishAdapter(base);
  ASSERT_TRUE(store_->SetAlias("toy", "prod", 1).ok());
  ExpectHeld(base, "alias prod");
  ExpectHeld(base, adapter.ToString());
  ASSERT_TRUE(store_->SetAlias("toy", "prod", 2).ok());
  ExpectHeld(base, adapter.ToString());
  ASSERT_TRUE(store_->DeleteVersion(adapter, false).ok());
  EXPECT_TRUE(store_->DeleteVersion(base, false).ok());
}

TEST_F(StorePolicyTest, AnAdapterWithoutItsBaseSaysSo) {
  const VersionKey base = Publish(1);
  const VersionKey whole = Publish(2, PlainManifest(), "tuned");
  const VersionKey adapter = PublishAdapter(base, "tuned");
  EXPECT_EQ(*store_->Resolve("tuned"), adapter);
  ASSERT_TRUE(store_->DeleteVersion(base, true).ok());
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(*store_->Resolve("tuned"), whole);
    const absl::Status status = store_->LoadVersionModel(adapter).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(base.ToString()));
    EXPECT_TRUE(store_->GetVersion(adapter).ok());
    Open();
  }
  Manifest manifest = PlainManifest();
  manifest.adapter = AdapterInfo{base, 2, 4.0};
  EXPECT_EQ(TryPublish(1, manifest, "tuned").status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(StorePolicyTest, ForcedDeletionTakesTheAliasesForGood) {
  const VersionKey key = Publish(1);
  Publish(2);
  ASSERT_TRUE(store_->SetAlias("toy", "prod", 1).ok());
  ASSERT_TRUE(store_->SetAlias("toy", "stable", 2).ok());
  ASSERT_TRUE(store_->AddScheduleSet(key, ScheduleSetOf(4, 1.0)).ok());
  ASSERT_TRUE(store_->DeleteVersion(key, true).ok());
  EXPECT_FALSE(Exists(ScheduleFile(key, "")));
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(store_->GetModel("toy")->aliases, (std::map<std::string, int64_t, std::less<>>{{"stable", 2}}));
    Open();
  }
}

// ---- Garbage ----

TEST_F(StorePolicyTest, TheNewestAndWhatIsHeldAreKept) {
  Open({.keep_versions = 2});
  Publish(1);
  ASSERT_TRUE(store_->SetAlias("toy", "prod", 1).ok());
  Publish(2);
  std::optional<VersionUse> use = *store_->Use({"toy", 2}, "job 7");
  const VersionKey base = Publish(3);
  const VersionKey adapter = PublishAdapter(base);
  for (int seed = 4; seed <= 6; ++seed) Publish(seed);
  EXPECT_THAT(Versions(), ElementsAre(1, 2, 3, 5, 6));
  EXPECT_THAT(Versions("tuned"), ElementsAre(1));
  Open({.keep_versions = 2});
  EXPECT_THAT(Versions(), ElementsAre(1, 2, 3, 5, 6));  // nobody has said yet what is in use
  store_->CollectGarbage();
  EXPECT_THAT(Versions(), ElementsAre(1, 3, 5, 6));
  ASSERT_TRUE(store_->SetAlias("toy", "prod", 6).ok());
  ASSERT_TRUE(store_->DeleteVersion(adapter, false).ok());
  EXPECT_EQ(Publish(7).version, 7);
  EXPECT_THAT(Versions(), ElementsAre(6, 7));
  Open();
  EXPECT_THAT(Versions(), ElementsAre(6, 7));
}

TEST_F(StorePolicyTest, WithAnAdapterGoesItsBase) {
  Open({.keep_versions = 1});
  const VersionKey base = Publish(1);
  PublishAdapter(base, "toy");
  EXPECT_THAT(Versions(), ElementsAre(1, 2));
  Publish(3);
  EXPECT_THAT(Versions(), ElementsAre(3));
}

TEST_F(StorePolicyTest, PublishingCleansUpOneModelOnly) {
  for (int seed = 1; seed <= 3; ++seed) Publish(seed, PlainManifest(), "other");
  Open({.keep_versions = 1});
  Publish(1);
  Publish(2);
  EXPECT_THAT(Versions(), ElementsAre(2));
  EXPECT_THAT(Versions("other"), ElementsAre(1, 2, 3));
  store_->CollectGarbage();
  EXPECT_THAT(Versions("other"), ElementsAre(3));
}

TEST_F(StorePolicyTest, QuarantinedVersionsAreNeitherCountedNorCollected) {
  for (int seed = 1; seed <= 3; ++seed) Publish(seed);
  FlipLastByte(File({"toy", 1}, "model.safetensors"));
  FlipLastByte(File({"toy", 3}, "model.safetensors"));
  Open({.keep_versions = 1});
  store_->CollectGarbage();
  EXPECT_THAT(Versions(), ElementsAre(1, 2, 3));
  Publish(4);
  EXPECT_THAT(Versions(), ElementsAre(1, 3, 4));
}

TEST_F(StorePolicyTest, EverythingIsKeptByDefault) {
  for (int seed = 1; seed <= 4; ++seed) Publish(seed);
  store_->CollectGarbage();
  EXPECT_THAT(Versions(), ElementsAre(1, 2, 3, 4));
}

// ---- Room ----

TEST_F(StorePolicyTest, TheQuotaHoldsForAllVersions) {
  Publish(1);
  const int64_t one = store_->Totals().bytes;
  EXPECT_EQ(one, store_->GetVersion({"toy", 1})->size_bytes);
  Open({.max_bytes = 2 * one + one / 2});
  Publish(2, PlainManifest(), "other");
  EXPECT_EQ(store_->Totals().bytes, 2 * one);
  const absl::Status full = TryPublish(3).status();
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted) << full;
  EXPECT_THAT(std::string(full.message()), HasSubstr(std::to_string(2 * one + one / 2)));
  EXPECT_THAT(Versions(), ElementsAre(1));
  EXPECT_TRUE(std::filesystem::is_empty(Path("staging")));
  // What is quarantined takes as much room as before.
  FlipLastByte(File({"toy", 1}, "model.safetensors"));
  Open({.max_bytes = 2 * one + one / 2});
  EXPECT_EQ(store_->Totals().bytes, 2 * one);
  EXPECT_EQ(TryPublish(3).status().code(), absl::StatusCode::kResourceExhausted);
  ASSERT_TRUE(store_->DeleteVersion({"toy", 1}, false).ok());
  EXPECT_EQ(Publish(3).version, 2);
}

TEST_F(StorePolicyTest, AnImportedFolderMustFit) {
  const VersionKey key = Publish(1);
  const std::string folder = File(key, "");
  const int64_t one = store_->Totals().bytes;
  Open({.max_bytes = one + one / 2});
  EXPECT_EQ(store_->ImportFolder(folder, "copy").status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(Versions("copy").empty());
  Open({.max_bytes = 3 * one});
  EXPECT_TRUE(store_->ImportFolder(folder, "copy").ok());
}

TEST_F(StorePolicyTest, UploadsNeedRoomBesideWhatIsStoredStagedAndUploaded) {
  Publish(1);
  const int64_t stored = store_->Totals().bytes;
  Open({.max_bytes = stored + 1000});
  EXPECT_TRUE(store_->CheckRoom(1000).ok());
  EXPECT_EQ(store_->CheckRoom(1001).code(), absl::StatusCode::kResourceExhausted);
  std::filesystem::create_directories(Path("uploads/mine"));
  Write(Path("uploads/mine/bytes"), std::string(300, 'x'));
  EXPECT_TRUE(store_->CheckRoom(700).ok());
  EXPECT_EQ(store_->CheckRoom(701).code(), absl::StatusCode::kResourceExhausted);
  const auto staged = store_->NewStagingFolder();
  ASSERT_TRUE(staged.ok());
  Write((*staged)->path() + "/bytes", std::string(200, 'x'));
  EXPECT_TRUE(store_->CheckRoom(500).ok());
  const absl::Status full = store_->CheckRoom(501);
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  for (const int64_t number : {int64_t{501}, stored + 500, stored + 1000})
    EXPECT_THAT(std::string(full.message()), HasSubstr(std::to_string(number)));
}

TEST_F(StorePolicyTest, UploadsLeaveTheReserveOfTheDisk) {
  SmallDisk disk;
  disk.free_bytes = 1'000'000;
  Open({.min_free_bytes = 999'000}, disk);
  EXPECT_TRUE(store_->CheckRoom(1000).ok());
  const absl::Status full = store_->CheckRoom(1001);
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  for (const char* number : {"1001", "1000000", "999000"}) EXPECT_THAT(std::string(full.message()), HasSubstr(number));
  // A job that has come to its end may use it.
  disk.free_bytes = 500'000;
  Publish(1);
  disk.free_bytes = 100;
  EXPECT_EQ(TryPublish(2).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Versions(), ElementsAre(1));
}

TEST_F(StorePolicyTest, SchedulesThatCannotBeReadAgainAreNotPublished) {
  Manifest manifest = PlainManifest();
  NativeSchedule native{"bellman", 1, 2, {.knots = {0, 2}, .time_grid = TimeGrid::Uniform(1)}};
  native.schedule.solver = SolverKind::kMultistep;
  native.schedule.coefficients = {{1, {1}}};
  native.schedule.held_out_error = std::nan("");
  manifest.schedules = {native};
  EXPECT_EQ(TryPublish(1, manifest).status().code(), absl::StatusCode::kInvalidArgument);
  manifest.schedules[0].schedule.held_out_error = 0.5;
  manifest.schedules[0].schedule.coefficients[0].velocities.clear();
  EXPECT_EQ(TryPublish(1, manifest).status().code(), absl::StatusCode::kInvalidArgument);
  manifest.schedules[0].schedule.coefficients = {{1, {1}}};
  EXPECT_TRUE(TryPublish(1, manifest).ok());
}

}  // namespace
}  // namespace boss::server
