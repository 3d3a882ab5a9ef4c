// What NVIDIA's driver says of the machine's cards, through its management library NVML. Neither CUDA nor LibTorch is
// involved: the library is opened while the program runs, so the same binary serves without it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

namespace boss::server {

// One card at one moment. What the card or its driver does not report is absent: a card without ECC counts no errors,
// which is not the same as none.
struct GpuReading {
  struct Throttle {
    std::string_view reason;  // "hw_thermal_slowdown", ...: a literal
    bool active = false;
  };

  std::string uuid;
  int index = 0;                              // NVML's, by PCI address: CUDA's may differ
  std::optional<double> utilization;          // share of the driver's last sample period in which a kernel ran, 0 to 1
  std::optional<double> memory_used_bytes;    // by all processes, without what the driver reserves
  std::optional<double> memory_total_bytes;   // what the driver reserves included
  std::optional<double> power_watts;          // of the board
  std::optional<double> energy_joules;        // since the driver was loaded
  std::optional<double> temperature_celsius;  // of the chip
  std::optional<double> sm_clock_hertz;
  std::optional<double> memory_clock_hertz;
  std::optional<double> graphics_clock_hertz;
  std::vector<Throttle> throttles;               // the reasons that the card knows; being idle is none
  std::optional<double> corrected_ecc_errors;    // since the driver was loaded
  std::optional<double> uncorrected_ecc_errors;  // likewise
  std::optional<int64_t> xid_errors;             // since Open
  std::optional<int64_t> last_xid;               // the number of the last one; absent before the first
};

// Thread-safe.
class Nvml {
 public:
  // The driver's, found by the system's loader.
  static constexpr char kLibrary[] = "libnvidia-ml.so.1";

  // Opens the library and finds the cards; from here on their XID errors are counted. A card that cannot be asked for
  // its UUID is left out. \error FAILED_PRECONDITION: no library, not one of NVML, or no driver.
  static absl::StatusOr<std::unique_ptr<Nvml>> Open(const std::string& library = kLibrary);
  ~Nvml();
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  // Every card that was there at Open, in the order of the indices. Of one that has been lost since, only what was
  // counted here is left. Takes some milliseconds a card.
  std::vector<GpuReading> Read() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  class Library;
  struct Card;

  explicit Nvml(std::unique_ptr<Library> library);

  const std::unique_ptr<Library> library_;
  absl::Mutex mutex_;
  std::vector<Card> cards_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace boss::server
