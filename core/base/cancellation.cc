#include "core/base/cancellation.h"

#include <utility>

namespace boss {

void CancellationToken::Cancel(absl::Status reason) {
  absl::MutexLock lock(&mutex_);
  if (reason_.ok()) reason_ = std::move(reason);
}

absl::Status CancellationToken::Check() const {
  absl::MutexLock lock(&mutex_);
  return reason_;
}

}  // namespace boss
