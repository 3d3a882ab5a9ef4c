#include "server/store/coefficients_json.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_format.h"

namespace boss::server {

absl::Status CheckCoefficients(const Schedule& schedule) {
  const size_t steps = static_cast<size_t>(schedule.time_grid.steps());
  if (schedule.coefficients.size() != steps) {
    return absl::InvalidArgumentError(absl::StrFormat("schedule.coefficients: got those of %d steps, expected %d",
                                                      schedule.coefficients.size(), steps));
  }
  for (size_t step = 0; step < steps; ++step) {
    const StepCoefficients& coefficients = schedule.coefficients[step];
    const size_t most = std::min<size_t>(step + 1, kMaxMultistepOrder);
    if (coefficients.velocities.empty() || coefficients.velocities.size() > most) {
      return absl::InvalidArgumentError(
          absl::StrFormat("schedule.coefficients: step %d uses %d velocities, expected 1 to %d", step,
                          coefficients.velocities.size(), most));
    }
    const bool are_finite =
        std::isfinite(coefficients.state) && std::all_of(coefficients.velocities.begin(), coefficients.velocities.end(),
                                                         [](double value) { return std::isfinite(value); });
    if (!are_finite) return absl::InvalidArgumentError("schedule.coefficients: expected finite numbers");
  }
  return absl::OkStatus();
}

Json CoefficientsToJson(const std::vector<StepCoefficients>& steps) {
  Json json = Json::array();
  for (const StepCoefficients& step : steps) {
    std::vector<double> values{step.state};
    values.insert(values.end(), step.velocities.begin(), step.velocities.end());
    json.push_back(std::move(values));
  }
  return json;
}

absl::StatusOr<std::vector<StepCoefficients>> CoefficientsFromLists(const std::vector<std::vector<double>>& lists) {
  std::vector<StepCoefficients> steps;
  for (const std::vector<double>& values : lists) {
    if (values.size() < 2)
      return absl::DataLossError("schedule.coefficients: expected those of the state and a velocity at least");
    steps.push_back({values.front(), {values.begin() + 1, values.end()}});
  }
  return steps;
}

}  // namespace boss::server
