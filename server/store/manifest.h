// What a published version says about itself.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "core/flow/schedule.h"

namespace boss::server {

// One version of one model. Written "name@version" where text is needed.
struct VersionKey {
  std::string name;
  int64_t version = 0;  // from 1

  std::string ToString() const;
  friend bool operator==(const VersionKey&, const VersionKey&) = default;
  friend auto operator<=>(const VersionKey&, const VersionKey&) = default;
};

// One line of an evaluation table.
struct EvaluationRow {
  std::string sampler;  // "teacher", "uniform", "bellman", "straightened", "reflow", ...: what is compared
  std::string version;  // "name@version"; empty for a version that is not published yet
  int steps = 0;        // solver steps
  std::string schedule;  // "uniform", "bellman" or "explicit"
  SolverKind solver = SolverKind::kEuler;
  double guidance_scale = 1.0;
  int64_t nfe = 0;          // velocity evaluations per sample
  int64_t num_samples = 0;
  std::optional<double> trajectory_error;  // RMSE against the fine samples of the same noises
  std::optional<double> frechet_distance;
  std::string features;  // which features the distance is of
  std::optional<double> straightness;
  double samples_per_second = 0;
};

// A schedule that a version was trained for. Sampling with as many steps uses it before any schedule that was searched later.
struct NativeSchedule {
  std::string kind;  // "bellman" or "uniform"
  double guidance_scale = 1.0;
  int k_max = 0;      // fine grid of schedule.knots; 0 if the knots are empty, as for a uniform schedule
  Schedule schedule;
};

// A version that consists of low-rank deltas on another version.
struct AdapterInfo {
  VersionKey base;
  int64_t rank = 0;
  double alpha = 0;
};

struct Manifest {
  std::string architecture_json;  // see core/nets/factory.h
  std::vector<std::string> label_names;
  int default_steps = 0;  // solver steps of a request that names none; 0: the server's default
  double default_guidance_scale = 1.0;
  std::string parent;  // "name@version" that training began with; empty if it began with random weights
  std::string job_id;  // empty for an imported version
  std::optional<AdapterInfo> adapter;
  std::vector<NativeSchedule> schedules;
  std::vector<EvaluationRow> evaluation;
  std::string note;  // how it came about, for people
  absl::Time create_time = absl::UnixEpoch();
  std::map<std::string, std::string> sha256;  // by file name, lower-case hexadecimal; filled in by the store
};

// The file format: JSON, with "format": 1. Doubles survive exactly.
std::string ManifestToJson(const Manifest& manifest);
// \error DATA_LOSS naming the key that is missing or of another type; FAILED_PRECONDITION for a newer format.
absl::StatusOr<Manifest> ManifestFromJson(std::string_view json);

std::string ScheduleSetToJson(const ScheduleSet& set);
// \error DATA_LOSS, also for knots that are no path through the grid.
absl::StatusOr<ScheduleSet> ScheduleSetFromJson(std::string_view json);

std::string EvaluationRowToJson(const EvaluationRow& row);
absl::StatusOr<EvaluationRow> EvaluationRowFromJson(std::string_view json);

}  // namespace boss::server
