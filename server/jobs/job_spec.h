// What a client asks of a job, by kind.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/finetune/trainer.h"

namespace boss::server {

enum class JobKind { kTrain, kOptimizeStepsizes, kDistill, kEvaluate };

// "TRAIN", "OPTIMIZE_STEPSIZES", "DISTILL", "EVALUATE".
std::string_view JobKindName(JobKind kind);
std::optional<JobKind> ParseJobKind(std::string_view name);

struct LoraSpec {
  int64_t rank = 4;
  double alpha = 4;
};

// Training options common to TrainJob and the second stage of DistillJob.
struct TrainingSpec {
  int64_t iterations = 1000;  // train steps
  int64_t batch_size = 32;
  TrainerOptions trainer;     // trainer.seed is set from the job's seed
  int64_t checkpoint_interval = 500;  // train steps between saved training states
  int64_t metrics_interval = 10;      // train steps between metrics events
  int64_t preview_interval = 0;       // train steps between preview events; 0: none
  int64_t preview_samples = 16;
  std::optional<LoraSpec> lora;  // absent: every parameter is trained
};

// Trains a flow from data and publishes its EMA weights as the next version of `output_model`.
struct TrainSpec {
  std::string output_model;
  std::string architecture_json;  // a new model with random weights; or
  std::string base_version;       // "name[@version|@alias]" to go on from. Exactly one of the two is set
  std::string dataset;            // see OpenDataset in core/io/image_dataset.h
  TrainingSpec training;
  double label_dropout = 0.1;
  bool flip = false;
  uint64_t seed = 0;
  int default_steps = 0;  // goes into the manifest
  std::string note;       // goes into the manifest
};

// Stage 1: draws fine trajectories, builds the cost matrix, and attaches the schedules of every K to the version.
struct OptimizeStepsizesSpec {
  std::string version;  // "name[@version|@alias]"
  int k_max = 100;
  int64_t num_samples = 100;  // trajectories
  double guidance_scale = 1.0;
  uint64_t seed = 0;
  int64_t batch_size = 0;  // 0: the largest that keeps a batch's recorded trajectories within bounded memory
};

// A comparison of samplers on the same noises.
struct EvaluationSpec {
  int64_t num_samples = 0;  // 0: no evaluation
  std::string dataset;      // reference of the Frechet distance; empty: none
  std::string features;     // path of a TorchScript feature network; empty: the classifier beside the model
};

enum class DistillMethod { kStraighten, kReflow };

// Both stages of BOSS, or the reflow baseline. Publishes the straightened EMA weights as the next version of `output_model`.
struct DistillSpec {
  std::string teacher;       // "name[@version|@alias]"
  std::string output_model;  // empty: the teacher's
  int steps = 4;             // K
  DistillMethod method = DistillMethod::kStraighten;
  OptimizeStepsizesSpec schedule;  // k_max, num_samples, batch_size of stage 1; version, guidance_scale and seed are taken from here
  bool fresh_schedule = false;     // search again although the teacher has a schedule set
  int64_t num_pairs = 1024;        // noises that trajectories are drawn from; each yields K segments, or one pair for reflow
  double guidance_scale = 1.0;
  TrainingSpec training;
  EvaluationSpec evaluation;
  uint64_t seed = 0;
  std::string note;
};

// Compares samplers of published versions: the fine teacher, and per K uniform and Bellman steps.
struct EvaluateSpec {
  std::vector<std::string> versions;  // "name[@version|@alias]"; at least one
  std::string teacher;                // whose fine samples are the reference; empty: the first version
  std::vector<int> steps;             // the K to compare; at least one
  int k_max = 100;                    // steps of the fine reference
  double guidance_scale = 1.0;
  EvaluationSpec evaluation;
  uint64_t seed = 0;
};

// The alternatives are in the order of JobKind.
using JobSpec = std::variant<TrainSpec, OptimizeStepsizesSpec, DistillSpec, EvaluateSpec>;

JobKind KindOf(const JobSpec& spec);

// Ranges and what must be set; not whether models, data sets or schedules exist. \error INVALID_ARGUMENT naming the field as "train.batch_size", ...
absl::Status ValidateSpec(const JobSpec& spec);

// JSON with every field; equal specs give equal bytes.
std::string JobSpecToJson(const JobSpec& spec);
// \error DATA_LOSS.
absl::StatusOr<JobSpec> JobSpecFromJson(JobKind kind, std::string_view json);

}  // namespace boss::server
