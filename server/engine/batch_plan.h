// Which requests share the next velocity evaluation, and with how many lanes each. Needs nothing of LibTorch.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "server/engine/cost_model.h"

namespace boss::server {

struct BatchCandidate {
  int64_t lanes = 0;          // that could take part, at least one
  int64_t rows_per_lane = 1;  // of the network's batch: 2 with guidance
  int priority = 0;           // higher goes first
  int64_t last_turn = 0;      // of its latest evaluation; the longest ago goes first
};

// Lanes of each candidate in an evaluation of at most `max_rows` rows.
//
// Higher priorities are served first; among equals lanes go round, one each, beginning with whose last turn is longest
// ago. So everybody gets the same number, and what small requests leave goes to the large ones.
//
// With n candidates the batch is no larger than what costs n times the evaluation of the smallest one alone: then
// nobody is slowed down by more than the number of those that share the device. That keeps one sample beside ten
// thousand from waiting for full batches at each of its solver steps.
//
// At least one lane is planned, even if it alone has more than `max_rows`. \pre candidates is not empty.
std::vector<int64_t> PlanBatch(absl::Span<const BatchCandidate> candidates, int64_t max_rows, const CostModel& cost);

}  // namespace boss::server
