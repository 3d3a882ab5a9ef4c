#include "server/app/timed_journal.h"

#include "server/app/timed_operation.h"

namespace boss::server {

absl::StatusOr<JobJournal::InsertOutcome> TimedJournal::Insert(const JobRecord& record,
                                                               absl::Span<const EventRecord> events) {
  return Timed(metrics_, clock_, "insert", [&] { return journal_->Insert(record, events); });
}

absl::Status TimedJournal::Update(absl::string_view id, absl::string_view document,
                                  absl::Span<const EventRecord> events) {
  return Timed(metrics_, clock_, "update", [&] { return journal_->Update(id, document, events); });
}

absl::StatusOr<std::vector<JobRecord>> TimedJournal::LoadAll() {
  return Timed(metrics_, clock_, "load", [&] { return journal_->LoadAll(); });
}

absl::StatusOr<std::vector<EventRecord>> TimedJournal::Events(absl::string_view id, int64_t from_sequence,
                                                              int64_t limit) {
  return Timed(metrics_, clock_, "events", [&] { return journal_->Events(id, from_sequence, limit); });
}

absl::Status TimedJournal::Delete(absl::string_view id) {
  return Timed(metrics_, clock_, "delete", [&] { return journal_->Delete(id); });
}

}  // namespace boss::server
