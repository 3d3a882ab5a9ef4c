// Files on their way in from clients.
//
//   <data>/uploads/<id>/upload.json    {"digest", "active"}: what is uploaded, and when a client last was at it
//   <data>/uploads/<id>/...            its bytes (see segmented_file.h)
//
// An upload with an id outlives its connection and the server: whoever comes with the same id and the same digest goes
// on with it. One without an id goes away with its connection; its folder's name begins with a dot, which no id does.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "core/base/clock.h"
#include "core/io/file_system.h"
#include "server/store/segmented_file.h"

namespace boss::server {

// An upload that no client came back to for so long is removed.
inline constexpr absl::Duration kUploadLifetime = absl::Hours(24);

struct UploadPlan {
  std::string id;           // as CheckName wants it; empty: nobody will come back to it
  std::string digest;       // of all that is being uploaded: contents and what they are to become
  int64_t total_bytes = 0;  // of the whole file
};

class Upload;

// Thread-safe. Everything blocks on the disk.
class UploadStore {
 public:
  // Creates `folder`, and removes from it what cannot be gone on with. `files` and `clock` outlive the store, which
  // outlives its uploads. \error what the file system reports.
  static absl::StatusOr<std::unique_ptr<UploadStore>> Open(std::string folder, const FileSystem& files,
                                                           const Clock& clock);

  // The bytes of the upload that are on the disk; 0 if there is no such upload. An upload that somebody holds is taken
  // from them, so that the answer stays true. \pre plan.id is not empty. \error ALREADY_EXISTS if the id belongs to
  // another digest.
  absl::StatusOr<int64_t> Query(const UploadPlan& plan) ABSL_LOCKS_EXCLUDED(mutex_);

  // Begins the upload or goes on with it, taking it from whoever holds it. \error ALREADY_EXISTS as in Query;
  // UNAVAILABLE if it is sealed; what the file system reports.
  absl::StatusOr<std::unique_ptr<Upload>> Take(const UploadPlan& plan) ABSL_LOCKS_EXCLUDED(mutex_);

  // Removes the uploads that nobody can or will go on with, as far as the disk lets it. Part of Open and Take.
  void Sweep() ABSL_LOCKS_EXCLUDED(mutex_);

  // Bytes that uploads under way will still write.
  int64_t PromisedBytes() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  friend class Upload;
  // An upload that somebody holds.
  struct Entry {
    std::string name;  // of the folder
    UploadPlan plan;
    std::mutex mutex;  // after UploadStore::mutex_
    std::unique_ptr<SegmentedFile> file ABSL_GUARDED_BY(mutex);
    const Upload* holder ABSL_GUARDED_BY(mutex) = nullptr;
    bool sealed ABSL_GUARDED_BY(mutex) = false;
    absl::Time recorded ABSL_GUARDED_BY(mutex);  // "active" in upload.json
  };
  // upload.json.
  struct Record {
    std::string digest;
    absl::Time active;
  };

  UploadStore(std::string folder, const FileSystem& files, const Clock& clock)
      : folder_(std::move(folder)), files_(files), clock_(clock) {}

  std::string FolderOf(const std::string& name) const;
  // NOT_FOUND if there is no upload that can be gone on with.
  absl::StatusOr<Record> ReadRecord(const std::string& name) const;
  absl::Status WriteRecord(const std::string& name, const UploadPlan& plan, absl::Time active) const;
  void SweepLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Opens the upload's file, which `exists` or is made.
  absl::StatusOr<std::unique_ptr<SegmentedFile>> OpenFile(const std::string& name, const UploadPlan& plan,
                                                          bool exists) const;
  void Release(const std::shared_ptr<Entry>& entry, const Upload* holder, bool remove) ABSL_LOCKS_EXCLUDED(mutex_);

  const std::string folder_;
  const FileSystem& files_;
  const Clock& clock_;
  mutable std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Entry>> held_ ABSL_GUARDED_BY(mutex_);  // by folder name
  int64_t next_unnamed_ ABSL_GUARDED_BY(mutex_) = 0;
};

// The hold on one upload. Going away, it leaves the bytes on the disk for the next holder, or removes them if the
// upload has no id. Used by one thread at a time.
class Upload {
 public:
  ~Upload();
  Upload(const Upload&) = delete;
  Upload& operator=(const Upload&) = delete;

  // Whether there was such an upload before.
  bool resumed() const { return resumed_; }
  // Bytes received; those on the disk may be fewer.
  int64_t size() const { return size_; }

  // \pre no more than the plan's total. \error ABORTED if somebody else has taken the upload; RESOURCE_EXHAUSTED for a
  // full disk, or what else the file system reports: what was not yet on the disk is gone then, and the hold is over.
  absl::Status Append(std::string_view data);
  // Puts everything on the disk; nobody can take the upload from now on. \error as of Append.
  absl::Status Seal();
  // The bytes in order, in pieces. \pre sealed. \error DATA_LOSS, an error of `visit`, what the file system reports.
  absl::Status Read(absl::FunctionRef<absl::Status(std::string_view piece)> visit) const;

  // Ends the hold, and removes the upload from the disk. A no-op if somebody else has taken it.
  void Remove();

 private:
  friend class UploadStore;
  Upload(UploadStore& store, std::shared_ptr<UploadStore::Entry> entry, bool resumed, int64_t size)
      : store_(store), entry_(std::move(entry)), resumed_(resumed), size_(size) {}
  absl::Status CheckHeld() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(entry_->mutex);

  UploadStore& store_;
  const std::shared_ptr<UploadStore::Entry> entry_;
  const bool resumed_;
  int64_t size_ = 0;
};

}  // namespace boss::server
