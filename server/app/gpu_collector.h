// The machine's cards as part of a server's metrics.
#pragma once

#include "server/device/devices.h"
#include "server/metrics/metrics.h"

namespace boss::server {

// Has `metrics` read the cards at every scrape (server/device/gpu_metrics.h): all that NVIDIA's driver shows to this
// process, whether the server computes on them or not. Does nothing where there is no driver, and with DeviceChoice::
// Kind::kCpu, which leaves cards alone.
void CollectGpus(const DeviceChoice& choice, Metrics& metrics);

}  // namespace boss::server
