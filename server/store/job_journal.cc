#include "server/store/job_journal.h"

#include <sqlite3.h>

#include <array>
#include <cerrno>
#include <string>
#include <system_error>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"

namespace boss::server {
namespace {

// Migration i leads from schema version i to i + 1. Published ones are never changed; new ones are appended.
constexpr std::array<const char*, 1> kMigrations = {
    R"sql(
CREATE TABLE jobs(
  ordinal INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  request_id TEXT UNIQUE,
  request_hash TEXT NOT NULL,
  document TEXT NOT NULL);
CREATE TABLE events(
  job INTEGER NOT NULL REFERENCES jobs(ordinal) ON DELETE CASCADE,
  sequence INTEGER NOT NULL,
  document TEXT NOT NULL,
  attachment BLOB NOT NULL,
  PRIMARY KEY(job, sequence));
)sql"};

// What the system said last. sqlite3_system_errno does not know of what fails in a COMMIT.
int SystemError(sqlite3* database) {
  sqlite3_vfs* vfs = nullptr;
  if (sqlite3_file_control(database, "main", SQLITE_FCNTL_VFS_POINTER, &vfs) != SQLITE_OK) return 0;
  return vfs == nullptr || vfs->xGetLastError == nullptr ? 0 : vfs->xGetLastError(vfs, 0, nullptr);
}

absl::Status DatabaseError(sqlite3* database, absl::string_view what) {
  const int code = sqlite3_errcode(database), error = SystemError(database);
  std::string message = absl::StrCat("job journal: ", what, ": ", sqlite3_errmsg(database));
  if ((code & 0xff) == SQLITE_IOERR && error != 0)
    absl::StrAppend(&message, ": ", std::generic_category().message(error));
  switch (code & 0xff) {
    case SQLITE_FULL:
      return absl::ResourceExhaustedError(message);
    case SQLITE_READONLY:
    case SQLITE_PERM:
      return absl::PermissionDeniedError(message);
    case SQLITE_IOERR:
      // Only a write to a full disk is SQLITE_FULL: not a quota that is used up, and not a sync or a shared memory that
      // needs room.
      switch (error) {
        case ENOSPC:
        case EDQUOT:
          return absl::ResourceExhaustedError(message);
        case EACCES:
        case EPERM:
        case EROFS:
          return absl::PermissionDeniedError(message);
        default:
          return absl::InternalError(message);
      }
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::DataLossError(message);
    default:
      return absl::InternalError(message);
  }
}

absl::Status Execute(sqlite3* database, const char* sql) {
  if (sqlite3_exec(database, sql, nullptr, nullptr, nullptr) != SQLITE_OK) return DatabaseError(database, sql);
  return absl::OkStatus();
}

// A prepared statement. Bind in order, then Step until it returns false; columns are read in between.
class Statement {
 public:
  Statement(sqlite3* database, const char* sql) : database_(database), sql_(sql) {
    failed_ = sqlite3_prepare_v2(database, sql, -1, &statement_, nullptr) != SQLITE_OK;
  }
  ~Statement() { sqlite3_finalize(statement_); }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  Statement& Text(absl::string_view value) {
    failed_ = failed_ || sqlite3_bind_text64(statement_, ++bound_, value.data(), value.size(), SQLITE_TRANSIENT,
                                             SQLITE_UTF8) != SQLITE_OK;
    return *this;
  }
  Statement& TextOrNull(absl::string_view value) {
    if (!value.empty()) return Text(value);
    failed_ = failed_ || sqlite3_bind_null(statement_, ++bound_) != SQLITE_OK;
    return *this;
  }
  Statement& Blob(absl::string_view value) {
    // A null pointer would bind NULL, even with a size of zero.
    const char* data = value.empty() ? "" : value.data();
    failed_ = failed_ || sqlite3_bind_blob64(statement_, ++bound_, data, value.size(), SQLITE_TRANSIENT) != SQLITE_OK;
    return *this;
  }
  Statement& Int(int64_t value) {
    failed_ = failed_ || sqlite3_bind_int64(statement_, ++bound_, value) != SQLITE_OK;
    return *this;
  }

  // Whether there is a row.
  absl::StatusOr<bool> Step() {
    if (failed_) return DatabaseError(database_, sql_);
    const int code = sqlite3_step(statement_);
    if (code == SQLITE_ROW) return true;
    if (code == SQLITE_DONE) return false;
    return DatabaseError(database_, sql_);
  }
  absl::Status Run() { return Step().status(); }
  // For another round of Bind and Step.
  void Reset() {
    sqlite3_reset(statement_);
    bound_ = 0;
  }

  std::string Column(int i) const {
    const auto* data = static_cast<const char*>(sqlite3_column_blob(statement_, i));
    return data == nullptr ? std::string() : std::string(data, sqlite3_column_bytes(statement_, i));
  }
  int64_t IntColumn(int i) const { return sqlite3_column_int64(statement_, i); }

 private:
  sqlite3* const database_;
  const char* const sql_;
  sqlite3_stmt* statement_ = nullptr;
  int bound_ = 0;
  bool failed_ = false;
};

// Rolls back unless committed.
class Transaction {
 public:
  explicit Transaction(sqlite3* database) : database_(database) {}
  ~Transaction() {
    if (open_) sqlite3_exec(database_, "ROLLBACK", nullptr, nullptr, nullptr);
  }
  absl::Status Begin() {
    BOSS_RETURN_IF_ERROR(Execute(database_, "BEGIN IMMEDIATE"));
    open_ = true;
    return absl::OkStatus();
  }
  absl::Status Commit() {
    BOSS_RETURN_IF_ERROR(Execute(database_, "COMMIT"));
    open_ = false;
    return absl::OkStatus();
  }

 private:
  sqlite3* const database_;
  bool open_ = false;
};

absl::Status UnknownJob(absl::string_view id) {
  return absl::NotFoundError(absl::StrCat("job ", id, " does not exist"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<SqliteJobJournal>> SqliteJobJournal::Open(const std::string& path,
                                                                         const std::string& vfs) {
  sqlite3* database = nullptr;
  const int code =
      sqlite3_open_v2(path.c_str(), &database, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX,
                      vfs.empty() ? nullptr : vfs.c_str());
  if (database == nullptr) return absl::ResourceExhaustedError("job journal: no memory for a database connection");
  std::unique_ptr<SqliteJobJournal> journal(new SqliteJobJournal(database));
  if (code != SQLITE_OK) return DatabaseError(database, absl::StrCat("open ", path));
  absl::MutexLock lock(&journal->mutex_);
  sqlite3_extended_result_codes(database, 1);
  for (const char* pragma :
       {"PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "PRAGMA foreign_keys=ON", "PRAGMA busy_timeout=5000"}) {
    BOSS_RETURN_IF_ERROR(Execute(database, pragma));
  }
  BOSS_RETURN_IF_ERROR(journal->Migrate());
  return journal;
}

SqliteJobJournal::~SqliteJobJournal() {
  absl::MutexLock lock(&mutex_);
  sqlite3_close(database_);
}

absl::Status SqliteJobJournal::Migrate() {
  Transaction transaction(database_);
  BOSS_RETURN_IF_ERROR(transaction.Begin());
  BOSS_RETURN_IF_ERROR(Execute(database_, "CREATE TABLE IF NOT EXISTS schema_version(version INTEGER NOT NULL)"));
  int64_t version = 0;
  {
    Statement query(database_, "SELECT version FROM schema_version");
    BOSS_ASSIGN_OR_RETURN(const bool found, query.Step());
    if (found) version = query.IntColumn(0);
  }
  const auto latest = static_cast<int64_t>(kMigrations.size());
  if (version > latest) {
    return absl::FailedPreconditionError(
        absl::StrFormat("job journal: schema version %d, this program knows versions up to %d", version, latest));
  }
  if (version == latest) return absl::OkStatus();
  for (; version < latest; ++version) BOSS_RETURN_IF_ERROR(Execute(database_, kMigrations[version]));
  BOSS_RETURN_IF_ERROR(Execute(database_, "DELETE FROM schema_version"));
  BOSS_RETURN_IF_ERROR(Statement(database_, "INSERT INTO schema_version(version) VALUES(?)").Int(version).Run());
  return transaction.Commit();
}

absl::Status SqliteJobJournal::WriteEvents(absl::string_view id, absl::Span<const EventRecord> events) {
  Statement insert(
      database_,
      "INSERT INTO events(job, sequence, document, attachment) SELECT ordinal, ?, ?, ? FROM jobs WHERE id = ?");
  for (const EventRecord& event : events) {
    BOSS_RETURN_IF_ERROR(insert.Int(event.sequence).Text(event.document).Blob(event.attachment).Text(id).Run());
    if (sqlite3_changes(database_) == 0) return UnknownJob(id);
    insert.Reset();
  }
  return absl::OkStatus();
}

absl::StatusOr<JobJournal::InsertOutcome> SqliteJobJournal::Insert(const JobRecord& record,
                                                                   absl::Span<const EventRecord> events) {
  absl::MutexLock lock(&mutex_);
  Transaction transaction(database_);
  BOSS_RETURN_IF_ERROR(transaction.Begin());
  if (!record.request_id.empty()) {
    Statement query(database_, "SELECT id, request_hash FROM jobs WHERE request_id = ?");
    BOSS_ASSIGN_OR_RETURN(const bool found, query.Text(record.request_id).Step());
    if (found) {
      if (query.Column(1) == record.request_hash) return InsertOutcome{query.Column(0), false};
      return absl::AlreadyExistsError(absl::StrCat("request_id \"", record.request_id, "\" belongs to job ",
                                                   query.Column(0), ", which was submitted with another request"));
    }
  }
  BOSS_RETURN_IF_ERROR(
      Statement(database_, "INSERT INTO jobs(id, request_id, request_hash, document) VALUES(?, ?, ?, ?)")
          .Text(record.id)
          .TextOrNull(record.request_id)
          .Text(record.request_hash)
          .Text(record.document)
          .Run());
  BOSS_RETURN_IF_ERROR(WriteEvents(record.id, events));
  BOSS_RETURN_IF_ERROR(transaction.Commit());
  return InsertOutcome{record.id, true};
}

absl::Status SqliteJobJournal::Update(absl::string_view id, absl::string_view document,
                                      absl::Span<const EventRecord> events) {
  absl::MutexLock lock(&mutex_);
  Transaction transaction(database_);
  BOSS_RETURN_IF_ERROR(transaction.Begin());
  BOSS_RETURN_IF_ERROR(Statement(database_, "UPDATE jobs SET document = ? WHERE id = ?").Text(document).Text(id).Run());
  if (sqlite3_changes(database_) == 0) return UnknownJob(id);
  BOSS_RETURN_IF_ERROR(WriteEvents(id, events));
  return transaction.Commit();
}

absl::StatusOr<std::vector<JobRecord>> SqliteJobJournal::LoadAll() {
  absl::MutexLock lock(&mutex_);
  Statement query(
      database_,
      "SELECT id, request_id, request_hash, document, (SELECT MAX(sequence) FROM events WHERE job = ordinal) "
      "FROM jobs ORDER BY ordinal");
  std::vector<JobRecord> records;
  while (true) {
    BOSS_ASSIGN_OR_RETURN(const bool found, query.Step());
    if (!found) return records;
    records.push_back({query.Column(0), query.Column(1), query.Column(2), query.Column(3), query.IntColumn(4)});
  }
}

absl::StatusOr<std::vector<EventRecord>> SqliteJobJournal::Events(absl::string_view id, int64_t from_sequence,
                                                                  int64_t limit) {
  absl::MutexLock lock(&mutex_);
  Statement query(database_,
                  "SELECT sequence, events.document, attachment FROM events JOIN jobs ON job = ordinal "
                  "WHERE id = ? AND sequence >= ? ORDER BY sequence LIMIT ?");
  query.Text(id).Int(from_sequence).Int(limit);
  std::vector<EventRecord> events;
  while (true) {
    BOSS_ASSIGN_OR_RETURN(const bool found, query.Step());
    if (!found) return events;
    events.push_back({query.IntColumn(0), query.Column(1), query.Column(2)});
  }
}

absl::Status SqliteJobJournal::Delete(absl::string_view id) {
  absl::MutexLock lock(&mutex_);
  Transaction transaction(database_);
  BOSS_RETURN_IF_ERROR(transaction.Begin());
  BOSS_RETURN_IF_ERROR(Statement(database_, "DELETE FROM jobs WHERE id = ?").Text(id).Run());
  if (sqlite3_changes(database_) == 0) return UnknownJob(id);
  return transaction.Commit();
}

}  // namespace boss::server
