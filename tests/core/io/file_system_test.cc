#include "core/io/file_system.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/temp_folder.h"

namespace boss {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class FileSystemTest : public ::testing::Test {
 protected:
  void Write(const std::string& path, std::string_view contents) {
    auto file = files_.OpenForWriting(path, WriteMode::kCreate);
    ASSERT_TRUE(file.ok()) << file.status();
    ASSERT_TRUE((*file)->Append(contents).ok());
    ASSERT_TRUE((*file)->Sync().ok());
    ASSERT_TRUE((*file)->Close().ok());
  }

  const testing::TempFolder folder_;
  const FileSystem& files_ = PosixFileSystem();
};

TEST_F(FileSystemTest, CreatesAppendsAndReads) {
  Write(folder_ / "file", "ab");
  auto file = files_.OpenForWriting(folder_ / "file", WriteMode::kAppend);
  ASSERT_TRUE(file.ok());
  EXPECT_TRUE((*file)->Append("cd").ok());
  EXPECT_TRUE((*file)->Close().ok());
  EXPECT_EQ(files_.ReadFile(folder_ / "file").value(), "abcd");
  EXPECT_EQ(files_.Stat(folder_ / "file")->size_bytes, 4);
}

TEST_F(FileSystemTest, OpeningTellsWhatIsThereAndWhatIsNot) {
  Write(folder_ / "file", "x");
  EXPECT_TRUE(absl::IsAlreadyExists(files_.OpenForWriting(folder_ / "file", WriteMode::kCreate).status()));
  const absl::Status missing = files_.OpenForWriting(folder_ / "none", WriteMode::kAppend).status();
  EXPECT_TRUE(absl::IsNotFound(missing));
  EXPECT_THAT(missing.ToString(), HasSubstr(folder_ / "none"));
}

TEST_F(FileSystemTest, CreatesFoldersWithThoseAbove) {
  EXPECT_TRUE(files_.CreateFolders(folder_ / "a/b/c").ok());
  EXPECT_TRUE(files_.CreateFolders(folder_ / "a/b/c").ok());
  EXPECT_EQ(files_.Stat(folder_ / "a/b/c")->kind, FileInfo::Kind::kFolder);
  Write(folder_ / "file", "x");
  EXPECT_TRUE(absl::IsAlreadyExists(files_.CreateFolders(folder_ / "file")));
  EXPECT_FALSE(files_.CreateFolders(folder_ / "file/below").ok());
}

TEST_F(FileSystemTest, LinksAreReportedAndNotFollowedWhenRemoved) {
  Write(folder_ / "kept", "x");
  ASSERT_TRUE(files_.CreateFolders(folder_ / "doomed").ok());
  std::filesystem::create_symlink(folder_ / "kept", folder_ / "doomed/link");
  EXPECT_EQ(files_.Stat(folder_ / "doomed/link")->kind, FileInfo::Kind::kLink);
  EXPECT_TRUE(files_.RemoveAll(folder_ / "doomed").ok());
  EXPECT_TRUE(files_.RemoveAll(folder_ / "doomed").ok());
  EXPECT_THAT(*files_.ListFolder(folder_.path()), ElementsAre("kept"));
}

TEST_F(FileSystemTest, HardLinksShareTheirBytes) {
  Write(folder_ / "a", "x");
  ASSERT_TRUE(files_.Link(folder_ / "a", folder_ / "b").ok());
  ASSERT_TRUE(files_.RemoveAll(folder_ / "a").ok());
  EXPECT_EQ(files_.ReadFile(folder_ / "b").value(), "x");
  EXPECT_TRUE(absl::IsAlreadyExists(files_.Link(folder_ / "b", folder_ / "b")));
}

TEST_F(FileSystemTest, RenamesAndSyncs) {
  Write(folder_ / "a", "x");
  EXPECT_TRUE(files_.Rename(folder_ / "a", folder_ / "b").ok());
  EXPECT_TRUE(files_.SyncFolder(folder_.path()).ok());
  EXPECT_TRUE(absl::IsNotFound(files_.SyncFolder(folder_ / "missing")));
  EXPECT_TRUE(absl::IsNotFound(files_.Rename(folder_ / "a", folder_ / "c")));
  EXPECT_THAT(*files_.ListFolder(folder_.path()), ElementsAre("b"));
}

TEST_F(FileSystemTest, TellsFreeBytes) {
  EXPECT_GT(*files_.FreeBytes(folder_.path()), 0);
  EXPECT_TRUE(absl::IsNotFound(files_.FreeBytes(folder_ / "missing").status()));
  EXPECT_THAT(*files_.ListFolder(folder_.path()), IsEmpty());
}

}  // namespace
}  // namespace boss
