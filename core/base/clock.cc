#include "core/base/clock.h"

#include "absl/time/clock.h"

namespace boss {

absl::Time RealClock::Now() const { return absl::Now(); }

}  // namespace boss
