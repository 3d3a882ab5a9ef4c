#include "server/store/segmented_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <string>

#include "tests/support/scripted_disk.h"
#include "tests/support/temp_folder.h"

namespace boss::server {
namespace {

using ::boss::testing::ScriptedDisk;
using ::boss::testing::TempFolder;
using ::testing::HasSubstr;

constexpr char kFirstPiece[] = "00000000000000000000";
constexpr int64_t kPiece = SegmentedFile::kPieceBytes;

class SegmentedFileTest : public ::testing::Test {
 protected:
  std::unique_ptr<SegmentedFile> Open() {
    auto file = SegmentedFile::Open(disk_, folder_.path());
    EXPECT_TRUE(file.ok()) << file.status();
    return file.ok() ? *std::move(file) : nullptr;
  }
  static std::string Contents(const SegmentedFile& file) {
    std::string contents;
    const absl::Status status = file.Read([&](std::string_view piece) {
      contents += piece;
      return absl::OkStatus();
    });
    EXPECT_TRUE(status.ok()) << status;
    return contents;
  }
  void Put(const std::string& name, const std::string& contents) { std::ofstream(folder_ / name) << contents; }

  ScriptedDisk disk_;
  TempFolder folder_;
};

TEST_F(SegmentedFileTest, WhatIsCommittedIsThereAfterACrashAndNothingElse) {
  const auto file = Open();
  ASSERT_TRUE(file->Append("committed").ok());
  ASSERT_TRUE(file->Commit().ok());
  ASSERT_TRUE(file->Append("lost").ok());
  EXPECT_EQ(file->size(), 13);
  EXPECT_EQ(file->committed_bytes(), 9);
  // Another object sees what another process would.
  const auto reopened = Open();
  EXPECT_EQ(reopened->size(), 9);
  ASSERT_TRUE(reopened->Append(", and more").ok());
  ASSERT_TRUE(reopened->Commit().ok());
  EXPECT_EQ(Contents(*reopened), "committed, and more");
  EXPECT_EQ(Contents(*Open()), "committed, and more");
}

TEST_F(SegmentedFileTest, CommitsByItselfPieceByPiece) {
  const auto file = Open();
  const std::string chunk(1 << 20, 'x');
  for (int64_t written = 0; written < kPiece; written += 1 << 20) {
    EXPECT_EQ(file->committed_bytes(), 0);
    ASSERT_TRUE(file->Append(chunk).ok());
  }
  EXPECT_EQ(file->committed_bytes(), kPiece);
  ASSERT_TRUE(file->Append("y").ok());
  EXPECT_EQ(file->committed_bytes(), kPiece);
  EXPECT_EQ(file->size(), kPiece + 1);
}

TEST_F(SegmentedFileTest, NothingAddedIsNoPiece) {
  const auto file = Open();
  ASSERT_TRUE(file->Append("").ok());
  ASSERT_TRUE(file->Commit().ok());
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));
  ASSERT_TRUE(file->Append("a").ok());
  ASSERT_TRUE(file->Commit().ok());
  ASSERT_TRUE(file->Append("").ok());
  ASSERT_TRUE(file->Commit().ok());
  EXPECT_EQ(Contents(*file), "a");
}

TEST_F(SegmentedFileTest, AFailureOfTheDiskKeepsWhatWasCommitted) {
  for (const std::string failing : {"create", "append", "sync", "close", "rename", "sync folder"}) {
    SCOPED_TRACE(failing);
    std::filesystem::remove_all(folder_.path());
    std::filesystem::create_directory(folder_.path());
    disk_.before = nullptr;
    const auto file = Open();
    ASSERT_TRUE(file->Append("first").ok());
    ASSERT_TRUE(file->Commit().ok());
    disk_.before = [&](const std::string& operation, const std::string&) {
      return operation == failing ? absl::ResourceExhaustedError("full") : absl::OkStatus();
    };
    absl::Status status = file->Append(", second");
    if (status.ok()) status = file->Commit();
    EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
    EXPECT_EQ(file->size(), 5);
    EXPECT_EQ(file->committed_bytes(), 5);
    EXPECT_EQ(Contents(*Open()), "first");
    disk_.before = nullptr;
    ASSERT_TRUE(file->Append(", third").ok());
    ASSERT_TRUE(file->Commit().ok());
    EXPECT_EQ(Contents(*file), "first, third");
    EXPECT_EQ(Contents(*Open()), "first, third");
  }
}

TEST_F(SegmentedFileTest, APartThatCannotBeRemovedIsReplaced) {
  const auto file = Open();
  disk_.before = [](const std::string& operation, const std::string&) {
    return operation == "append" || operation == "remove" ? absl::InternalError("broken") : absl::OkStatus();
  };
  EXPECT_FALSE(file->Append("half").ok());
  disk_.before = nullptr;
  ASSERT_TRUE(file->Append("whole").ok());
  ASSERT_TRUE(file->Commit().ok());
  EXPECT_EQ(Contents(*Open()), "whole");
}

TEST_F(SegmentedFileTest, GoesOnOnlyAfterPiecesWithoutAGap) {
  Put(kFirstPiece, "abc");
  Put("00000000000000000003", "de");
  Put("00000000000000000005", "");
  Put("00000000000000000006", "beyond");
  Put("00000000000000000005.part", "unfinished");
  Put("99999999999999999999", "too far");
  Put("other.json", "not ours");
  const auto file = Open();
  EXPECT_EQ(file->size(), 5);
  EXPECT_EQ(Contents(*file), "abcde");
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder_.path())) names.insert(entry.path().filename());
  EXPECT_EQ(names, (std::set<std::string>{kFirstPiece, "00000000000000000003", "other.json"}));
}

TEST_F(SegmentedFileTest, LinksAreNoPieces) {
  Put("target", "secret");
  std::filesystem::create_symlink(folder_ / "target", folder_ / kFirstPiece);
  EXPECT_EQ(Open()->size(), 0);
  EXPECT_TRUE(std::filesystem::exists(folder_ / "target"));
  EXPECT_FALSE(std::filesystem::is_symlink(folder_ / kFirstPiece));
}

TEST_F(SegmentedFileTest, APieceThatHasChangedIsALoss) {
  const auto file = Open();
  ASSERT_TRUE(file->Append("abc").ok());
  ASSERT_TRUE(file->Commit().ok());
  Put(kFirstPiece, "ab");
  const absl::Status status = file->Read([](std::string_view) { return absl::OkStatus(); });
  EXPECT_TRUE(absl::IsDataLoss(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("got 2 bytes, expected 3"));
}

}  // namespace
}  // namespace boss::server
