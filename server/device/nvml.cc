#include "server/device/nvml.h"

#include <dlfcn.h>
#include <nvml.h>

#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace boss::server {
namespace {

constexpr double kPerMilli = 1e-3;
constexpr double kHertzPerMegahertz = 1e6;
constexpr double kPerPercent = 1e-2;
// Of one card in one reading, so that a card that reports without end does not hold up the reader.
constexpr int kMaxEvents = 1000;

constexpr std::pair<unsigned long long, std::string_view> kThrottleReasons[] = {
    {nvmlClocksEventReasonApplicationsClocksSetting, "application_clocks"},
    {nvmlClocksEventReasonSwPowerCap, "sw_power_cap"},
    {nvmlClocksThrottleReasonHwSlowdown, "hw_slowdown"},
    {nvmlClocksEventReasonSyncBoost, "sync_boost"},
    {nvmlClocksEventReasonSwThermalSlowdown, "sw_thermal_slowdown"},
    {nvmlClocksThrottleReasonHwThermalSlowdown, "hw_thermal_slowdown"},
    {nvmlClocksThrottleReasonHwPowerBrakeSlowdown, "hw_power_brake_slowdown"},
    {nvmlClocksEventReasonDisplayClockSetting, "display_clocks"},
    {nvmlClocksEventReasonBoardLimit, "board_limit"},
    {nvmlClocksEventReasonReliability, "reliability"},
};

// False where the function is not in this driver's library, or has nothing to say.
template <typename Function, typename... Arguments>
bool Ask(Function function, Arguments... arguments) {
  return function != nullptr && function(arguments...) == NVML_SUCCESS;
}

}  // namespace

// The opened library: its functions, null where it lacks one.
class Nvml::Library {
 public:
  static absl::StatusOr<std::unique_ptr<Library>> Open(const std::string& path) {
    void* const handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
      const char* const reason = dlerror();
      return absl::FailedPreconditionError(
          absl::StrCat("cannot open NVML: ", reason == nullptr ? path : std::string(reason)));
    }
    std::unique_ptr<Library> library(new Library(handle));
    if (library->init == nullptr || library->shutdown == nullptr || library->count == nullptr ||
        library->handle_by_index == nullptr || library->uuid == nullptr) {
      return absl::FailedPreconditionError(absl::StrCat(path, " is no NVML: a function is missing"));
    }
    if (const nvmlReturn_t result = library->init(); result != NVML_SUCCESS) {
      const char* const reason = library->error_string == nullptr ? "" : library->error_string(result);
      return absl::FailedPreconditionError(absl::StrCat("NVML cannot reach a driver: ", reason, " (", result, ")"));
    }
    library->initialized_ = true;
    return library;
  }

  ~Library() {
    if (initialized_) shutdown();
    dlclose(handle_);
  }

 private:
  template <typename Function>
  Function* Find(const char* name, Function*) const {
    return reinterpret_cast<Function*>(dlsym(handle_, name));
  }

  explicit Library(void* handle) : handle_(handle) {}

  void* const handle_;
  bool initialized_ = false;

 public:
// The declarations of nvml.h give the types, so that a wrong argument does not compile.
#define BOSS_NVML_FUNCTION(member, name) decltype(&::name) const member = Find(#name, decltype(&::name){nullptr})
  BOSS_NVML_FUNCTION(init, nvmlInit_v2);
  BOSS_NVML_FUNCTION(shutdown, nvmlShutdown);
  BOSS_NVML_FUNCTION(error_string, nvmlErrorString);
  BOSS_NVML_FUNCTION(count, nvmlDeviceGetCount_v2);
  BOSS_NVML_FUNCTION(handle_by_index, nvmlDeviceGetHandleByIndex_v2);
  BOSS_NVML_FUNCTION(uuid, nvmlDeviceGetUUID);
  BOSS_NVML_FUNCTION(utilization, nvmlDeviceGetUtilizationRates);
  BOSS_NVML_FUNCTION(memory, nvmlDeviceGetMemoryInfo_v2);
  BOSS_NVML_FUNCTION(power, nvmlDeviceGetPowerUsage);
  BOSS_NVML_FUNCTION(energy, nvmlDeviceGetTotalEnergyConsumption);
  BOSS_NVML_FUNCTION(temperature, nvmlDeviceGetTemperatureV);
  BOSS_NVML_FUNCTION(clock, nvmlDeviceGetClockInfo);
  BOSS_NVML_FUNCTION(throttles, nvmlDeviceGetCurrentClocksEventReasons);
  BOSS_NVML_FUNCTION(known_throttles, nvmlDeviceGetSupportedClocksEventReasons);
  BOSS_NVML_FUNCTION(ecc_errors, nvmlDeviceGetTotalEccErrors);
  BOSS_NVML_FUNCTION(new_event_set, nvmlEventSetCreate);
  BOSS_NVML_FUNCTION(register_events, nvmlDeviceRegisterEvents);
  BOSS_NVML_FUNCTION(next_event, nvmlEventSetWait_v2);
  BOSS_NVML_FUNCTION(free_event_set, nvmlEventSetFree);
#undef BOSS_NVML_FUNCTION
};

struct Nvml::Card {
  nvmlDevice_t device = nullptr;
  std::string uuid;
  int index = 0;
  // One a card: a lost card's set reports nothing else any more. Null where the card has no such events.
  nvmlEventSet_t events = nullptr;
  int64_t xid_errors = 0;
  std::optional<int64_t> last_xid;

  void WatchXids(const Library& nvml) {
    if (nvml.free_event_set == nullptr || !Ask(nvml.new_event_set, &events)) {
      events = nullptr;
    } else if (!Ask(nvml.register_events, device, nvmlEventTypeXidCriticalError, events)) {
      nvml.free_event_set(events);
      events = nullptr;
    }
  }

  void CountXids(const Library& nvml) {
    for (int i = 0; i < kMaxEvents; ++i) {
      nvmlEventData_t event = {};
      if (!Ask(nvml.next_event, events, &event, 0u)) return;
      if (event.eventType != nvmlEventTypeXidCriticalError) continue;
      ++xid_errors;
      last_xid = static_cast<int64_t>(event.eventData);
    }
  }

  std::optional<double> ClockHertz(const Library& nvml, nvmlClockType_t type) const {
    unsigned int megahertz = 0;
    if (!Ask(nvml.clock, device, type, &megahertz)) return std::nullopt;
    return megahertz * kHertzPerMegahertz;
  }

  std::optional<double> EccErrors(const Library& nvml, nvmlMemoryErrorType_t type) const {
    unsigned long long errors = 0;
    if (!Ask(nvml.ecc_errors, device, type, NVML_VOLATILE_ECC, &errors)) return std::nullopt;
    return static_cast<double>(errors);
  }

  void ReadThrottles(const Library& nvml, GpuReading& reading) const {
    unsigned long long active = 0, known = 0;
    if (!Ask(nvml.throttles, device, &active)) return;
    if (!Ask(nvml.known_throttles, device, &known)) known = nvmlClocksEventReasonAll;
    for (const auto& [bit, reason] : kThrottleReasons) {
      if (known & bit) reading.throttles.push_back({reason, (active & bit) != 0});
    }
  }

  GpuReading Read(const Library& nvml) {
    GpuReading reading;
    reading.uuid = uuid;
    reading.index = index;
    if (nvmlUtilization_t utilization = {}; Ask(nvml.utilization, device, &utilization)) {
      reading.utilization = utilization.gpu * kPerPercent;
    }
    nvmlMemory_v2_t memory = {};
    memory.version = nvmlMemory_v2;
    if (Ask(nvml.memory, device, &memory)) {
      reading.memory_used_bytes = static_cast<double>(memory.used);
      reading.memory_total_bytes = static_cast<double>(memory.total);
    }
    if (unsigned int milliwatts = 0; Ask(nvml.power, device, &milliwatts)) {
      reading.power_watts = milliwatts * kPerMilli;
    }
    if (unsigned long long millijoules = 0; Ask(nvml.energy, device, &millijoules)) {
      reading.energy_joules = static_cast<double>(millijoules) * kPerMilli;
    }
    nvmlTemperature_t temperature = {};
    temperature.version = nvmlTemperature_v1;
    temperature.sensorType = NVML_TEMPERATURE_GPU;
    if (Ask(nvml.temperature, device, &temperature)) reading.temperature_celsius = temperature.temperature;
    reading.sm_clock_hertz = ClockHertz(nvml, NVML_CLOCK_SM);
    reading.memory_clock_hertz = ClockHertz(nvml, NVML_CLOCK_MEM);
    reading.graphics_clock_hertz = ClockHertz(nvml, NVML_CLOCK_GRAPHICS);
    ReadThrottles(nvml, reading);
    reading.corrected_ecc_errors = EccErrors(nvml, NVML_MEMORY_ERROR_TYPE_CORRECTED);
    reading.uncorrected_ecc_errors = EccErrors(nvml, NVML_MEMORY_ERROR_TYPE_UNCORRECTED);
    if (events != nullptr) {
      CountXids(nvml);
      reading.xid_errors = xid_errors;
      reading.last_xid = last_xid;
    }
    return reading;
  }
};

Nvml::Nvml(std::unique_ptr<Library> library) : library_(std::move(library)) {}

absl::StatusOr<std::unique_ptr<Nvml>> Nvml::Open(const std::string& path) {
  BOSS_ASSIGN_OR_RETURN(std::unique_ptr<Library> library, Library::Open(path));
  std::unique_ptr<Nvml> nvml(new Nvml(std::move(library)));
  const Library& functions = *nvml->library_;
  unsigned int count = 0;
  if (!Ask(functions.count, &count)) return absl::FailedPreconditionError("NVML cannot count the cards");
  absl::MutexLock lock(&nvml->mutex_);
  for (unsigned int index = 0; index < count; ++index) {
    Card card;
    std::array<char, NVML_DEVICE_UUID_V2_BUFFER_SIZE> uuid = {};
    if (!Ask(functions.handle_by_index, index, &card.device)) continue;
    if (!Ask(functions.uuid, card.device, uuid.data(), static_cast<unsigned int>(uuid.size()))) continue;
    card.uuid = uuid.data();
    card.index = static_cast<int>(index);
    card.WatchXids(functions);
    nvml->cards_.push_back(std::move(card));
  }
  return nvml;
}

Nvml::~Nvml() {
  absl::MutexLock lock(&mutex_);
  for (const Card& card : cards_) {
    if (card.events != nullptr) library_->free_event_set(card.events);
  }
}

std::vector<GpuReading> Nvml::Read() {
  absl::MutexLock lock(&mutex_);
  std::vector<GpuReading> readings;
  readings.reserve(cards_.size());
  for (Card& card : cards_) readings.push_back(card.Read(*library_));
  return readings;
}

}  // namespace boss::server
