// What a published version says about itself.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
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

// One line of an evaluation table: a version with one schedule, judged against the fine sampler of a baseline on the
// same noises.
struct EvaluationRow {
  std::string label;  // what the row is: "fine", "uniform", "bellman", "straightened", "reflow"
  std::string
      version;    // "name@version"; empty while it is not published, and in the file of the version that publishes it
  int steps = 0;  // solver steps
  std::string schedule;      // "uniform", "bellman", "named" or "explicit"
  std::string schedule_set;  // name of the set that the schedule is from; empty: none
  SolverKind solver = SolverKind::kEuler;
  double guidance_scale = 1.0;
  int64_t nfe = 0;  // velocity evaluations per sample
  int64_t num_samples = 0;
  double trajectory_error = 0;             // RMSE against the baseline's fine samples
  std::optional<double> straightness;      // along the version's own fine path
  std::optional<double> frechet_distance;  // to a reference data set
  std::string features;                    // which features the distance is of
  double samples_per_second = 0;           // of the sampler alone, while the device may have been shared
  std::string baseline;                    // "name@version"
  int baseline_steps = 0;
};

// A schedule that a version was trained for. Sampling with as many steps uses it before any schedule that was searched
// later. The training was for Euler's steps; where schedule.solver is kMultistep, coefficients were fitted on the same
// times afterwards, and are the better choice.
struct NativeSchedule {
  std::string kind;  // "bellman" or "uniform"
  double guidance_scale = 1.0;
  int k_max = 0;  // intervals of schedule.knots' fine grid; 0 if the knots are empty, as for a uniform schedule
  Schedule schedule;
  // kMultistep: the noises behind schedule.coefficients, and how many of them, the last ones, they were not fitted to; 0:
  // not known.
  int64_t num_samples = 0, num_held_out = 0;
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
  // Which upload published it, and the digest of all that was uploaded; empty if none did.
  std::string upload_id, upload_digest;
  std::optional<AdapterInfo> adapter;
  std::vector<NativeSchedule> schedules;
  std::vector<EvaluationRow> evaluation;
  std::string description;                    // for people
  std::map<std::string, std::string> labels;  // set by clients
  absl::Time create_time = absl::UnixEpoch();
  std::map<std::string, std::string> sha256;  // by file name, lower-case hexadecimal; filled in by the store
};

// The file format: JSON, with "format": 1. Doubles survive exactly.
std::string ManifestToJson(const Manifest& manifest);
// \error DATA_LOSS naming the key that is missing or of another type; FAILED_PRECONDITION for a newer format.
absl::StatusOr<Manifest> ManifestFromJson(absl::string_view json);

// Fills in the version of evaluation rows that leave it open.
void NameOwnRows(Manifest& manifest, const VersionKey& key);

// The guidance scale as it stands in names: 6 significant digits.
std::string FormatGuidance(double guidance_scale);

}  // namespace boss::server
