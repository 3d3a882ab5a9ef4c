// Pairs that are drawn while the student trains, and never stored.
#pragma once

#include <cstdint>

#include "core/finetune/objectives.h"
#include "server/jobs/job_context.h"
#include "server/jobs/pair_store.h"

namespace boss::server {

// Training goes through blocks of noises, one after the other: as many train steps on the pairs of one block as use
// each pair once on average. Which pairs a train step sees depends on the step alone, so a run that goes on sees those
// that it would have seen.
class PairBlocks {
 public:
  // Blocks of `noises_per_block` noises, from noise `first` on; `pairs_per_step`: that one train step uses. Keeps
  // references to context and source's models.
  PairBlocks(JobContext& context, PairSource source, int64_t first, int64_t noises_per_block, int64_t pairs_per_step);

  // Train steps of one block.
  int64_t steps_per_block() const { return steps_per_block_; }
  // Gives the objective the pairs of that train step, if it has others. For TrainingHooks::prepare.
  absl::Status Prepare(int64_t train_step, PairObjective& objective);

 private:
  JobContext& context_;
  const PairSource source_;
  const int64_t first_;
  const int64_t noises_per_block_;
  const int64_t steps_per_block_;
  int64_t block_ = -1;  // that the objective has
};

}  // namespace boss::server
