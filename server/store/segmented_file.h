// A file that is received over hours and through crashes: what it calls committed is on the disk.
//
// It is kept in pieces, so that the name of a piece tells whether all of it is there:
//   <folder>/<offset>         a flushed piece; its name is the offset of its first byte, in 20 digits
//   <folder>/<offset>.part    the piece that is being written; worth nothing after a crash
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/io/file_system.h"

namespace boss::server {

// Not thread-safe. One object a folder.
class SegmentedFile {
 public:
  // A piece is committed when it has so many bytes.
  static constexpr int64_t kPieceBytes = int64_t{4} << 20;

  // Goes on after the pieces in `folder`, which exists and may hold other files too; pieces beyond a gap and unfinished
  // ones are removed. `files` outlives the object. \error what the file system reports.
  static absl::StatusOr<std::unique_ptr<SegmentedFile>> Open(const FileSystem& files, std::string folder);

  // \error RESOURCE_EXHAUSTED for a full disk, or what else the file system reports; then everything that was not
  // committed is gone: size() is committed_bytes().
  absl::Status Append(std::string_view data);
  // Puts everything on the disk. \error as of Append.
  absl::Status Commit();

  int64_t size() const { return committed_bytes_ + part_bytes_; }
  int64_t committed_bytes() const { return committed_bytes_; }

  // The committed pieces in order; an error of `visit` ends it. \error also DATA_LOSS for a piece of another size.
  absl::Status Read(absl::FunctionRef<absl::Status(std::string_view piece)> visit) const;

 private:
  struct Piece {
    int64_t offset = 0, size = 0;
  };

  SegmentedFile(const FileSystem& files, std::string folder) : files_(files), folder_(std::move(folder)) {}
  std::string PiecePath(int64_t offset) const;
  std::string PartPath() const;
  absl::Status OpenPart();
  absl::Status FinishPart();
  void DropPart();

  const FileSystem& files_;
  const std::string folder_;
  std::vector<Piece> pieces_;  // without gaps from 0
  int64_t committed_bytes_ = 0;
  std::unique_ptr<WritableFile> part_;  // null: nothing is uncommitted
  int64_t part_bytes_ = 0;
};

}  // namespace boss::server
