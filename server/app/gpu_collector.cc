#include "server/app/gpu_collector.h"

#include <memory>
#include <string>
#include <utility>

#include "server/device/gpu_metrics.h"
#include "server/device/nvml.h"
#include "server/log/log.h"

namespace boss::server {

void CollectGpus(const DeviceChoice& choice, Metrics& metrics) {
  if (choice.kind == DeviceChoice::Kind::kCpu) return;
  absl::StatusOr<std::unique_ptr<Nvml>> opened = Nvml::Open();
  if (!opened.ok()) {
    LogDebug("no metrics of cards", {{"reason", opened.status().message()}});
    return;
  }
  metrics.AddCollector([nvml = std::shared_ptr<Nvml>(*std::move(opened))] { return GpuFamilies(nvml->Read()); });
}

}  // namespace boss::server
