#include "server/device/gpu_metrics.h"

#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace boss::server {
namespace {

using Kind = CollectedFamily::Kind;
using Labels = std::vector<std::pair<std::string, std::string>>;

class Family {
 public:
  Family(std::string name, std::string help, Kind kind = Kind::kGauge)
      : family_{.name = std::move(name), .help = std::move(help), .kind = kind} {}

  template <typename Value>
  void Add(Labels labels, const std::optional<Value>& value) {
    if (value) family_.series.push_back({std::move(labels), static_cast<double>(*value)});
  }

  void MoveTo(std::vector<CollectedFamily>& families) {
    if (!family_.series.empty()) families.push_back(std::move(family_));
  }

 private:
  CollectedFamily family_;
};

Labels With(Labels labels, std::string name, std::string_view value) {
  labels.emplace_back(std::move(name), std::string(value));
  return labels;
}

}  // namespace

std::vector<CollectedFamily> GpuFamilies(const std::vector<GpuReading>& readings) {
  Family utilization("boss_gpu_utilization_ratio",
                     "Share of the driver's last sample period in which the card computed, 0 to 1");
  Family used("boss_gpu_memory_used_bytes", "Memory of the card that is in use, by all processes");
  Family total("boss_gpu_memory_total_bytes", "Memory of the card");
  Family power("boss_gpu_power_watts", "Power that the card draws");
  Family energy("boss_gpu_energy_joules_total", "Energy that the card took since its driver was loaded",
                Kind::kCounter);
  Family temperature("boss_gpu_temperature_celsius", "Temperature of the card's chip");
  Family clock("boss_gpu_clock_hertz", "Clock of the multiprocessors (sm), the memory and the graphics part");
  Family throttled("boss_gpu_throttled", "1 while the reason holds the card's clocks down, otherwise 0");
  Family ecc("boss_gpu_ecc_errors_total", "Memory errors that ECC has found since the card's driver was loaded",
             Kind::kCounter);
  Family xid("boss_gpu_xid_errors_total", "XID errors that the driver has reported since the server's start",
             Kind::kCounter);
  Family last_xid("boss_gpu_last_xid", "Number of the last XID error; absent before the first");

  for (const GpuReading& reading : readings) {
    const Labels card = {{"uuid", reading.uuid}, {"index", absl::StrCat(reading.index)}};
    utilization.Add(card, reading.utilization);
    used.Add(card, reading.memory_used_bytes);
    total.Add(card, reading.memory_total_bytes);
    power.Add(card, reading.power_watts);
    energy.Add(card, reading.energy_joules);
    temperature.Add(card, reading.temperature_celsius);
    clock.Add(With(card, "clock", "sm"), reading.sm_clock_hertz);
    clock.Add(With(card, "clock", "memory"), reading.memory_clock_hertz);
    clock.Add(With(card, "clock", "graphics"), reading.graphics_clock_hertz);
    for (const GpuReading::Throttle& throttle : reading.throttles) {
      throttled.Add(With(card, "reason", throttle.reason), std::optional(throttle.active));
    }
    ecc.Add(With(card, "kind", "corrected"), reading.corrected_ecc_errors);
    ecc.Add(With(card, "kind", "uncorrected"), reading.uncorrected_ecc_errors);
    xid.Add(card, reading.xid_errors);
    last_xid.Add(card, reading.last_xid);
  }

  std::vector<CollectedFamily> families;
  for (Family* family :
       {&utilization, &used, &total, &power, &energy, &temperature, &clock, &throttled, &ecc, &xid, &last_xid}) {
    family->MoveTo(families);
  }
  return families;
}

}  // namespace boss::server
