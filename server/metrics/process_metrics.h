// What the kernel says of this process.
#pragma once

#include <vector>

#include "server/metrics/metrics.h"

namespace boss::server {

// process_cpu_seconds_total, process_resident_memory_bytes, process_open_fds, process_max_fds,
// process_start_time_seconds and process_threads, by the names that Prometheus' client libraries share. What /proc does
// not tell is left out. Thread-safe.
std::vector<CollectedFamily> CollectProcess();

}  // namespace boss::server
