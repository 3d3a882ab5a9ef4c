#include "core/io/zip_archive.h"

#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/io/printable.h"

namespace boss {
namespace {

// Names, sizes and field orders are those of PKWARE's APPNOTE.TXT, 4.3 and 4.5.
constexpr uint64_t kLocalHeader = 0x04034b50;
constexpr uint64_t kDirectoryEntry = 0x02014b50;
constexpr uint64_t kEndOfDirectory = 0x06054b50;
constexpr uint64_t kZip64EndOfDirectory = 0x06064b50;
constexpr uint64_t kZip64Locator = 0x07064b50;

constexpr size_t kEndOfDirectoryBytes = 22;
constexpr size_t kZip64LocatorBytes = 20;
constexpr size_t kMaxCommentBytes = 0xffff;
constexpr uint64_t kMoved = 0xffffffff;  // in place of a 32-bit number: the zip64 field has it
constexpr uint64_t kZip64Field = 1;
constexpr uint64_t kEncryptedFlag = 1;

absl::Status Corrupt(std::string_view what) {
  return absl::DataLossError(absl::StrCat("zip archive: ", std::string(what)));
}

// Little-endian numbers one after the other. Reading behind the end gives zeros and clears ok().
class Fields {
 public:
  explicit Fields(std::string_view bytes) : rest_(bytes) {}

  uint64_t Number(size_t size) {
    const std::string_view taken = Bytes(size);
    uint64_t value = 0;
    for (size_t i = taken.size(); i > 0; --i) value = value << 8 | static_cast<uint8_t>(taken[i - 1]);
    return value;
  }
  std::string_view Bytes(uint64_t size) {
    if (size > rest_.size()) {
      ok_ = false;
      rest_ = {};
      return {};
    }
    const std::string_view taken = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return taken;
  }
  void Skip(uint64_t size) { Bytes(size); }

  bool empty() const { return rest_.empty(); }
  bool ok() const { return ok_; }

 private:
  std::string_view rest_;
  bool ok_ = true;
};

std::string_view From(std::string_view bytes, uint64_t offset) {
  return offset <= bytes.size() ? bytes.substr(offset) : std::string_view();
}

struct Directory {
  uint64_t offset = 0, size = 0, entries = 0;
};

// The zip64 record if a locator stands before the end record at `end`.
absl::StatusOr<std::optional<Directory>> FindZip64Directory(std::string_view bytes, size_t end) {
  if (end < kZip64LocatorBytes) return std::nullopt;
  Fields locator(bytes.substr(end - kZip64LocatorBytes, kZip64LocatorBytes));
  if (locator.Number(4) != kZip64Locator) return std::nullopt;
  locator.Skip(4);  // disk
  Fields record(From(bytes, locator.Number(8)));
  if (record.Number(4) != kZip64EndOfDirectory) return Corrupt("its zip64 directory record is missing");
  record.Skip(8 + 2 + 2 + 4 + 4 + 8);  // size, versions, disks, entries on this disk
  Directory directory;
  directory.entries = record.Number(8);
  directory.size = record.Number(8);
  directory.offset = record.Number(8);
  if (!record.ok()) return Corrupt("its zip64 directory record is truncated");
  return directory;
}

absl::StatusOr<Directory> FindDirectory(std::string_view bytes) {
  if (bytes.size() < kEndOfDirectoryBytes) return Corrupt("it has no directory");
  const size_t last = bytes.size() - kEndOfDirectoryBytes;
  const size_t first = last > kMaxCommentBytes ? last - kMaxCommentBytes : 0;
  for (size_t end = last + 1; end-- > first;) {
    Fields record(bytes.substr(end));
    if (record.Number(4) != kEndOfDirectory) continue;
    record.Skip(2 + 2 + 2);  // disks, entries on this disk
    Directory directory;
    directory.entries = record.Number(2);
    directory.size = record.Number(4);
    directory.offset = record.Number(4);
    const uint64_t comment = record.Number(2);
    if (comment != last - end) continue;  // the number that looks like a signature is part of a comment
    BOSS_ASSIGN_OR_RETURN(const std::optional<Directory> zip64, FindZip64Directory(bytes, end));
    if (zip64) directory = *zip64;
    if (directory.offset > end || directory.size > end - directory.offset)
      return Corrupt("its directory reaches behind its end");
    return directory;
  }
  return Corrupt("it has no directory");
}

struct Entry {
  std::string name;
  uint64_t size = 0, offset = 0;
};

// \pre `fields` is not empty.
absl::StatusOr<Entry> ReadEntry(Fields& fields) {
  if (fields.Number(4) != kDirectoryEntry) return Corrupt("its directory holds something other than files");
  fields.Skip(2 + 2);  // versions
  const uint64_t flags = fields.Number(2), method = fields.Number(2);
  fields.Skip(2 + 2 + 4);  // time, date, checksum
  uint64_t packed_size = fields.Number(4);
  Entry entry;
  entry.size = fields.Number(4);
  const uint64_t name_size = fields.Number(2), extra_size = fields.Number(2), comment_size = fields.Number(2);
  fields.Skip(2 + 2 + 4);  // disk, attributes
  entry.offset = fields.Number(4);
  entry.name = std::string(fields.Bytes(name_size));
  Fields extra(fields.Bytes(extra_size));
  fields.Skip(comment_size);
  if (!fields.ok()) return Corrupt("its directory is truncated");

  while (!extra.empty()) {
    const uint64_t kind = extra.Number(2);
    Fields field(extra.Bytes(extra.Number(2)));
    if (kind != kZip64Field || !extra.ok()) continue;
    for (uint64_t* number : {&entry.size, &packed_size, &entry.offset}) {
      if (*number == kMoved) *number = field.Number(8);
    }
    if (!field.ok()) return Corrupt(absl::StrCat("the sizes of ", Printable(entry.name), " are missing"));
  }
  if (method != 0 || (flags & kEncryptedFlag) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("zip archive: ", Printable(entry.name), " is compressed or encrypted, expected it to be stored"));
  }
  if (packed_size != entry.size) return Corrupt(absl::StrCat(Printable(entry.name), " has two different sizes"));
  return entry;
}

// The file's bytes: they lie behind its local header and before the directory.
absl::StatusOr<std::string_view> Locate(std::string_view before_directory, const Entry& entry) {
  Fields header(From(before_directory, entry.offset));
  const bool found = header.Number(4) == kLocalHeader;
  header.Skip(2 + 2 + 2 + 2 + 2 + 4 + 4 + 4);  // version, flags, method, time, date, checksum, sizes
  const uint64_t name_size = header.Number(2), extra_size = header.Number(2);
  header.Skip(name_size + extra_size);
  const std::string_view data = header.Bytes(entry.size);
  if (!found || !header.ok()) return Corrupt(absl::StrCat(Printable(entry.name), " reaches behind the files' end"));
  return data;
}

}  // namespace

absl::StatusOr<ZipArchive> ZipArchive::Open(std::string_view bytes) {
  BOSS_ASSIGN_OR_RETURN(const Directory directory, FindDirectory(bytes));
  const std::string_view before_directory = bytes.substr(0, directory.offset);
  Fields fields(bytes.substr(directory.offset, directory.size));
  ZipArchive archive;
  uint64_t total = 0;
  while (!fields.empty()) {
    BOSS_ASSIGN_OR_RETURN(Entry entry, ReadEntry(fields));
    BOSS_ASSIGN_OR_RETURN(const std::string_view data, Locate(before_directory, entry));
    // So that copies of all files need no more memory than the archive, whatever its directory says.
    total += data.size();
    if (total > before_directory.size()) return Corrupt("its files overlap");
    if (!archive.files_.emplace(entry.name, data).second)
      return Corrupt(absl::StrCat("it holds ", Printable(entry.name), " twice"));
    archive.names_.push_back(std::move(entry.name));
  }
  if (archive.names_.size() != directory.entries) {
    return Corrupt(absl::StrCat("got ", archive.names_.size(), " files, expected ", directory.entries));
  }
  return archive;
}

std::optional<std::string_view> ZipArchive::Find(std::string_view name) const {
  const auto found = files_.find(name);
  if (found == files_.end()) return std::nullopt;
  return found->second;
}

}  // namespace boss
