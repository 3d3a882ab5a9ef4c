#include "server/store/upload_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "core/base/error_details.h"
#include "tests/support/manual_clock.h"
#include "tests/support/scripted_disk.h"
#include "tests/support/temp_folder.h"

namespace boss::server {
namespace {

using ::boss::testing::ManualClock;
using ::boss::testing::ScriptedDisk;
using ::boss::testing::TempFolder;
using ::testing::HasSubstr;

class UploadStoreTest : public ::testing::Test {
 protected:
  UploadStoreTest() { Restart(); }

  // As after a crash: what is held is held no longer.
  void Restart() {
    auto store = UploadStore::Open(uploads_, disk_, clock_);
    ASSERT_TRUE(store.ok()) << store.status();
    stores_.push_back(*std::move(store));
    store_ = stores_.back().get();
  }
  std::unique_ptr<Upload> Take(const UploadPlan& plan) {
    auto upload = store_->Take(plan);
    EXPECT_TRUE(upload.ok()) << upload.status();
    return upload.ok() ? *std::move(upload) : nullptr;
  }
  static std::string Contents(Upload& upload) {
    EXPECT_TRUE(upload.Seal().ok());
    std::string contents;
    EXPECT_TRUE(upload
                    .Read([&](std::string_view piece) {
                      contents += piece;
                      return absl::OkStatus();
                    })
                    .ok());
    return contents;
  }
  bool Exists(const std::string& name) const { return std::filesystem::exists(uploads_ + "/" + name); }

  const UploadPlan plan_ = {"mine", "digest", 100};
  ManualClock clock_;
  ScriptedDisk disk_;
  TempFolder folder_;
  const std::string uploads_ = folder_ / "uploads";
  std::vector<std::unique_ptr<UploadStore>> stores_;  // those before a restart too: somebody may still hold an upload
  UploadStore* store_ = nullptr;
};

TEST_F(UploadStoreTest, AnUploadGoesOnAfterItsConnectionAndAfterTheServer) {
  EXPECT_EQ(*store_->Query(plan_), 0);
  EXPECT_FALSE(Exists("mine"));
  auto upload = Take(plan_);
  EXPECT_FALSE(upload->resumed());
  ASSERT_TRUE(upload->Append("one").ok());
  upload.reset();
  EXPECT_EQ(*store_->Query(plan_), 3);
  upload = Take(plan_);
  EXPECT_TRUE(upload->resumed());
  EXPECT_EQ(upload->size(), 3);
  ASSERT_TRUE(upload->Append(" two").ok());
  upload.reset();
  Restart();
  EXPECT_EQ(*store_->Query(plan_), 7);
  upload = Take(plan_);
  ASSERT_TRUE(upload->Append(" three").ok());
  EXPECT_EQ(Contents(*upload), "one two three");
  upload->Remove();
  EXPECT_FALSE(Exists("mine"));
  EXPECT_EQ(*store_->Query(plan_), 0);
}

TEST_F(UploadStoreTest, AnIdBelongsToOneDigest) {
  const UploadPlan other = {"mine", "another digest", 100};
  auto upload = Take(plan_);
  ASSERT_TRUE(upload->Append("one").ok());
  for (const bool held : {true, false}) {
    if (!held) upload.reset();
    const absl::Status taken = store_->Take(other).status(), asked = store_->Query(other).status();
    EXPECT_TRUE(absl::IsAlreadyExists(taken)) << taken;
    EXPECT_TRUE(absl::IsAlreadyExists(asked)) << asked;
    EXPECT_EQ(FieldOf(taken), "start.upload_id");
  }
  EXPECT_EQ(*store_->Query(plan_), 3);
}

TEST_F(UploadStoreTest, ASecondHolderTakesOver) {
  auto first = Take(plan_);
  ASSERT_TRUE(first->Append("from the first").ok());
  auto second = Take(plan_);
  EXPECT_EQ(second->size(), 14);
  const absl::Status status = first->Append("late");
  EXPECT_TRUE(absl::IsAborted(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("mine"));
  EXPECT_TRUE(absl::IsAborted(first->Seal()));
  first->Remove();
  first.reset();
  ASSERT_TRUE(second->Append(", from the second").ok());
  EXPECT_EQ(Contents(*second), "from the first, from the second");
}

TEST_F(UploadStoreTest, AnAnswerStaysTrue) {
  auto upload = Take(plan_);
  ASSERT_TRUE(upload->Append("one").ok());
  EXPECT_EQ(*store_->Query(plan_), 3);
  EXPECT_TRUE(absl::IsAborted(upload->Append("late")));
  auto next = Take(plan_);
  EXPECT_EQ(next->size(), 3);
  upload.reset();  // does not disturb its successor
  ASSERT_TRUE(next->Append(" two").ok());
  EXPECT_EQ(Contents(*next), "one two");
}

TEST_F(UploadStoreTest, WhatIsSealedCannotBeTaken) {
  auto upload = Take({"mine", "digest", 3});
  ASSERT_TRUE(upload->Append("one").ok());
  ASSERT_TRUE(upload->Seal().ok());
  EXPECT_EQ(*store_->Query(plan_), 3);
  const absl::Status status = store_->Take(plan_).status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_TRUE(RetryDelayOf(status).has_value());
  EXPECT_EQ(Contents(*upload), "one");
  upload.reset();
  EXPECT_EQ(Take(plan_)->size(), 3);
}

TEST_F(UploadStoreTest, AnUploadWithoutAnIdEndsWithItsHolder) {
  auto one = Take({"", "digest", 10}), two = Take({"", "digest", 10});
  ASSERT_TRUE(one->Append("one").ok());
  ASSERT_TRUE(two->Append("two").ok());
  EXPECT_FALSE(two->resumed());
  EXPECT_EQ(Contents(*one), "one");
  EXPECT_EQ(Contents(*two), "two");
  one.reset();
  two.reset();
  EXPECT_TRUE(std::filesystem::is_empty(uploads_));
  std::filesystem::create_directories(uploads_ + "/.unnamed-0");  // of a server that was killed
  std::ofstream(uploads_ + "/.unnamed-0/00000000000000000000") << "old";
  Restart();
  EXPECT_TRUE(std::filesystem::is_empty(uploads_));
}

TEST_F(UploadStoreTest, WhatNobodyComesBackToIsRemovedAfterADay) {
  Take({"old", "digest", 10})->Append("x").IgnoreError();
  auto held = Take({"held", "digest", 10});
  clock_.Advance(absl::Hours(23));
  Take({"young", "digest", 10})->Append("x").IgnoreError();
  Take({"resumed", "digest", 10})->Append("x").IgnoreError();
  clock_.Advance(absl::Minutes(59));
  Take({"resumed", "digest", 10});
  EXPECT_TRUE(Exists("old"));
  clock_.Advance(absl::Minutes(1));
  Take({"next", "digest", 10});
  EXPECT_FALSE(Exists("old"));
  EXPECT_TRUE(Exists("held"));
  EXPECT_TRUE(Exists("young"));
  clock_.Advance(absl::Hours(23));
  held.reset();
  Restart();
  EXPECT_TRUE(Exists("held"));  // somebody was at it just now
  EXPECT_FALSE(Exists("young"));
  EXPECT_TRUE(Exists("resumed"));
  clock_.Advance(absl::Hours(24));
  Restart();
  EXPECT_TRUE(std::filesystem::is_empty(uploads_));
}

TEST_F(UploadStoreTest, ALongUploadIsNotOldAfterACrash) {
  auto upload = Take({"mine", "digest", int64_t{1} << 40});
  const std::string piece(SegmentedFile::kPieceBytes, 'x');
  for (int hour = 0; hour < 30; ++hour) {
    clock_.Advance(absl::Hours(1));
    ASSERT_TRUE(upload->Append(piece.substr(0, hour == 29 ? piece.size() : 1)).ok());
  }
  Restart();
  EXPECT_GT(*store_->Query({"mine", "digest", int64_t{1} << 40}), SegmentedFile::kPieceBytes);
}

TEST_F(UploadStoreTest, WhatIsNoUploadIsReplaced) {
  const TempFolder elsewhere;
  std::ofstream(elsewhere / "upload.json") << R"({"digest": "digest", "active": 1700000000000000000})";
  std::filesystem::create_symlink(elsewhere.path(), uploads_ + "/mine");
  EXPECT_EQ(*store_->Query(plan_), 0);
  auto upload = Take(plan_);
  EXPECT_FALSE(upload->resumed());
  ASSERT_TRUE(upload->Append("one").ok());
  upload.reset();
  EXPECT_FALSE(std::filesystem::is_symlink(uploads_ + "/mine"));
  EXPECT_TRUE(std::filesystem::exists(elsewhere / "upload.json"));
  for (const std::string text : {"", "no JSON", "[]", R"({"digest": 1})", R"({"active": 1})"}) {
    std::ofstream(uploads_ + "/mine/upload.json") << text;
    EXPECT_EQ(*store_->Query(plan_), 0) << text;
    upload = Take(plan_);
    EXPECT_EQ(upload->size(), 0) << text;
    ASSERT_TRUE(upload->Append("one").ok());
    upload.reset();
  }
}

TEST_F(UploadStoreTest, AFullDiskLeavesWhatWasCommitted) {
  const std::string piece(SegmentedFile::kPieceBytes, 'x');
  const UploadPlan plan = {"mine", "digest", 3 * SegmentedFile::kPieceBytes};
  auto upload = Take(plan);
  ASSERT_TRUE(upload->Append(piece).ok());
  disk_.before = [](const std::string& operation, const std::string&) {
    return operation == "append" ? absl::ResourceExhaustedError("full") : absl::OkStatus();
  };
  EXPECT_TRUE(absl::IsResourceExhausted(upload->Append("more")));
  upload.reset();
  EXPECT_EQ(*store_->Query(plan), SegmentedFile::kPieceBytes);
  EXPECT_TRUE(absl::IsResourceExhausted(store_->Take({"new", "digest", 10}).status()));
  EXPECT_FALSE(Exists("new"));
  disk_.before = nullptr;
  upload = Take(plan);
  EXPECT_EQ(upload->size(), SegmentedFile::kPieceBytes);
  ASSERT_TRUE(upload->Append("more").ok());
  EXPECT_EQ(Contents(*upload), piece + "more");
}

TEST_F(UploadStoreTest, ManyWhoFightOverAnUploadNeverMixItsBytes) {
  std::string contents(20'000, '\0');
  for (size_t i = 0; i < contents.size(); ++i) contents[i] = static_cast<char>(i * i >> 5);
  const UploadPlan plan = {"mine", "digest", static_cast<int64_t>(contents.size())};
  const auto work = [&](int thread) {
    for (int round = 0;; ++round) {
      if (thread == 0 && round % 2 == 1) {
        EXPECT_TRUE(store_->Query(plan).ok());
      }
      auto upload = store_->Take(plan);
      ASSERT_TRUE(upload.ok()) << upload.status();
      for (int chunk = 0; chunk < 10; ++chunk) {
        const int64_t size = (*upload)->size();
        if (size == plan.total_bytes) return;
        const absl::Status status = (*upload)->Append(std::string_view(contents).substr(static_cast<size_t>(size), 37));
        EXPECT_TRUE(status.ok() || absl::IsAborted(status)) << status;
        if (!status.ok()) break;
      }
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) threads.emplace_back(work, i);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Contents(*Take(plan)), contents);
}

TEST_F(UploadStoreTest, TellsWhatIsStillToCome) {
  EXPECT_EQ(store_->PromisedBytes(), 0);
  auto named = Take(plan_), unnamed = Take({"", "digest", 10});
  ASSERT_TRUE(named->Append("one").ok());
  EXPECT_EQ(store_->PromisedBytes(), 97 + 10);
  unnamed.reset();
  EXPECT_EQ(store_->PromisedBytes(), 97);
  named.reset();
  EXPECT_EQ(store_->PromisedBytes(), 0);
}

}  // namespace
}  // namespace boss::server
