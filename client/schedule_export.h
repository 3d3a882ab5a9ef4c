// One schedule in the forms that other tools take (docs/schedules.md).
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "boss/v1/models.pb.h"

namespace boss::client {

enum class ExportFormat {
  kJson,       // everything that is known of the schedule
  kDiffusers,  // JSON: K sigmas and the configuration of FlowMatchEulerDiscreteScheduler with which it ends up at them
  kComfyUi,    // K + 1 sigmas for the node ManualSigmas
  kSdCpp,      // K + 1 sigmas for stable-diffusion.cpp's --sigmas
  kFlowMatching,  // Python: K + 1 times for the time_grid of flow_matching's ODESolver
};

// "json", "diffusers", "comfyui", "sd-cpp", "flow-matching". \error INVALID_ARGUMENT.
absl::StatusOr<ExportFormat> ParseExportFormat(absl::string_view name);

// A schedule and what it belongs to.
struct ExportedSchedule {
  std::string model;         // NAME@VERSION
  std::string schedule_set;  // empty for what the version was straightened or reflowed for
  boss::v1::Schedule schedule;
  boss::v1::Solver solver = boss::v1::SOLVER_EULER;
  double guidance_scale = 1;
  int k_max = 0;         // 0: not searched
  int num_samples = 0;   // 0: not searched, or not known
  int num_held_out = 0;  // of multistep's num_samples; 0: not known
  std::string weights_sha256;
  boss::v1::Model network;  // its sample_shape and time_map
};

struct ExportOptions {
  ExportFormat format = ExportFormat::kJson;
  // Of a diffusers scheduler that is to be kept as it is: its static shift, or the mu of its exponential dynamic shift.
  // The sigmas are such that this maps them to the schedule's.
  std::optional<double> shift, mu;
};

// The sigma that a static shift maps to `sigma`: x = s / (shift - (shift - 1) s). \pre shift > 0, sigma in [0, 1].
double InvertShift(double sigma, double shift);
// The same for diffusers' exponential shift: x = s / (s + e^mu (1 - s)).
double InvertExponentialShift(double sigma, double mu);

// The text ends with a line break. \error INVALID_ARGUMENT for a solver that the format cannot express, and for a shift
// that does not belong to it.
absl::StatusOr<std::string> ExportSchedule(const ExportedSchedule& exported, const ExportOptions& options);

}  // namespace boss::client
