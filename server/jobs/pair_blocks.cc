#include "server/jobs/pair_blocks.h"

#include <algorithm>
#include <utility>

#include "core/base/status_macros.h"

namespace boss::server {

PairBlocks::PairBlocks(JobContext& context, PairSource source, int64_t first, int64_t noises_per_block,
                       int64_t pairs_per_step)
    : context_(context),
      source_(std::move(source)),
      first_(first),
      noises_per_block_(noises_per_block),
      steps_per_block_(std::max<int64_t>(1, noises_per_block * source_.pairs_per_noise() / pairs_per_step)) {}

absl::Status PairBlocks::Prepare(int64_t train_step, PairObjective& objective) {
  const int64_t block = train_step / steps_per_block_;
  if (block == block_) return absl::OkStatus();
  BOSS_ASSIGN_OR_RETURN(SegmentPairs pairs, DrawPairs(context_, source_, first_ + block * noises_per_block_,
                                                      noises_per_block_, /*units_per_noise=*/0));
  objective.SetPairs(std::move(pairs));
  block_ = block;
  return absl::OkStatus();
}

}  // namespace boss::server
