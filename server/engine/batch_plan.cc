#include "server/engine/batch_plan.h"

#include <algorithm>
#include <numeric>
#include <tuple>

namespace boss::server {
namespace {

// The largest batch that costs at most `seconds`, between `least` and `most` rows.
int64_t RowsWithin(double seconds, int64_t least, int64_t most, const CostModel& cost) {
  while (least < most) {
    const int64_t middle = least + (most - least + 1) / 2;
    if (cost.Seconds(middle) <= seconds) {
      least = middle;
    } else {
      most = middle - 1;
    }
  }
  return least;
}

}  // namespace

std::vector<int64_t> PlanBatch(absl::Span<const BatchCandidate> candidates, int64_t max_rows, const CostModel& cost) {
  int64_t smallest = max_rows;
  for (const BatchCandidate& candidate : candidates)
    smallest = std::min(smallest, candidate.lanes * candidate.rows_per_lane);
  const auto sharers = static_cast<double>(candidates.size());
  int64_t free =
      candidates.size() == 1 ? max_rows : RowsWithin(sharers * cost.Seconds(smallest), smallest, max_rows, cost);

  std::vector<size_t> order(candidates.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return std::tuple(-candidates[a].priority, candidates[a].last_turn, a) <
           std::tuple(-candidates[b].priority, candidates[b].last_turn, b);
  });

  std::vector<int64_t> planned(candidates.size(), 0);
  bool any = false;
  for (size_t begin = 0, end = 0; begin < order.size(); begin = end) {
    while (end < order.size() && candidates[order[end]].priority == candidates[order[begin]].priority) ++end;
    for (bool progress = true; progress;) {
      progress = false;
      for (size_t i = begin; i < end; ++i) {
        const BatchCandidate& candidate = candidates[order[i]];
        // Who goes first gets a lane even where the bound is tighter than that.
        const bool fits = candidate.rows_per_lane <= free || !any;
        if (planned[order[i]] == candidate.lanes || !fits) continue;
        ++planned[order[i]];
        free -= candidate.rows_per_lane;
        progress = any = true;
      }
    }
  }
  return planned;
}

}  // namespace boss::server
