// What a disk forgets when the power goes: everything that was not flushed.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <list>
#include <map>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"

namespace boss::testing {

// Remembers what is not on the disk yet and undoes it in Strike, the worst that a power failure can do: bytes that were
// not synced are gone, and so is what was done to a folder (new, renamed and removed entries) that was not synced
// since. What is removed or replaced is kept in an attic until then.
//
// Everything but mutex() is called by whoever holds it, from before a change of the disk until after it: so nothing
// changes while Strike undoes.
class PowerLoss {
 public:
  // `attic`: a folder of its own on the same disk; created.
  explicit PowerLoss(std::string attic);

  absl::Mutex& mutex() { return mutex_; }

  // ---- Files ----
  void Created(const std::string& path);  // after
  void Writing(const std::string& path);  // before
  void Synced(const std::string& path);   // after
  // Renames a file or folder. \return errno.
  int Rename(const std::string& from, const std::string& to);
  // Removes a file or folder. \return errno.
  int Remove(const std::string& path);
  void SyncedFolder(const std::string& path);  // after

  // ---- SQLite's files: there for good from the moment they are opened ----
  void WritingDatabase(sqlite3_file* file, int64_t offset, int64_t size);  // before
  void SyncedDatabase(sqlite3_file* file);                                 // after
  void ClosingDatabase(sqlite3_file* file);                                // before

  // Undoes what was not flushed. For the last moment of the process.
  void Strike();

 private:
  struct Change {
    enum class Kind { kCreated, kWritten, kRenamed, kRemoved };
    Kind kind = Kind::kCreated;
    std::string path;      // created, written, renamed to, or removed
    std::string from;      // renamed from
    std::string kept;      // in the attic: what was removed or replaced; empty: nothing
    int64_t old_size = 0;  // of what was written
  };
  struct OldBytes {
    int64_t offset = 0;
    std::string bytes;
    int64_t file_size = 0;
  };

  std::string NewKept();
  static void Undo(const Change& change);

  const std::string attic_;
  absl::Mutex mutex_;
  int64_t next_kept_ = 1;
  std::list<Change> changes_;  // in their order
  std::map<sqlite3_file*, std::vector<OldBytes>> database_changes_;
};

}  // namespace boss::testing
