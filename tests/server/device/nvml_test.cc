#include "server/device/nvml.h"

#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "server/device/gpu_metrics.h"
#include "tests/support/fake_nvml.h"

namespace boss::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Optional;
using ::testing::SizeIs;

constexpr char kFirstUuid[] = "GPU-11111111-2222-3333-4444-555555555555";
constexpr char kSecondUuid[] = "GPU-66666666-7777-8888-9999-000000000000";
// nvmlReturn_t NVML_ERROR_DRIVER_NOT_LOADED
constexpr int kDriverNotLoaded = 9;

// Series as a scrape shows them: name{label=value,...} value.
std::vector<std::string> Series(const std::vector<CollectedFamily>& families) {
  std::vector<std::string> lines;
  for (const CollectedFamily& family : families) {
    for (const CollectedFamily::Series& series : family.series) {
      std::string line = family.name;
      for (const auto& [name, value] : series.labels) {
        if (name != "uuid") line += " " + name + "=" + value;
      }
      char value[64];
      snprintf(value, sizeof value, " %.15g", series.value);
      lines.push_back(line + value);
    }
  }
  return lines;
}

class NvmlTest : public ::testing::Test {
 protected:
  // The library stays open between two of a test's readers, and with it what the test told it.
  NvmlTest() : library_(dlopen(BOSS_FAKE_NVML, RTLD_NOW | RTLD_LOCAL)) {
    Control<decltype(fake_nvml_reset)>("fake_nvml_reset")();
  }
  ~NvmlTest() override { dlclose(library_); }

  template <typename Function>
  Function* Control(const char* name) const {
    return reinterpret_cast<Function*>(dlsym(library_, name));
  }
  void Lose(unsigned int index) { Control<decltype(fake_nvml_lose)>("fake_nvml_lose")(index); }
  void ReportXid(unsigned int index, unsigned long long number) {
    Control<decltype(fake_nvml_report_xid)>("fake_nvml_report_xid")(index, number);
  }
  int NumInits() { return Control<decltype(fake_nvml_num_inits)>("fake_nvml_num_inits")(); }
  int NumEventSets() { return Control<decltype(fake_nvml_num_event_sets)>("fake_nvml_num_event_sets")(); }

  static std::unique_ptr<Nvml> Open() {
    auto nvml = Nvml::Open(BOSS_FAKE_NVML);
    EXPECT_TRUE(nvml.ok()) << nvml.status();
    return nvml.ok() ? *std::move(nvml) : nullptr;
  }

  void* const library_;
};

TEST_F(NvmlTest, ReadsACardInBaseUnits) {
  const std::vector<GpuReading> readings = Open()->Read();
  ASSERT_THAT(readings, SizeIs(2)) << "without the card that is lost from the start";
  const GpuReading& card = readings[0];
  EXPECT_EQ(card.uuid, kFirstUuid);
  EXPECT_EQ(card.index, 0);
  EXPECT_THAT(card.utilization, Optional(0.37));
  EXPECT_THAT(card.memory_used_bytes, Optional(12.0 * (1 << 30)));
  EXPECT_THAT(card.memory_total_bytes, Optional(80.0 * (1 << 30)));
  EXPECT_THAT(card.power_watts, Optional(312.5));
  EXPECT_THAT(card.energy_joules, Optional(123456.75));
  EXPECT_THAT(card.temperature_celsius, Optional(54.0));
  EXPECT_THAT(card.sm_clock_hertz, Optional(1755e6));
  EXPECT_THAT(card.memory_clock_hertz, Optional(2619e6));
  EXPECT_THAT(card.graphics_clock_hertz, Optional(1740e6));
  EXPECT_THAT(card.corrected_ecc_errors, Optional(3.0));
  EXPECT_THAT(card.uncorrected_ecc_errors, Optional(1.0));
  EXPECT_THAT(card.xid_errors, Optional(0));
  EXPECT_EQ(card.last_xid, std::nullopt);
}

TEST_F(NvmlTest, WhatACardDoesNotReportIsAbsent) {
  const GpuReading card = Open()->Read().at(1);
  EXPECT_EQ(card.uuid, kSecondUuid);
  EXPECT_EQ(card.index, 1);
  EXPECT_THAT(card.memory_used_bytes, Optional(1.0 * (1 << 30)));
  EXPECT_THAT(card.power_watts, Optional(20.0));
  EXPECT_EQ(card.utilization, std::nullopt);
  EXPECT_EQ(card.energy_joules, std::nullopt);
  EXPECT_EQ(card.graphics_clock_hertz, std::nullopt);
  EXPECT_THAT(card.throttles, IsEmpty());
  EXPECT_EQ(card.corrected_ecc_errors, std::nullopt);
  EXPECT_EQ(card.uncorrected_ecc_errors, std::nullopt);
  EXPECT_EQ(card.xid_errors, std::nullopt);
}

TEST_F(NvmlTest, XidErrorsAreCountedAndTheLastOneIsKept) {
  const std::unique_ptr<Nvml> nvml = Open();
  ReportXid(0, 31);
  ReportXid(0, 79);
  EXPECT_THAT(nvml->Read().at(0).xid_errors, Optional(2));
  EXPECT_THAT(nvml->Read().at(0).xid_errors, Optional(2)) << "each is counted once";
  ReportXid(0, 43);
  const GpuReading card = nvml->Read().at(0);
  EXPECT_THAT(card.xid_errors, Optional(3));
  EXPECT_THAT(card.last_xid, Optional(43));
}

TEST_F(NvmlTest, OfALostCardWhatWasCountedIsLeft) {
  const std::unique_ptr<Nvml> nvml = Open();
  EXPECT_THAT(nvml->Read().at(0).power_watts, Optional(312.5));
  ReportXid(0, 79);
  Lose(0);
  const std::vector<GpuReading> readings = nvml->Read();
  ASSERT_THAT(readings, SizeIs(2));
  EXPECT_THAT(Series(GpuFamilies({readings[0]})),
              ElementsAre("boss_gpu_xid_errors_total index=0 1", "boss_gpu_last_xid index=0 79"));
  EXPECT_THAT(readings[1].power_watts, Optional(20.0)) << "the other card is still read";
}

TEST_F(NvmlTest, GivesBackWhatItTook) {
  {
    const std::unique_ptr<Nvml> nvml = Open();
    EXPECT_EQ(NumInits(), 1);
    EXPECT_EQ(NumEventSets(), 1) << "of the one card that has events";
  }
  EXPECT_EQ(NumInits(), 0);
  EXPECT_EQ(NumEventSets(), 0);
}

TEST_F(NvmlTest, WithoutADriverItSaysSo) {
  Control<decltype(fake_nvml_answer_init)>("fake_nvml_answer_init")(kDriverNotLoaded);
  const absl::Status status = Nvml::Open(BOSS_FAKE_NVML).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("Driver Not Loaded (9)"));
}

TEST_F(NvmlTest, WithoutTheLibraryItSaysSo) {
  const absl::Status status = Nvml::Open("libboss-no-such-library.so.1").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("libboss-no-such-library.so.1"));
}

TEST_F(NvmlTest, AnotherLibraryIsRefused) {
  const absl::Status status = Nvml::Open("libm.so.6").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("libm.so.6 is no NVML"));
}

TEST_F(NvmlTest, FamiliesHoldTheCardsValues) {
  const std::vector<CollectedFamily> families = GpuFamilies(Open()->Read());
  EXPECT_THAT(Series(families),
              ElementsAre("boss_gpu_utilization_ratio index=0 0.37",                  //
                          "boss_gpu_memory_used_bytes index=0 12884901888",           //
                          "boss_gpu_memory_used_bytes index=1 1073741824",            //
                          "boss_gpu_memory_total_bytes index=0 85899345920",          //
                          "boss_gpu_memory_total_bytes index=1 8589934592",           //
                          "boss_gpu_power_watts index=0 312.5",                       //
                          "boss_gpu_power_watts index=1 20",                          //
                          "boss_gpu_energy_joules_total index=0 123456.75",           //
                          "boss_gpu_temperature_celsius index=0 54",                  //
                          "boss_gpu_temperature_celsius index=1 31",                  //
                          "boss_gpu_clock_hertz index=0 clock=sm 1755000000",         //
                          "boss_gpu_clock_hertz index=0 clock=memory 2619000000",     //
                          "boss_gpu_clock_hertz index=0 clock=graphics 1740000000",   //
                          "boss_gpu_clock_hertz index=1 clock=sm 210000000",          //
                          "boss_gpu_clock_hertz index=1 clock=memory 405000000",      //
                          "boss_gpu_throttled index=0 reason=sw_power_cap 1",         //
                          "boss_gpu_throttled index=0 reason=hw_slowdown 0",          //
                          "boss_gpu_throttled index=0 reason=sw_thermal_slowdown 0",  //
                          "boss_gpu_throttled index=0 reason=hw_thermal_slowdown 0",  //
                          "boss_gpu_ecc_errors_total index=0 kind=corrected 3",       //
                          "boss_gpu_ecc_errors_total index=0 kind=uncorrected 1",     //
                          "boss_gpu_xid_errors_total index=0 0"));
  for (const CollectedFamily& family : families) {
    EXPECT_EQ(family.kind == CollectedFamily::Kind::kCounter, family.name.ends_with("_total")) << family.name;
    EXPECT_FALSE(family.help.empty()) << family.name;
    for (const CollectedFamily::Series& series : family.series) {
      EXPECT_EQ(series.labels.at(0).first, "uuid");
      EXPECT_THAT(series.labels.at(0).second, testing::AnyOf(kFirstUuid, kSecondUuid));
    }
  }
}

TEST_F(NvmlTest, WithoutCardsThereAreNoFamilies) { EXPECT_THAT(GpuFamilies({}), IsEmpty()); }

}  // namespace
}  // namespace boss::server
