// A bound on what tensors take of the host's memory, so that work which is too large for the machine fails, rather than
// the kernel ending the process.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace boss::server {

// Bytes that this process may have: those of the machine, or of the control group that it is in (version 1 or 2, e.g.
// of a container) or of one around it, whichever is least. `root` is where /proc and /sys are found. \error UNAVAILABLE
// if the system tells nothing.
absl::StatusOr<int64_t> HostMemoryBytes(const std::string& root = "/");

// From now on a tensor of 4 MiB or more on the CPU is refused where this process would have more than `bytes` allocated
// with it: LibTorch throws c10::OutOfMemoryError, which GuardTorch turns into RESOURCE_EXHAUSTED. Counted is what
// tcmalloc has given out; without it (compute_process) nothing but the tensor itself. The last call holds. Thread-safe.
// \pre bytes > 0.
void LimitHostMemory(int64_t bytes);

// For work that is to be refused before it begins. `what`: takes so many bytes, e.g. "300 pairs". \error
// RESOURCE_EXHAUSTED if they are more than LimitHostMemory allows, even with nothing else allocated. Thread-safe.
absl::Status CheckHostMemory(absl::string_view what, double bytes);

}  // namespace boss::server
