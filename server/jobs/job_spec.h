// What a client asks of a job, by kind.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/finetune/trainer.h"
#include "core/flow/schedule.h"

namespace boss::server {

enum class JobKind { kTrain, kOptimizeStepsizes, kDistill, kEvaluate };

// "TRAIN", "OPTIMIZE_STEPSIZES", "DISTILL", "EVALUATE".
std::string JobKindName(JobKind kind);
std::optional<JobKind> ParseJobKind(absl::string_view name);

struct LoraSpec {
  int64_t rank = 4;
  double alpha = 4;
};

// How weights are trained. TrainerOptions carries Adam, warmup, clipping, EMA and accumulation; its seed is set from
// the job's.
struct TrainingSpec {
  int64_t train_steps = 1000;
  int64_t batch_size = 32;
  TrainerOptions trainer;
  int64_t checkpoint_interval = 500;  // train steps between saved training states
  int64_t metrics_interval = 10;      // train steps between metrics events
  int64_t preview_interval = 0;       // train steps between preview events; 0: none
  int64_t preview_samples = 16;
};

// Trains a flow from data and publishes its EMA weights as the next version of `output_model`.
struct TrainSpec {
  std::string dataset;            // see OpenDataset in core/io/image_dataset.h
  std::string architecture_json;  // a new model with random weights; or
  std::string init_model;         // "name[@version|@alias]" to go on from. Exactly one of the two is set
  std::string output_model;
  std::string output_alias;  // set to the published version; empty: none
  TrainingSpec training;
  double label_dropout = 0.1;  // class-conditional networks only
  bool flip = false;
  std::string description;               // goes into the manifest
  std::vector<std::string> label_names;  // empty: the data set's
  uint64_t seed = 0;
  int default_steps = 0;  // goes into the manifest
};

// Stage 1: draws fine trajectories, builds the cost matrix, and attaches the schedules of every K to the version.
struct OptimizeStepsizesSpec {
  std::string model;          // "name[@version|@alias]"
  int k_max = 100;            // 1 .. 1000
  int64_t num_samples = 100;  // trajectories
  double guidance_scale = 1.0;
  uint64_t seed = 0;
  int64_t batch_size = 0;      // trajectories at a time; 0: as many as keep their states within 256 MiB, at most 64
  bool unconditional = false;  // 'no label' instead of i mod num_classes for trajectory i
  std::vector<double> fine_time_grid;  // k_max + 1 times; empty: uniform
  std::string schedule_set;            // the set's name; empty: the server chooses one
  // K up to which multistep schedules are made of the same trajectories, at most k_max; 0: none. Needs two samples.
  int max_multistep_steps = 0;
  // For each of these K, velocity evaluations that a search of single times may take, besides; 0: none.
  int64_t multistep_refinement = 0;
};

// Which schedules an evaluation compares.
struct ScheduleChoice {
  bool uniform = true;
  bool bellman = true;            // the version's own schedule, or the searched one
  bool require_bellman = false;   // FAILED_PRECONDITION where a version has none, instead of leaving the row out
  bool named = false;             // every set that a client named
  std::vector<std::string> sets;  // these sets, which `model` must have; a multistep set is judged with multistep
  std::vector<std::vector<double>> time_grids;  // these times, whatever `steps` says

  // Whether more than what belongs to a version is asked for.
  bool more() const { return named || !sets.empty() || !time_grids.empty(); }
};

// Judges versions on given numbers of steps and schedules, on the same noises. Of a version that was straightened (or
// reflowed), only its native schedules are judged, at their own steps, and `other_solvers`, if any of `steps` is one of
// them and no named sets or time grids are asked for.
struct EvaluateSpec {
  std::string model;                      // "name[@version|@alias]"
  std::vector<std::string> other_models;  // judged after `model`
  std::string baseline;  // whose fine Euler samples are the measure; empty: the parent of `model`, or `model` itself if
                         // it has none
  std::vector<int> steps = {2, 4, 6, 8};
  ScheduleChoice schedules;
  SolverKind solver = SolverKind::kEuler;
  // Judged beside it: kHeun with uniform steps, half of each even number of `steps`; kMultistep with the version's own
  // schedules, if it has any.
  std::vector<SolverKind> other_solvers;
  int64_t num_samples = 1000;
  int64_t batch_size = 0;  // 0: 64
  uint64_t seed = 0;
  double guidance_scale = 1.0;
  int k_max = 100;                     // steps of the fine sampler
  std::vector<double> fine_time_grid;  // its k_max + 1 times; empty: uniform
  // Data set of the Frechet distance. Absent: "fashion-mnist-test" if it is installed, the samples have its shape, and
  // there are features; "": none.
  std::optional<std::string> reference_dataset;
  std::string feature_network;  // one of JobManagerOptions::feature_networks; empty: the classifier beside the model
  bool unconditional = false;
  bool include_fine = false;          // also a row for each version's own fine sampler
  bool measure_straightness = false;  // k_max more evaluations per sample, of at most 64 samples
};

enum class DistillMethod { kStraighten, kReflow };

// Both stages of BOSS, or the reflow baseline. Publishes the EMA weights as the next version of `output_model`.
struct DistillSpec {
  std::string model;  // the teacher, "name[@version|@alias]"
  DistillMethod method = DistillMethod::kStraighten;
  int steps = 4;                 // K, at most k_max
  std::optional<LoraSpec> lora;  // absent: every weight is trained
  int k_max = 100;
  std::vector<double> fine_time_grid;  // of both stages: k_max + 1 times; empty: uniform
  int64_t num_samples = 100;           // stage 1: trajectories behind the cost matrix
  bool fresh_schedule = false;         // search although the teacher has a schedule set for k_max and guidance_scale
  int64_t num_noises = 1024;           // stage 2: each yields K segment pairs, or one pair for reflow
  double held_out_share = 0.1;         // of the noises, in [0, 0.5]
  TrainingSpec training;
  double guidance_scale = 1.0;
  std::optional<EvaluateSpec>
      evaluation;            // model, other_models, baseline and guidance_scale are taken from here; steps empty: K
  std::string output_model;  // empty: the teacher's
  std::string output_alias;  // set to the published version; empty: none
  uint64_t seed = 0;
  int64_t batch_size = 0;  // trajectories at a time, as in OptimizeStepsizesSpec
  bool unconditional = false;
  // Stores no pairs: trains on the pairs of num_noises noises at a time, and draws those of the next ones after as many
  // train steps as use each pair once on average. Held-out pairs are of noises of their own.
  bool regenerate_pairs = false;
  std::string description;  // goes into the manifest
  // Fits coefficients on the version's own times after straightening, over the held-out noises, 2 at least.
  bool fit_multistep = false;
  // BOSS: the teacher's set whose times are straightened to; empty: Euler's of k_max and guidance_scale.
  std::string schedule_set;

  // Noises whose pairs are not trained on; 0 for a share that is out of range.
  int64_t held_out_noises() const {
    if (!(held_out_share >= 0 && held_out_share <= 0.5)) return 0;
    const auto share = static_cast<int64_t>(static_cast<double>(num_noises) * held_out_share);
    return std::min(share, num_noises - 1);
  }
};

// The alternatives are in the order of JobKind.
using JobSpec = std::variant<TrainSpec, OptimizeStepsizesSpec, DistillSpec, EvaluateSpec>;

JobKind KindOf(const JobSpec& spec);

// The name that its multistep set has; empty: the server chooses one.
std::string MultistepSetName(const OptimizeStepsizesSpec& spec);

// The fine grid of a spec that ValidateSpec accepts.
template <typename Spec>
TimeGrid FineGridOf(const Spec& spec) {
  return spec.fine_time_grid.empty() ? TimeGrid::Uniform(spec.k_max) : TimeGrid::Create(spec.fine_time_grid).value();
}

// Ranges and what must be set; not whether models, data sets or schedules exist. \error INVALID_ARGUMENT; the message
// begins with the field's name, as "spec.training.batch_size: ".
absl::Status ValidateSpec(const JobSpec& spec);

// JSON with every field; equal specs give equal bytes.
std::string JobSpecToJson(const JobSpec& spec);
// \error DATA_LOSS.
absl::StatusOr<JobSpec> JobSpecFromJson(JobKind kind, absl::string_view json);

}  // namespace boss::server
