#include "server/jobs/preview.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"
#include "core/io/image_dataset.h"
#include "core/io/png.h"
#include "core/solver/solver.h"

namespace boss::server {
namespace {

constexpr int64_t kPreviewBatch = 64;

// uint8 [N, C, H, W] -> one picture; places without a sample stay black.
Image Grid(const at::Tensor& samples, int rows, int columns) {
  const int64_t channels = samples.size(1), height = samples.size(2), width = samples.size(3);
  at::Tensor canvas = at::zeros({rows * height, columns * width, channels}, at::kByte);
  for (int64_t i = 0; i < samples.size(0); ++i) {
    const int64_t top = i / columns * height, left = i % columns * width;
    canvas.slice(0, top, top + height).slice(1, left, left + width).copy_(samples[i].permute({1, 2, 0}));
  }
  Image image{static_cast<int>(columns * width), static_cast<int>(rows * height), static_cast<int>(channels), {}};
  image.pixels.assign(canvas.const_data_ptr<uint8_t>(), canvas.const_data_ptr<uint8_t>() + canvas.numel());
  return image;
}

}  // namespace

bool ArePictures(const std::vector<int64_t>& sample_shape) {
  return sample_shape.size() == 3 && (sample_shape[0] == 1 || sample_shape[0] == 3);
}

absl::StatusOr<JobPreview> DrawPreview(JobContext& context, const VelocityModel& model, const NoiseSource& noises,
                                       const TimeGrid& time_grid, int64_t count, int64_t train_step) {
  const NoiseBatch batch = noises.Draw(0, count);
  SolverOptions options;
  options.time_grid = time_grid;
  BOSS_ASSIGN_OR_RETURN(const at::Tensor samples,
                        Solve(model, batch.noise, batch.condition, options, kPreviewBatch, context));
  JobPreview preview;
  preview.train_step = train_step;
  preview.columns = static_cast<int>(std::ceil(std::sqrt(static_cast<double>(count))));
  preview.rows = static_cast<int>((count + preview.columns - 1) / preview.columns);
  BOSS_ASSIGN_OR_RETURN(const Image image,
                        GuardTorch("preview", [&] { return Grid(ToUint8(samples), preview.rows, preview.columns); }));
  BOSS_ASSIGN_OR_RETURN(preview.png, EncodePng(image));
  return preview;
}

}  // namespace boss::server
