// The one place where LibTorch's exceptions become absl::Status.
#pragma once

#include <exception>
#include <string_view>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace boss {

// Maps an exception caught around LibTorch calls to a status: out of memory (CUDA or host) is RESOURCE_EXHAUSTED, an invalid argument to an
// operator INVALID_ARGUMENT, anything else INTERNAL. `operation` leads the message.
absl::Status TorchExceptionToStatus(std::string_view operation, std::exception_ptr exception);

// Runs `function` and returns its result; exceptions become a status as above. `function` returns absl::Status, absl::StatusOr<T>,
// or a plain T (then the result is absl::StatusOr<T>).
template <typename Function>
auto GuardTorch(std::string_view operation, Function&& function) {
  using Result = std::invoke_result_t<Function>;
  using Guarded = std::conditional_t<std::is_constructible_v<Result, absl::Status>, Result, absl::StatusOr<Result>>;
  try {
    return Guarded(std::forward<Function>(function)());
  } catch (...) {
    return Guarded(TorchExceptionToStatus(operation, std::current_exception()));
  }
}

}  // namespace boss
