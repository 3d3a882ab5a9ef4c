// What must outlive the process about jobs: their records and their events.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"

struct sqlite3;

namespace boss::server {

// The journal does not look into `document`; the jobs' own code writes and reads it (server/jobs/job_json.h).
struct JobRecord {
  std::string id;
  std::string request_id;    // empty: none
  std::string request_hash;  // of the submitted body, to tell a repeat from another request with the same id
  std::string document;
  int64_t last_sequence = 0;  // of its events; filled in by LoadAll
};

struct EventRecord {
  int64_t sequence = 0;  // from 1 within a job, without gaps
  std::string document;
  std::string attachment;  // bytes that JSON carries badly, such as a preview's PNG
};

// Thread-safe. \error of every method, with the database's message: RESOURCE_EXHAUSTED (full disk), PERMISSION_DENIED
// (read-only disk), DATA_LOSS, INTERNAL; then nothing has changed.
class JobJournal {
 public:
  virtual ~JobJournal() = default;

  struct InsertOutcome {
    std::string id;  // of the new job, or of the earlier one with the same request_id
    bool inserted = false;
  };
  // Durable when it returns. A request_id that is known: with the same request_hash, the first job; \error
  // ALREADY_EXISTS with another.
  virtual absl::StatusOr<InsertOutcome> Insert(const JobRecord& record, absl::Span<const EventRecord> events) = 0;

  // Replaces the job's document and appends events in one transaction, durable when it returns. \error NOT_FOUND.
  virtual absl::Status Update(absl::string_view id, absl::string_view document,
                              absl::Span<const EventRecord> events) = 0;

  // In the order of insertion.
  virtual absl::StatusOr<std::vector<JobRecord>> LoadAll() = 0;

  // Up to `limit` events with sequence >= from_sequence, ascending.
  virtual absl::StatusOr<std::vector<EventRecord>> Events(absl::string_view id, int64_t from_sequence,
                                                          int64_t limit) = 0;
  // With all its events. \error NOT_FOUND.
  virtual absl::Status Delete(absl::string_view id) = 0;
};

// One SQLite database in write-ahead mode with synchronous=FULL: a transaction that has returned survives a power
// failure. A database of an older schema is migrated at Open.
class SqliteJobJournal final : public JobJournal {
 public:
  // \error FAILED_PRECONDITION if a newer program wrote it; DATA_LOSS if it is no database.
  // `vfs`: the name of a registered SQLite VFS to reach the disk through; empty: SQLite's own.
  static absl::StatusOr<std::unique_ptr<SqliteJobJournal>> Open(const std::string& path, const std::string& vfs = "");
  ~SqliteJobJournal() override;

  absl::StatusOr<InsertOutcome> Insert(const JobRecord& record, absl::Span<const EventRecord> events) override;
  absl::Status Update(absl::string_view id, absl::string_view document, absl::Span<const EventRecord> events) override;
  absl::StatusOr<std::vector<JobRecord>> LoadAll() override;
  absl::StatusOr<std::vector<EventRecord>> Events(absl::string_view id, int64_t from_sequence, int64_t limit) override;
  absl::Status Delete(absl::string_view id) override;

 private:
  explicit SqliteJobJournal(sqlite3* database) : database_(database) {}

  absl::Status Migrate() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status WriteEvents(absl::string_view id, absl::Span<const EventRecord> events)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  absl::Mutex mutex_;
  sqlite3* const database_ ABSL_PT_GUARDED_BY(mutex_);
};

}  // namespace boss::server
