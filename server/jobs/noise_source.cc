#include "server/jobs/noise_source.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "absl/strings/str_format.h"
#include "core/flow/noise.h"

namespace boss::server {
namespace {

constexpr int64_t kRangeSize = int64_t{1} << 32;
constexpr int64_t kMaxTrajectoryBytes = int64_t{256} << 20;
constexpr int64_t kMaxRequestedTrajectoryBytes = int64_t{2} << 30;
constexpr int64_t kMaxBatch = 64;

}  // namespace

absl::StatusOr<NoiseSource> NoiseSource::Create(const VelocityModel& model, NoiseUse use, uint64_t seed,
                                                double guidance_scale, bool unconditional) {
  NoiseSource source;
  source.shape_ = model.SampleShape();
  source.first_index_ = static_cast<int64_t>(use) * kRangeSize;
  source.seed_ = seed;
  source.guidance_scale_ = guidance_scale;
  source.num_classes_ = unconditional ? 0 : model.NumClasses();
  if (guidance_scale != 1.0 && source.num_classes_ == 0) {
    return absl::FailedPreconditionError(
        absl::StrFormat("guidance_scale: got %g, but there are no labels to guide with; expected 1", guidance_scale));
  }
  source.evaluations_per_step_ = guidance_scale != 1.0 ? 2 : 1;
  return source;
}

NoiseBatch NoiseSource::Draw(int64_t first, int64_t count) const {
  NoiseBatch batch;
  batch.noise = SampleNoise(seed_, first_index_ + first, count, shape_);
  batch.condition.guidance_scale = guidance_scale_;
  if (num_classes_ > 0)
    batch.condition.class_labels = at::arange(first, first + count, at::kLong).remainder(num_classes_);
  return batch;
}

int64_t TrajectoryBatchSize(int64_t requested, const std::vector<int64_t>& sample_shape, int k_max) {
  const int64_t elements = std::accumulate(sample_shape.begin(), sample_shape.end(), int64_t{1}, std::multiplies<>());
  const int64_t bytes = std::max<int64_t>(elements * (2 * int64_t{k_max} + 1) * static_cast<int64_t>(sizeof(float)), 1);
  if (requested > 0) return std::clamp<int64_t>(kMaxRequestedTrajectoryBytes / bytes, 1, requested);
  return std::clamp<int64_t>(kMaxTrajectoryBytes / bytes, 1, kMaxBatch);
}

}  // namespace boss::server
