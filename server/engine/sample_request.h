// What a client asks the sampling engine for, and what it gets back.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "core/flow/schedule.h"
#include "server/store/manifest.h"

namespace boss::server {

enum class ScheduleSource {
  kBest,  // Bellman where the version has one that fits, else uniform
  kBellman,
  kUniform,
  kExplicit,  // SampleRequest::time_grid
  kNamed,     // SampleRequest::schedule_set
};

enum class SampleFormat {
  kDefault,  // PNG for 1 or 3 channels, float32 otherwise
  kPng,      // grey or RGB, 8 bits
  kUint8,    // [H, W, C], the data range [-1, 1] mapped to 0..255
  kFloat32,  // the sample's own shape, little-endian, not clamped
};

struct SampleRequest {
  std::string model;  // "name", "name@version" or "name@alias"
  int steps = 0;      // K; 0: the version's default, then the engine's
  int64_t num_samples = 1;
  uint64_t seed = 0;
  ScheduleSource schedule = ScheduleSource::kBest;
  std::vector<double> time_grid;  // with kExplicit
  std::string schedule_set;       // with kNamed: of the version
  SolverKind solver = SolverKind::kEuler;
  // The model chooses the solver: multistep where it has such schedules and `schedule` does not say otherwise, else
  // euler. `solver` is euler then.
  bool default_solver = false;
  double rtol = 1e-5, atol = 1e-5;    // with rk45
  std::vector<int64_t> class_labels;  // none, one for all, or num_samples; -1 is 'no label'
  std::map<std::string, at::Tensor>
      conditions;  // by the names of the model's ConditioningSpecs(): [1 or num_samples, ...]
  double guidance_scale = 1.0;
  // What guidance leads away from, likewise.
  std::vector<int64_t> negative_class_labels;
  std::map<std::string, at::Tensor> negative_conditions;
  std::vector<float> initial_noise;          // row-major; empty: drawn from the seed
  std::vector<int64_t> initial_noise_shape;  // [num_samples, sample shape...]
  SampleFormat format = SampleFormat::kDefault;
  bool latents = false;      // samples as they are before the model's decoder
  int preview_interval = 0;  // solver steps between previews; 0: none
  int priority = 0;          // higher goes first
  // Samples that are the same bits whatever runs beside them and however many of them are asked for.
  bool deterministic = false;
  absl::Time deadline = absl::InfiniteFuture();
  bool validate_only = false;  // ends after OnAccepted
};

// What a request resolved to.
struct AcceptedRequest {
  VersionKey version;
  std::vector<double> time_grid;                       // empty for rk45
  ScheduleSource schedule = ScheduleSource::kUniform;  // never kBest
  std::string schedule_set;                            // that the time grid is from; empty: none
  SolverKind solver = SolverKind::kEuler;
  int steps = 0;                // 0 for rk45
  int64_t nfe = 0;              // velocity evaluations per sample; 0 for rk45
  int64_t requests_before = 0;  // that were waiting or running
  std::vector<int64_t> sample_shape;  // of one sample's values, as kFloat32 gives them
  double guidance_scale = 1.0;
  std::vector<std::string> warnings;  // for people
};

struct SampleProgress {
  int64_t solver_steps = 0;        // done, summed over samples
  int64_t total_solver_steps = 0;  // 0 for rk45
  int64_t samples_done = 0;
};

// A sample, or the state of one on its way.
struct EncodedSample {
  int64_t index = 0;                         // in the request
  uint64_t seed = 0;                         // its own
  std::vector<int64_t> shape;                // of the pixels: [C, H, W], or [H, W, C] for uint8
  SampleFormat format = SampleFormat::kPng;  // never kDefault
  std::string data;
  std::optional<int64_t> class_label;  // unset for models without labels
  int solver_steps = 0;                // done
  double t = 1;                        // the time that the state is at
};

struct SampleSummary {
  absl::Duration queue_time;    // from acceptance to the first solver step
  absl::Duration compute_time;  // from the first solver step's start to the last one's end
  absl::Duration output_time;   // encoding
  absl::Time compute_end = absl::InfinitePast();  // of the last solver step; infinite past if there was none
  double nfe = 0;               // velocity evaluations per sample, the mean over batches
  int64_t num_samples = 0;      // delivered
  std::string device;
};

// Where a request's answers go. Calls come from the engine's threads, one at a time and in this order: OnAccepted, then
// OnProgress, OnPreview and OnSample, then OnDone once and last; a request that fails early gets OnDone alone. They
// must return quickly and must not call the engine, except for SampleHandle's methods.
class SampleSink {
 public:
  virtual ~SampleSink() = default;
  virtual void OnAccepted(AcceptedRequest accepted) = 0;
  virtual void OnProgress(SampleProgress progress) = 0;
  virtual void OnPreview(EncodedSample preview) = 0;
  virtual void OnSample(EncodedSample sample) = 0;
  virtual void OnDone(absl::Status status, SampleSummary summary) = 0;
};

// A request that the engine has taken. Thread-safe.
class SampleHandle {
 public:
  virtual ~SampleHandle() = default;
  // Ends the request with `reason` before its next solver step. OnDone is still called.
  virtual void Cancel(absl::Status reason) = 0;
  // The client has taken `bytes` of the previews' and samples' data. The engine computes nothing more for a request
  // while too much of it waits to be taken.
  virtual void Consumed(int64_t bytes) = 0;
};

}  // namespace boss::server
