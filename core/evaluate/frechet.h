// The Frechet distance between two sets of features.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "absl/status/statusor.h"

namespace boss {

// Running mean and covariance in float64. Not thread-safe.
class FeatureStatistics {
 public:
  // features: [B, D]. \error INVALID_ARGUMENT if D changes or a feature is not finite.
  absl::Status Add(const at::Tensor& features);
  int64_t count() const { return count_; }
  at::Tensor Mean() const;        // [D] float64. \pre count() >= 1
  at::Tensor Covariance() const;  // [D, D] float64, divided by count - 1. \pre count() >= 2

 private:
  int64_t count_ = 0;
  at::Tensor sum_, outer_sum_;
};

// || m_a - m_b ||^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) (Heusel et al., NeurIPS 2017). It is FID when the features are Inception's.
// \error FAILED_PRECONDITION if either side has fewer than two samples; INVALID_ARGUMENT if the dimensions differ.
absl::StatusOr<double> FrechetDistance(const FeatureStatistics& a, const FeatureStatistics& b);

}  // namespace boss
