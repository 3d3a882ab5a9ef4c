// Pairs that are drawn while the student trains, and never stored.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/notification.h"
#include "core/finetune/objectives.h"
#include "server/jobs/job_context.h"
#include "server/jobs/pair_store.h"

namespace boss::server {

// Training goes through blocks of noises, one after the other: as many train steps on the pairs of one block as use
// each pair once on average. Which pairs a train step sees depends on the step alone, so a run that goes on sees those
// that it would have seen.
//
// While the student trains on one block, a thread draws the next one: noises, copies and slices are made beside the
// train steps, and the teacher's evaluations take turns with them on the device. Two blocks are in memory at a time.
//
// For the runner's thread.
class PairBlocks {
 public:
  struct Options {
    int64_t first = 0;             // noise of the first block
    int64_t noises_per_block = 0;  // at least one
    int64_t pairs_per_step = 0;    // that one train step uses
    int64_t train_steps = 0;       // of the whole training: nothing is drawn beyond
  };
  // Keeps references to context and source's models, which outlive it.
  PairBlocks(JobContext& context, PairSource source, Options options);
  // Stops drawing within one evaluation.
  ~PairBlocks();

  // Train steps of one block.
  int64_t steps_per_block() const { return steps_per_block_; }
  // Gives the objective the pairs of that train step, if it has others. For TrainingHooks::prepare. \error what drawing
  // reports; what JobContext::CheckStop reports while it waits.
  absl::Status Prepare(int64_t train_step, PairObjective& objective);

 private:
  // A block that is being drawn.
  struct Drawing {
    int64_t block = 0;
    std::atomic<bool> stop = false;
    absl::Notification done;
    absl::StatusOr<SegmentPairs> pairs;  // once `done`
    std::thread thread;
  };

  void Start(int64_t block);
  void Stop();
  absl::StatusOr<SegmentPairs> Finish();

  JobContext& context_;
  const PairSource source_;
  const Options options_;
  const int64_t steps_per_block_;
  int64_t block_ = -1;                // that the objective has
  std::unique_ptr<Drawing> drawing_;  // null: none
};

}  // namespace boss::server
