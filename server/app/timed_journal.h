// A job journal that says how long its operations take and how many fail.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/base/clock.h"
#include "server/metrics/metrics.h"
#include "server/store/job_journal.h"

namespace boss::server {

// Hands everything on to another journal. Operations: insert, update, load, events, delete. An unknown job, or a known
// request_id, is an answer and no error. Thread-safe.
class TimedJournal final : public JobJournal {
 public:
  // `clock` outlives the journal.
  TimedJournal(std::unique_ptr<JobJournal> journal, OperationMetrics metrics, const Clock& clock)
      : journal_(std::move(journal)), metrics_(std::move(metrics)), clock_(clock) {}

  absl::StatusOr<InsertOutcome> Insert(const JobRecord& record, absl::Span<const EventRecord> events) override;
  absl::Status Update(absl::string_view id, absl::string_view document, absl::Span<const EventRecord> events) override;
  absl::StatusOr<std::vector<JobRecord>> LoadAll() override;
  absl::StatusOr<std::vector<EventRecord>> Events(absl::string_view id, int64_t from_sequence, int64_t limit) override;
  absl::Status Delete(absl::string_view id) override;

 private:
  const std::unique_ptr<JobJournal> journal_;
  const OperationMetrics metrics_;
  const Clock& clock_;
};

}  // namespace boss::server
