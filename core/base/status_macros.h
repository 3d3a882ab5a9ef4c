// Early return on a failed absl::Status.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define BOSS_RETURN_IF_ERROR(expression)                    \
  do {                                                      \
    ::absl::Status boss_status = (expression);              \
    if (!boss_status.ok()) return boss_status;              \
  } while (false)

#define BOSS_STATUS_CONCAT_INNER(a, b) a##b
#define BOSS_STATUS_CONCAT(a, b) BOSS_STATUS_CONCAT_INNER(a, b)

#define BOSS_ASSIGN_OR_RETURN(declaration, expression) \
  BOSS_ASSIGN_OR_RETURN_INNER(BOSS_STATUS_CONCAT(boss_or_, __LINE__), declaration, expression)

#define BOSS_ASSIGN_OR_RETURN_INNER(result, declaration, expression) \
  auto result = (expression);                                        \
  if (!result.ok()) return std::move(result).status();               \
  declaration = *std::move(result)
