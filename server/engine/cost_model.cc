#include "server/engine/cost_model.h"

#include <algorithm>
#include <bit>

namespace boss::server {
namespace {

constexpr double kFixedRows = 1;
// Of a new observation: follows a change within some ten evaluations, and forgets a disturbance as fast.
constexpr double kWeight = 0.1;

double Relative(double rows) { return rows + kFixedRows; }

}  // namespace

void CostModel::Observe(int64_t rows, double seconds) {
  const auto [found, is_new] = classes_.try_emplace(std::bit_width(static_cast<uint64_t>(rows)));
  Mean& mean = found->second;
  const double weight = is_new ? 1 : kWeight;
  mean.rows += weight * (static_cast<double>(rows) - mean.rows);
  mean.seconds += weight * (seconds - mean.seconds);
}

double CostModel::Seconds(int64_t rows) const {
  const auto wanted = static_cast<double>(rows);
  if (classes_.empty()) return Relative(wanted);
  const Mean* below = nullptr;
  double least = 0;  // a larger batch is never taken to be cheaper, whatever noise says
  for (const auto& [unused, mean] : classes_) {
    if (mean.rows > wanted) {
      const double seconds = std::max(mean.seconds, least);
      if (below == nullptr) return seconds * Relative(wanted) / Relative(mean.rows);
      return least + (seconds - least) * (wanted - below->rows) / (mean.rows - below->rows);
    }
    least = std::max(least, mean.seconds);
    below = &mean;
  }
  return least * Relative(wanted) / Relative(below->rows);
}

}  // namespace boss::server
