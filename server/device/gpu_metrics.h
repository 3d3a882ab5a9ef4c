// The machine's cards in /metrics.
#pragma once

#include <vector>

#include "server/device/nvml.h"
#include "server/metrics/metrics.h"

namespace boss::server {

// The families boss_gpu_* (docs/metrics.md), with the labels `uuid` and `index`. A value that a card does not report is
// no series of it, and a family without series is not there.
std::vector<CollectedFamily> GpuFamilies(const std::vector<GpuReading>& readings);

}  // namespace boss::server
