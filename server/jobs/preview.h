// Grids of sample pictures.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "core/flow/time_grid.h"
#include "core/flow/velocity_model.h"
#include "server/jobs/job_context.h"
#include "server/jobs/noise_source.h"

namespace boss::server {

// Whether samples of that shape are pictures: [1 or 3, H, W].
bool ArePictures(const std::vector<int64_t>& sample_shape);

// The first `count` samples of `noises`, drawn with Euler's method, in a grid about as wide as it is high. \pre
// ArePictures(model.SampleShape()).
absl::StatusOr<JobPreview> DrawPreview(JobContext& context, const VelocityModel& model, const NoiseSource& noises,
                                       const TimeGrid& time_grid, int64_t count, int64_t train_step);

}  // namespace boss::server
