#include "core/io/atomic_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cerrno>
#include <csignal>
#include <filesystem>
#include <vector>

#include "tests/support/temp_folder.h"

namespace boss {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<std::string> Names(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    names.push_back(entry.path().filename().string());
  return names;
}

TEST(AtomicFileTest, ReadsWhatWasWritten) {
  const testing::TempFolder folder;
  const std::string binary("a\0b\n\xff", 5);
  for (const std::string& contents : {binary, std::string(), std::string(3 << 20, 'x')}) {
    ASSERT_TRUE(WriteFileAtomically(folder / "file", contents).ok());
    const absl::StatusOr<std::string> read = ReadFile(folder / "file");
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(*read, contents);
  }
  EXPECT_THAT(Names(folder.path()), ElementsAre("file"));
}

TEST(AtomicFileTest, NewFilesFollowTheUmask) {
  const testing::TempFolder folder;
  const mode_t old_mask = ::umask(027);
  const absl::Status status = WriteFileAtomically(folder / "file", "x");
  ::umask(old_mask);
  ASSERT_TRUE(status.ok()) << status;
  struct stat information;
  ASSERT_EQ(::stat((folder / "file").c_str(), &information), 0);
  EXPECT_EQ(information.st_mode & 0777, 0640u);
}

TEST(AtomicFileTest, MissingFolderIsNotFoundAndNamed) {
  const testing::TempFolder folder;
  const absl::Status status = WriteFileAtomically(folder / "missing/file", "x");
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(status.ToString(), HasSubstr(folder / "missing/file"));
}

TEST(AtomicFileTest, ParentThatIsAFileStaysUntouched) {
  const testing::TempFolder folder;
  ASSERT_TRUE(WriteFileAtomically(folder / "file", "old").ok());
  EXPECT_FALSE(WriteFileAtomically(folder / "file/child", "x").ok());
  EXPECT_EQ(ReadFile(folder / "file").value(), "old");
}

TEST(AtomicFileTest, FailedRenameLeavesNoTemporary) {
  const testing::TempFolder folder;
  ASSERT_TRUE(std::filesystem::create_directory(folder / "target"));
  const absl::Status status = WriteFileAtomically(folder / "target", "x");
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(status.ToString(), HasSubstr("rename"));
  EXPECT_THAT(Names(folder.path()), ElementsAre("target"));
}

TEST(AtomicFileTest, FailedWriteKeepsTheOldFile) {
  const testing::TempFolder folder;
  ASSERT_TRUE(WriteFileAtomically(folder / "file", "old").ok());
  // Beyond the limit, write() fails as it does on a full disk, once the signal is ignored.
  auto* const old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit old_limit;
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  const rlimit limit = {1000, old_limit.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  const absl::Status status = WriteFileAtomically(folder / "file", std::string(5000, 'x'));
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &old_limit), 0);
  std::signal(SIGXFSZ, old_handler);

  EXPECT_FALSE(status.ok());
  EXPECT_THAT(status.ToString(), HasSubstr("write " + (folder / "file")));
  EXPECT_EQ(ReadFile(folder / "file").value(), "old");
  EXPECT_THAT(Names(folder.path()), ElementsAre("file"));
}

TEST(AtomicFileTest, ContentsMayComeInPieces) {
  const testing::TempFolder folder;
  const auto write = [](absl::Status end) {
    return [end](WritableFile& file) {
      absl::Status status = file.Append("one ");
      status.Update(file.Append("two"));
      status.Update(end);
      return status;
    };
  };
  ASSERT_TRUE(WriteFileAtomically(folder / "file", write(absl::OkStatus())).ok());
  EXPECT_EQ(ReadFile(folder / "file").value(), "one two");
  EXPECT_TRUE(absl::IsAborted(WriteFileAtomically(folder / "other", write(absl::AbortedError("enough")))));
  EXPECT_THAT(Names(folder.path()), ElementsAre("file"));
}

TEST(AtomicFileTest, ReadReportsMissingFilesAndFolders) {
  const testing::TempFolder folder;
  EXPECT_EQ(ReadFile(folder / "missing").status().code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(ReadFile(folder.path()).ok());
  EXPECT_THAT(Names(folder.path()), IsEmpty());
}

TEST(AtomicFileTest, SystemErrorsMapToCodes) {
  EXPECT_EQ(ErrnoToStatus(ENOSPC, "write", "/f").code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ErrnoToStatus(EDQUOT, "write", "/f").code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ErrnoToStatus(EACCES, "open", "/f").code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(ErrnoToStatus(ENOENT, "open", "/f").code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(ErrnoToStatus(ENOSPC, "write", "/f").ToString(), HasSubstr("write /f"));
}

}  // namespace
}  // namespace boss
