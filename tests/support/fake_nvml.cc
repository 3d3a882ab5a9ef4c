#include "tests/support/fake_nvml.h"

#include <nvml.h>

#include <cstring>
#include <deque>
#include <set>

// Handles point at these.
struct nvmlDevice_st {
  unsigned int index = 0;
  bool reports_everything = false;
  bool lost = false;
  const char* uuid = "";
  unsigned long long memory_total = 0, memory_used = 0;  // bytes
  unsigned int milliwatts = 0;
  int celsius = 0;
  unsigned int sm_megahertz = 0, memory_megahertz = 0;
};

struct nvmlEventSet_st {
  nvmlDevice_t device = nullptr;
  std::deque<unsigned long long> xids;
};

namespace {

struct State {
  int num_inits = 0;
  nvmlReturn_t init_result = NVML_SUCCESS;
  std::set<nvmlEventSet_t> event_sets;
  nvmlDevice_st cards[3] = {{.index = 0,
                             .reports_everything = true,
                             .uuid = "GPU-11111111-2222-3333-4444-555555555555",
                             .memory_total = 85899345920,
                             .memory_used = 12884901888,
                             .milliwatts = 312500,
                             .celsius = 54,
                             .sm_megahertz = 1755,
                             .memory_megahertz = 2619},
                            {.index = 1,
                             .uuid = "GPU-66666666-7777-8888-9999-000000000000",
                             .memory_total = 8589934592,
                             .memory_used = 1073741824,
                             .milliwatts = 20000,
                             .celsius = 31,
                             .sm_megahertz = 210,
                             .memory_megahertz = 405},
                            {.index = 2, .lost = true, .uuid = "GPU-gone"}};
};

State state;

nvmlReturn_t Check(nvmlDevice_t device) {
  if (state.num_inits == 0) return NVML_ERROR_UNINITIALIZED;
  return device->lost ? NVML_ERROR_GPU_IS_LOST : NVML_SUCCESS;
}

// For what card 1 lacks.
nvmlReturn_t CheckSupport(nvmlDevice_t device) {
  const nvmlReturn_t result = Check(device);
  return result == NVML_SUCCESS && !device->reports_everything ? NVML_ERROR_NOT_SUPPORTED : result;
}

// `value` if `result` is success; the result.
template <typename Value>
nvmlReturn_t Give(nvmlReturn_t result, Value value, Value* out) {
  if (result == NVML_SUCCESS) *out = value;
  return result;
}

}  // namespace

extern "C" {

void fake_nvml_reset() { state = State(); }
void fake_nvml_answer_init(int result) { state.init_result = static_cast<nvmlReturn_t>(result); }
void fake_nvml_lose(unsigned int index) { state.cards[index].lost = true; }
void fake_nvml_report_xid(unsigned int index, unsigned long long number) {
  for (nvmlEventSet_t events : state.event_sets) {
    if (events->device == &state.cards[index]) events->xids.push_back(number);
  }
}
int fake_nvml_num_inits() { return state.num_inits; }
int fake_nvml_num_event_sets() { return static_cast<int>(state.event_sets.size()); }

nvmlReturn_t nvmlInit_v2() {
  if (state.init_result == NVML_SUCCESS) ++state.num_inits;
  return state.init_result;
}

nvmlReturn_t nvmlShutdown() {
  if (state.num_inits == 0) return NVML_ERROR_UNINITIALIZED;
  --state.num_inits;
  return NVML_SUCCESS;
}

const char* nvmlErrorString(nvmlReturn_t result) {
  return result == NVML_ERROR_DRIVER_NOT_LOADED ? "Driver Not Loaded" : "Another Error";
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int* count) {
  *count = 3;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t* device) {
  return Give(Check(&state.cards[index]), &state.cards[index], device);
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char* uuid, unsigned int length) {
  if (std::strlen(device->uuid) >= length) return NVML_ERROR_INSUFFICIENT_SIZE;
  std::strcpy(uuid, device->uuid);
  return Check(device);
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t* utilization) {
  return Give(CheckSupport(device), {.gpu = 37, .memory = 21}, utilization);
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t* memory) {
  if (memory->version != nvmlMemory_v2) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
  const unsigned long long reserved = 536870912;
  return Give(Check(device),
              {.version = memory->version,
               .total = device->memory_total,
               .reserved = reserved,
               .free = device->memory_total - device->memory_used - reserved,
               .used = device->memory_used},
              memory);
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned int* power) {
  return Give(Check(device), device->milliwatts, power);
}

nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, unsigned long long* energy) {
  return Give(CheckSupport(device), 123456750ull, energy);
}

nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_t* temperature) {
  if (temperature->version != nvmlTemperature_v1) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
  if (temperature->sensorType != NVML_TEMPERATURE_GPU) return NVML_ERROR_INVALID_ARGUMENT;
  return Give(Check(device), device->celsius, &temperature->temperature);
}

nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, nvmlClockType_t type, unsigned int* clock) {
  switch (type) {
    case NVML_CLOCK_SM:
      return Give(Check(device), device->sm_megahertz, clock);
    case NVML_CLOCK_MEM:
      return Give(Check(device), device->memory_megahertz, clock);
    case NVML_CLOCK_GRAPHICS:
      return Give(CheckSupport(device), 1740u, clock);
    default:
      return NVML_ERROR_INVALID_ARGUMENT;
  }
}

nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t device, unsigned long long* reasons) {
  return Give(CheckSupport(device),
              static_cast<unsigned long long>(nvmlClocksEventReasonGpuIdle | nvmlClocksEventReasonSwPowerCap), reasons);
}

// No display.
nvmlReturn_t nvmlDeviceGetSupportedClocksEventReasons(nvmlDevice_t device, unsigned long long* reasons) {
  return Give(CheckSupport(device),
              static_cast<unsigned long long>(
                  nvmlClocksEventReasonGpuIdle | nvmlClocksEventReasonSwPowerCap | nvmlClocksThrottleReasonHwSlowdown |
                  nvmlClocksEventReasonSwThermalSlowdown | nvmlClocksThrottleReasonHwThermalSlowdown),
              reasons);
}

nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, nvmlMemoryErrorType_t type, nvmlEccCounterType_t counter,
                                         unsigned long long* errors) {
  // Of the card's whole life, which nobody should ask for, there are more.
  const unsigned long long before = counter == NVML_AGGREGATE_ECC ? 1000 : 0;
  return Give(CheckSupport(device), before + (type == NVML_MEMORY_ERROR_TYPE_CORRECTED ? 3 : 1), errors);
}

nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t* set) {
  *set = new nvmlEventSet_st;
  state.event_sets.insert(*set);
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types, nvmlEventSet_t set) {
  if (types != nvmlEventTypeXidCriticalError) return NVML_ERROR_INVALID_ARGUMENT;
  const nvmlReturn_t result = CheckSupport(device);
  if (result == NVML_SUCCESS) set->device = device;
  return result;
}

// Waits for nothing: whoever gives a timeout would wait for it. A lost card still tells what it reported before.
nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t* data, unsigned int timeoutms) {
  if (timeoutms != 0) return NVML_ERROR_INVALID_ARGUMENT;
  if (set->xids.empty()) return set->device->lost ? NVML_ERROR_GPU_IS_LOST : NVML_ERROR_TIMEOUT;
  *data = {.device = set->device, .eventType = nvmlEventTypeXidCriticalError, .eventData = set->xids.front()};
  set->xids.pop_front();
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set) {
  state.event_sets.erase(set);
  delete set;
  return NVML_SUCCESS;
}

}  // extern "C"
