// The devices that the configuration asks for, as parts of a server.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/clock.h"
#include "server/app/config.h"
#include "server/device/devices.h"
#include "server/engine/device_pool.h"
#include "server/metrics/metrics.h"
#include "server/rpc/convert_capabilities.h"
#include "server/store/model_store.h"

namespace boss::server {

// Finds and opens them, bounds the memory of tensors on the host, and sets how CUDA computes. To be called before
// anything else of LibTorch. \error FAILED_PRECONDITION if they are not there; the message says what was looked for.
absl::StatusOr<Devices> OpenConfiguredDevices(const ServerConfig& config);

// "cpu", "cuda:0,cuda:1".
std::string DeviceNames(const Devices& devices);

// Asks the devices what they are, and logs it. \error what LibTorch reports.
absl::StatusOr<std::vector<DeviceDescription>> DescribeDevices(const Devices& devices, Precision precision);

// A worker, a registry and an engine a device. `cpu_threads`: of LibTorch inside one operator on the CPU. What is
// passed as a reference outlives the pool. \error what LibTorch reports if a device cannot be used.
absl::StatusOr<std::unique_ptr<DevicePool>> StartDevices(const ServerConfig& config, const Devices& devices,
                                                         int cpu_threads, const ModelStore& store,
                                                         const Metrics& metrics, const Clock& clock);

// boss_device_busy_seconds_total, boss_device_units_total, boss_models and boss_loaded_model_bytes, by device.
std::vector<CollectedFamily> CollectDevices(const DevicePool& pool);

}  // namespace boss::server
