#include "core/evaluate/frechet.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/torch_guard.h"

namespace boss {

absl::Status FeatureStatistics::Add(const at::Tensor& features) {
  if (features.dim() != 2 || (sum_.defined() && features.size(1) != sum_.size(0))) {
    return absl::InvalidArgumentError(absl::StrCat("features: got shape [", absl::StrJoin(features.sizes(), ", "),
                                                   "], expected [B, ",
                                                   sum_.defined() ? absl::StrCat(sum_.size(0)) : "D", "]"));
  }
  return GuardTorch("add features", [&]() -> absl::Status {
    const at::Tensor values = features.detach().to(at::kCPU, at::kDouble);
    if (!at::isfinite(values).all().item<bool>())
      return absl::InvalidArgumentError("features: got NaN or infinity, expected finite values");
    const at::Tensor sum = values.sum(0);
    const at::Tensor outer_sum = values.t().mm(values);
    sum_ = sum_.defined() ? sum_ + sum : sum;
    outer_sum_ = outer_sum_.defined() ? outer_sum_ + outer_sum : outer_sum;
    count_ += values.size(0);
    return absl::OkStatus();
  });
}

at::Tensor FeatureStatistics::Mean() const { return sum_ / static_cast<double>(count_); }

at::Tensor FeatureStatistics::Covariance() const {
  return (outer_sum_ - at::outer(sum_, sum_) / static_cast<double>(count_)) / static_cast<double>(count_ - 1);
}

absl::StatusOr<double> FrechetDistance(const FeatureStatistics& a, const FeatureStatistics& b) {
  if (a.count() < 2 || b.count() < 2) {
    return absl::FailedPreconditionError(absl::StrCat("Frechet distance: got ", a.count(), " and ", b.count(),
                                                      " samples, expected at least 2 on either side"));
  }
  return GuardTorch("Frechet distance", [&]() -> absl::StatusOr<double> {
    const at::Tensor mean_a = a.Mean(), mean_b = b.Mean();
    if (mean_a.size(0) != mean_b.size(0)) {
      return absl::InvalidArgumentError(absl::StrCat("Frechet distance: got ", mean_a.size(0), " and ", mean_b.size(0),
                                                     " features, expected the same number"));
    }
    const at::Tensor covariance_a = a.Covariance(), covariance_b = b.Covariance();
    // C_a C_b has the eigenvalues of the symmetric C_a^(1/2) C_b C_a^(1/2), so no root of an unsymmetric matrix is
    // needed. Rounding leaves eigenvalues of singular covariances slightly negative.
    const auto [eigenvalues, eigenvectors] = at::linalg_eigh(covariance_a);
    const at::Tensor root_a = at::mm(eigenvectors * eigenvalues.clamp_min(0).sqrt(), eigenvectors.t());
    const at::Tensor product = root_a.mm(covariance_b).mm(root_a);
    const at::Tensor product_eigenvalues = at::linalg_eigvalsh((product + product.t()) / 2);
    const double trace_of_root = product_eigenvalues.clamp_min(0).sqrt().sum().item<double>();
    const double distance = (mean_a - mean_b).square().sum().item<double>() + covariance_a.trace().item<double>() +
                            covariance_b.trace().item<double>() - 2 * trace_of_root;
    return std::max(distance, 0.0);
  });
}

}  // namespace boss
