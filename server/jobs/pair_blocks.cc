#include "server/jobs/pair_blocks.h"

#include <algorithm>
#include <utility>

#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"

namespace boss::server {
namespace {

// How often a job that waits for pairs looks whether it shall stop.
constexpr absl::Duration kStopPeriod = absl::Milliseconds(50);

// The device, until the drawing shall stop. JobContext::Run is for the runner's thread alone.
class DrawingExecutor final : public StepExecutor {
 public:
  DrawingExecutor(JobContext& context, const std::atomic<bool>& stop) : context_(context), stop_(stop) {}
  absl::Status Run(absl::FunctionRef<absl::Status()> step) override {
    return stop_ ? absl::CancelledError("the pairs are not needed") : context_.RunAlways(step);
  }

 private:
  JobContext& context_;
  const std::atomic<bool>& stop_;
};

}  // namespace

PairBlocks::PairBlocks(JobContext& context, PairSource source, Options options)
    : context_(context),
      source_(std::move(source)),
      options_(options),
      steps_per_block_(
          std::max<int64_t>(1, options.noises_per_block * source_.pairs_per_noise() / options.pairs_per_step)) {}

PairBlocks::~PairBlocks() { Stop(); }

void PairBlocks::Start(int64_t block) {
  drawing_ = std::make_unique<Drawing>();
  drawing_->block = block;
  drawing_->thread = std::thread([this, &drawing = *drawing_] {
    DrawingExecutor executor(context_, drawing.stop);
    drawing.pairs = GuardTorch("drawing pairs", [&] {
      return DrawPairs(source_, options_.first + drawing.block * options_.noises_per_block, options_.noises_per_block,
                       executor);
    });
    drawing.done.Notify();
  });
}

void PairBlocks::Stop() {
  if (drawing_ == nullptr) return;
  drawing_->stop = true;
  drawing_->thread.join();
  drawing_.reset();
}

absl::StatusOr<SegmentPairs> PairBlocks::Finish() {
  while (!drawing_->done.WaitForNotificationWithTimeout(kStopPeriod)) BOSS_RETURN_IF_ERROR(context_.CheckStop());
  drawing_->thread.join();
  return std::exchange(drawing_, nullptr)->pairs;
}

absl::Status PairBlocks::Prepare(int64_t train_step, PairObjective& objective) {
  const int64_t block = train_step / steps_per_block_;
  if (block == block_) return absl::OkStatus();
  if (drawing_ != nullptr && drawing_->block != block) Stop();
  if (drawing_ == nullptr) Start(block);
  BOSS_ASSIGN_OR_RETURN(SegmentPairs pairs, Finish());
  BOSS_RETURN_IF_ERROR(context_.Advance(
      0, options_.noises_per_block * source_.fine_grid.steps() * source_.noises.evaluations_per_step()));
  objective.SetPairs(std::move(pairs));
  block_ = block;
  if ((block + 1) * steps_per_block_ < options_.train_steps) Start(block + 1);
  return absl::OkStatus();
}

}  // namespace boss::server
