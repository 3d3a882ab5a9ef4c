// NVIDIA's management library as a shared object of its own, BOSS_FAKE_NVML, with three cards that are always the same:
// 0 reports everything; 1 neither utilization, energy, throttling, ECC nor events; 2 was lost before anybody asked.
// What is exported beside NVML's functions:
#pragma once

extern "C" {

// As new. The state is the process's, as that of the real library.
void fake_nvml_reset();
// nvmlInit_v2 answers with this nvmlReturn_t.
void fake_nvml_answer_init(int result);
// Every question about the card is answered with NVML_ERROR_GPU_IS_LOST.
void fake_nvml_lose(unsigned int index);
// The driver reports an XID error of the card.
void fake_nvml_report_xid(unsigned int index, unsigned long long number);
// nvmlInit_v2 without nvmlShutdown, and event sets that have not been freed.
int fake_nvml_num_inits();
int fake_nvml_num_event_sets();

}  // extern "C"
