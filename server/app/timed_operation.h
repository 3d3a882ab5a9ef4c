// How long an operation takes and whether it fails, as metrics.
#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "core/base/clock.h"
#include "server/metrics/metrics.h"

namespace boss::server {

inline const absl::Status& StatusOf(const absl::Status& status) { return status; }
template <typename T>
const absl::Status& StatusOf(const absl::StatusOr<T>& result) {
  return result.status();
}

// Runs `operation` and returns its Status or StatusOr. What is not there, or is there already, is no error.
template <typename Operation>
auto Timed(const OperationMetrics& metrics, const Clock& clock, std::string_view name, const Operation& operation) {
  const absl::Time start = clock.Now();
  auto result = operation();
  metrics.seconds.With({name}).Observe(absl::ToDoubleSeconds(clock.Now() - start));
  const absl::Status& status = StatusOf(result);
  const bool is_answer = status.ok() || absl::IsNotFound(status) || absl::IsAlreadyExists(status);
  // From 0, so that the first one is seen as a step.
  metrics.errors.With({name}).Add(is_answer ? 0 : 1);
  return result;
}

}  // namespace boss::server
