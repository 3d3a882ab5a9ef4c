#include "server/store/segmented_file.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace boss::server {
namespace {

constexpr size_t kOffsetDigits = 20;
constexpr char kPartSuffix[] = ".part";

bool IsPieceName(const std::string& name) {
  return name.size() == kOffsetDigits && std::all_of(name.begin(), name.end(), absl::ascii_isdigit);
}

}  // namespace

absl::StatusOr<std::unique_ptr<SegmentedFile>> SegmentedFile::Open(const FileSystem& files, std::string folder) {
  auto file = std::unique_ptr<SegmentedFile>(new SegmentedFile(files, std::move(folder)));
  BOSS_ASSIGN_OR_RETURN(const std::vector<std::string> names, files.ListFolder(file->folder_));
  for (const std::string& name : names) {  // sorted, so by offset
    const std::string path = absl::StrCat(file->folder_, "/", name);
    if (IsPieceName(name)) {
      BOSS_ASSIGN_OR_RETURN(const FileInfo info, files.Stat(path));
      int64_t offset = 0;
      if (info.kind == FileInfo::Kind::kRegular && info.size_bytes > 0 && absl::SimpleAtoi(name, &offset) &&
          offset == file->committed_bytes_) {
        file->pieces_.push_back({offset, info.size_bytes});
        file->committed_bytes_ += info.size_bytes;
        continue;
      }
    } else if (!absl::EndsWith(name, kPartSuffix)) {
      continue;
    }
    BOSS_RETURN_IF_ERROR(files.RemoveAll(path));
  }
  return file;
}

std::string SegmentedFile::PiecePath(int64_t offset) const {
  return absl::StrCat(folder_, "/", absl::Dec(offset, absl::kZeroPad20));
}

std::string SegmentedFile::PartPath() const { return absl::StrCat(PiecePath(committed_bytes_), kPartSuffix); }

absl::Status SegmentedFile::OpenPart() {
  // One is there if it could not be removed when it was dropped.
  BOSS_RETURN_IF_ERROR(files_.RemoveAll(PartPath()));
  BOSS_ASSIGN_OR_RETURN(part_, files_.OpenForWriting(PartPath(), WriteMode::kCreate));
  return absl::OkStatus();
}

absl::Status SegmentedFile::Append(std::string_view data) {
  if (data.empty()) return absl::OkStatus();  // a piece has at least one byte, or two would have one name
  absl::Status status = part_ ? absl::OkStatus() : OpenPart();
  if (status.ok()) status = part_->Append(data);
  if (!status.ok()) {
    DropPart();
    return status;
  }
  part_bytes_ += static_cast<int64_t>(data.size());
  return part_bytes_ >= kPieceBytes ? Commit() : absl::OkStatus();
}

absl::Status SegmentedFile::FinishPart() {
  BOSS_RETURN_IF_ERROR(part_->Sync());
  BOSS_RETURN_IF_ERROR(part_->Close());
  BOSS_RETURN_IF_ERROR(files_.Rename(PartPath(), PiecePath(committed_bytes_)));
  return files_.SyncFolder(folder_);
}

absl::Status SegmentedFile::Commit() {
  if (!part_) return absl::OkStatus();
  const absl::Status status = FinishPart();
  if (!status.ok()) {
    DropPart();
    return status;
  }
  pieces_.push_back({committed_bytes_, part_bytes_});
  committed_bytes_ += part_bytes_;
  part_bytes_ = 0;
  part_.reset();
  return absl::OkStatus();
}

void SegmentedFile::DropPart() {
  part_.reset();
  part_bytes_ = 0;
  // Under either name; what cannot be removed now is in nobody's way.
  files_.RemoveAll(PartPath()).IgnoreError();
  files_.RemoveAll(PiecePath(committed_bytes_)).IgnoreError();
}

absl::Status SegmentedFile::Read(absl::FunctionRef<absl::Status(std::string_view)> visit) const {
  for (const Piece& piece : pieces_) {
    BOSS_ASSIGN_OR_RETURN(const std::string bytes, files_.ReadFile(PiecePath(piece.offset)));
    if (static_cast<int64_t>(bytes.size()) != piece.size) {
      return absl::DataLossError(
          absl::StrCat("the piece at offset ", piece.offset, ": got ", bytes.size(), " bytes, expected ", piece.size));
    }
    BOSS_RETURN_IF_ERROR(visit(bytes));
  }
  return absl::OkStatus();
}

}  // namespace boss::server
