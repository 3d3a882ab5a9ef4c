// Noises and conditions of a job, by index, so that a run that goes on draws what it would have drawn.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "core/flow/velocity_model.h"

namespace boss::server {

// What noises are for. The ranges of one seed never overlap.
enum class NoiseUse : int64_t { kSearch = 0, kPairs = 1, kEvaluation = 2, kPreview = 3 };

struct NoiseBatch {
  at::Tensor noise;     // [count, ...] on the CPU
  Condition condition;  // labels: index mod num_classes
};

// Immutable.
class NoiseSource {
 public:
  // \error FAILED_PRECONDITION if guidance_scale is not 1 and there are no labels to guide with.
  static absl::StatusOr<NoiseSource> Create(const VelocityModel& model, NoiseUse use, uint64_t seed,
                                            double guidance_scale, bool unconditional);

  NoiseBatch Draw(int64_t first, int64_t count) const;
  // Velocity evaluations per sample of one solver step of Euler's.
  int64_t evaluations_per_step() const { return evaluations_per_step_; }

 private:
  NoiseSource() = default;

  std::vector<int64_t> shape_;
  int64_t first_index_ = 0;
  uint64_t seed_ = 0;
  double guidance_scale_ = 1;
  int64_t num_classes_ = 0;  // 0: no labels
  int64_t evaluations_per_step_ = 1;
};

// Samples whose recorded fine trajectories stay within 256 MiB, 1 to 64; `requested` if it is not 0 and they stay
// within 2 GiB, otherwise as many as do. One at least: if a single trajectory takes more, recording it takes as much.
int64_t TrajectoryBatchSize(int64_t requested, const std::vector<int64_t>& sample_shape, int k_max);

}  // namespace boss::server
