#include "core/io/zip_archive.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/io/atomic_file.h"

namespace boss {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string Number(uint64_t value, size_t size) {
  return std::string(reinterpret_cast<const char*>(&value), size);  // little-endian, as every machine that this runs on
}

struct File {
  std::string name, data;
  uint64_t method = 0, flags = 0;
  bool zip64 = false;          // sizes and offset in the extra field alone
  int64_t size_too_large = 0;  // added to the size that the directory tells
};

struct Layout {
  std::string comment;
  bool zip64_directory = false;
  uint64_t more_entries = 0;     // added to the count
  uint64_t directory_shift = 0;  // added to the directory's offset
};

std::string Pack(const std::vector<File>& files, const Layout& layout = {}) {
  std::string bytes, directory;
  for (const File& file : files) {
    const uint64_t offset = bytes.size(), size = file.data.size() + file.size_too_large;
    bytes += Number(0x04034b50, 4) + std::string(22, '\0') + Number(file.name.size(), 2) + Number(3, 2) + file.name +
             "pad" + file.data;
    const std::string other_field = Number(0x7777, 2) + Number(2, 2) + "xx";
    const std::string extra =
        file.zip64 ? other_field + Number(1, 2) + Number(24, 2) + Number(size, 8) + Number(size, 8) + Number(offset, 8)
                   : "";
    const auto number = [&file](uint64_t value) { return Number(file.zip64 ? 0xffffffff : value, 4); };
    directory += Number(0x02014b50, 4) + Number(0, 4) + Number(file.flags, 2) + Number(file.method, 2) + Number(0, 8) +
                 number(size) + number(size) + Number(file.name.size(), 2) + Number(extra.size(), 2) + Number(1, 2) +
                 Number(0, 8) + number(offset) + file.name + extra + "c";
  }
  const uint64_t offset = bytes.size() + layout.directory_shift, entries = files.size() + layout.more_entries;
  bytes += directory;
  if (layout.zip64_directory) {
    const uint64_t record = bytes.size();
    bytes += Number(0x06064b50, 4) + Number(44, 8) + Number(0, 4) + Number(0, 8) + Number(entries, 8) +
             Number(entries, 8) + Number(directory.size(), 8) + Number(offset, 8);
    bytes += Number(0x07064b50, 4) + Number(0, 4) + Number(record, 8) + Number(1, 4);
    bytes += Number(0x06054b50, 4) + Number(0, 4) + Number(0xffff, 2) + Number(0xffff, 2) + Number(0xffffffff, 4) +
             Number(0xffffffff, 4);
  } else {
    bytes += Number(0x06054b50, 4) + Number(0, 4) + Number(entries, 2) + Number(entries, 2) +
             Number(directory.size(), 4) + Number(offset, 4);
  }
  return bytes + Number(layout.comment.size(), 2) + layout.comment;
}

void ExpectTwoFiles(const std::string& bytes) {
  const absl::StatusOr<ZipArchive> archive = ZipArchive::Open(bytes);
  ASSERT_TRUE(archive.ok()) << archive.status();
  EXPECT_THAT(archive->names(), ElementsAre("f/b", "f/a"));
  EXPECT_EQ(archive->Find("f/b"), "first");
  EXPECT_EQ(archive->Find("f/a"), "");
  EXPECT_EQ(archive->Find("a"), std::nullopt);
}

TEST(ZipArchiveTest, ReadsFilesWithAndWithoutZip64) {
  const std::vector<File> plain = {{"f/b", "first"}, {"f/a", ""}};
  std::vector<File> large = plain;
  large[0].zip64 = true;
  ExpectTwoFiles(Pack(plain));
  ExpectTwoFiles(Pack(large));
  ExpectTwoFiles(Pack(plain, {.zip64_directory = true}));
  ExpectTwoFiles(
      Pack(large, {.comment = "a comment with PK\x05\x06 in it, and more than 22 bytes", .zip64_directory = true}));
  EXPECT_TRUE(ZipArchive::Open(Pack({}))->names().empty());
}

TEST(ZipArchiveTest, ReadsAReferenceCheckpoint) {
  const std::string bytes = ReadFile(BOSS_SOURCE_DIR "/tests/golden/ncsnpp_tiny.pth").value();
  const absl::StatusOr<ZipArchive> archive = ZipArchive::Open(bytes);
  ASSERT_TRUE(archive.ok()) << archive.status();
  EXPECT_EQ(archive->names().size(), 328u);
  EXPECT_EQ(archive->names().front(), "ncsnpp_tiny/data.pkl");
  EXPECT_EQ(archive->Find("ncsnpp_tiny/version"), "3\n");
  EXPECT_EQ(archive->Find("ncsnpp_tiny/data.pkl")->size(), 37714u);
}

TEST(ZipArchiveTest, EveryTruncationIsDataLoss) {
  for (const bool zip64 : {false, true}) {
    const std::string bytes = Pack({{"f/b", "first"}, {"f/a", ""}}, {.comment = "end", .zip64_directory = zip64});
    for (size_t size = 0; size < bytes.size(); ++size) {
      EXPECT_EQ(ZipArchive::Open(std::string_view(bytes).substr(0, size)).status().code(), absl::StatusCode::kDataLoss)
          << size;
    }
  }
}

TEST(ZipArchiveTest, CompressedAndEncryptedFilesAreRefused) {
  for (const File& file : {File{"f/a", "x", /*method=*/8}, File{"f/a", "x", 0, /*flags=*/1}}) {
    const absl::Status status = ZipArchive::Open(Pack({file})).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(status.ToString(), HasSubstr("f/a is compressed or encrypted"));
  }
}

TEST(ZipArchiveTest, ContradictionsAreDataLoss) {
  File too_large{"f/a", "x"};
  too_large.size_too_large = 1;
  File huge{"f/a", "x", 0, 0, /*zip64=*/true};
  huge.size_too_large = INT64_MAX;
  // The first file reaches into the second one.
  std::vector<File> overlapping = {{"f/a", std::string(30, 'a')}, {"f/b", std::string(300, 'b')}};
  overlapping[0].size_too_large = 250;
  const std::pair<std::string, const char*> cases[] = {
      {"", "no directory"},
      {std::string(100'000, 'x'), "no directory"},
      {Pack({too_large}), "f/a reaches behind"},
      {Pack({huge}), "f/a reaches behind"},
      {Pack({{"f/a", "x"}, {"f/a", "y"}}), "f/a twice"},
      {Pack(overlapping), "overlap"},
      {Pack({{"f/a", "x"}}, {.more_entries = 1}), "got 1 files, expected 2"},
      {Pack({{"f/a", "x"}}, {.zip64_directory = true, .more_entries = uint64_t{1} << 60}), "got 1 files"},
      {Pack({{"f/a", "x"}}, {.directory_shift = 1}), "behind its end"},
      {Pack({{"f/a", "x"}}, {.zip64_directory = true, .directory_shift = ~uint64_t{0}}), "something other than files"},
      {Pack({{"f/a", "x"}}, {.zip64_directory = true, .directory_shift = uint64_t{1} << 63}), "behind its end"},
  };
  for (const auto& [bytes, message] : cases) {
    const absl::Status status = ZipArchive::Open(bytes).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << message << ": " << status;
    EXPECT_THAT(status.ToString(), HasSubstr(message));
  }
}

// Whatever the directory says, all files together are no larger than the archive.
TEST(ZipArchiveTest, ManyEntriesOfTheSameBytesAreRefused) {
  const std::string one = Pack({{"f/0", std::string(1000, 'x')}});
  const size_t start = one.find(Number(0x02014b50, 4)), end = one.find(Number(0x06054b50, 4));
  std::string directory;
  for (char name = '0'; name <= '9'; ++name) {
    std::string entry = one.substr(start, end - start);
    entry[entry.find("f/0") + 2] = name;
    directory += entry;
  }
  const std::string bytes = one.substr(0, start) + directory + Number(0x06054b50, 4) + Number(0, 4) + Number(10, 2) +
                            Number(10, 2) + Number(directory.size(), 4) + Number(start, 4) + Number(0, 2);
  EXPECT_THAT(ZipArchive::Open(bytes).status().ToString(), HasSubstr("overlap"));
}

}  // namespace
}  // namespace boss
