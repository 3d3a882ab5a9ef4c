#include "core/stepsize/trajectory_chunks.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "absl/strings/str_format.h"

namespace boss {
namespace {

constexpr int64_t kChunkValues = int64_t{1} << 19;  // of one float64 copy: 4 MiB

}  // namespace

absl::Status CheckFineGrid(const Trajectory& trajectory, int k_max, const std::vector<double>& times) {
  if (trajectory.time_grid.steps() != k_max) {
    return absl::InvalidArgumentError(
        absl::StrFormat("trajectory: got %d fine intervals, expected k_max = %d", trajectory.time_grid.steps(), k_max));
  }
  if (!times.empty() && absl::MakeConstSpan(times) != trajectory.time_grid.times())
    return absl::InvalidArgumentError("trajectory: got another time grid than that of the first one");
  return absl::OkStatus();
}

void ForEachChunk(const Trajectory& trajectory, absl::FunctionRef<void(const at::Tensor& x, const at::Tensor& v)> use) {
  const int64_t intervals = trajectory.time_grid.steps();
  const at::Tensor states = trajectory.states.reshape({intervals + 1, -1});
  const at::Tensor velocities = trajectory.velocities.reshape({intervals, -1});
  const int64_t chunk = std::max<int64_t>(1, kChunkValues / (intervals + 1));
  for (int64_t begin = 0; begin < states.size(1); begin += chunk) {
    const int64_t end = std::min(begin + chunk, states.size(1));
    const at::Tensor x = states.slice(1, begin, end).to(at::kDouble);
    use(x - x[intervals / 2], velocities.slice(1, begin, end).to(at::kDouble));
  }
}

}  // namespace boss
