// The embedded model straightened for a number of steps, as a DistillJob does it.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "tests/bench/multistep_study.h"

namespace boss {

// 768 noises, a tenth of them held out, 800 train steps of 32 pairs, learning rate 2e-4 after 100 train steps, which is
// how the README's table was made. Thread-safe: each K is trained once, by who asks first.
class Straightening {
 public:
  static constexpr int kMostSteps = Study::kMostSteps;

  // To the K-th of `knots`, for K = 1 .. kMostSteps, which `name` tells from others in the names of files. Keeps a
  // reference to the study.
  Straightening(const Study& study, std::string name, std::vector<std::vector<int>> knots)
      : study_(study), name_(std::move(name)), knots_(std::move(knots)) {}

  const std::vector<int>& knots(int steps) const { return knots_[static_cast<size_t>(steps) - 1]; }

  // The averaged weights, prepared for inference: trained, or read from beside the results.
  absl::StatusOr<const VelocityModel*> Model(int steps);
  // [steps + 1, noises, ...]: the teacher's states, at the schedule's times, of the noises that were held out.
  absl::StatusOr<at::Tensor> HeldOutStates(int steps);
  Condition HeldOutCondition() const;

 private:
  // The points that any of the knots visit, ascending.
  std::vector<int> AllKnots() const;
  // [points, noises, ...]: the teacher's states, at all of them, of the noises of the pairs.
  absl::StatusOr<at::Tensor> States();
  absl::StatusOr<at::Tensor> StatesOf(int steps);
  // Goes on behind an earlier run whose training state lies beside `path`; an empty path keeps none.
  absl::StatusOr<std::unique_ptr<VelocityModel>> Train(int steps, const std::string& path);

  const Study& study_;
  const std::string name_;
  const std::vector<std::vector<int>> knots_;
  std::mutex states_mutex_;
  at::Tensor states_;
  std::array<std::mutex, kMostSteps + 1> mutexes_;
  std::array<std::unique_ptr<VelocityModel>, kMostSteps + 1> models_;
};

}  // namespace boss
