// Time as an injected dependency, so that tests need no sleep.
#pragma once

#include "absl/time/time.h"

namespace boss {

// Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual absl::Time Now() const = 0;
};

// The system's clock.
class RealClock final : public Clock {
 public:
  absl::Time Now() const override;
};

}  // namespace boss
