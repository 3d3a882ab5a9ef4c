// Rows of an evaluation table, all on the same noises.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/evaluate/features.h"
#include "core/evaluate/frechet.h"
#include "core/flow/velocity_model.h"
#include "server/jobs/job_context.h"
#include "server/jobs/noise_source.h"

namespace boss::server {

// A model and how it is sampled.
struct Sampler {
  const VelocityModel& model;
  std::string version;  // "name@version"; empty for one that is not published yet
  std::string label;
  std::string schedule;  // "uniform", "bellman", "named" or "explicit"
  std::string schedule_set;
  TimeGrid time_grid;
  // Of a multistep schedule. Empty where the solver is multistep: those of Adams and Bashforth of order 2.
  std::vector<StepCoefficients> coefficients = {};
  std::optional<SolverKind> solver = {};  // absent: the spec's
};

// Of a version with its own schedule, which may not be published yet: the spec's solver on its times and, if
// coefficients were fitted on them, multistep.
std::vector<Sampler> NativeSamplers(const VelocityModel& model, const std::string& version,
                                    const NativeSchedule& native);

// The samplers of spec.other_solvers. That the version has no multistep schedules, or none of some of spec.steps, is
// reported as a message.
absl::StatusOr<std::vector<Sampler>> OtherSolversSamplers(JobContext& context, const EvaluateSpec& spec,
                                                          const VelocityModel& model, const VersionKey& version);

// The samplers of the sets and the times that the spec asks for beside uniform and Bellman steps. Of a set, the
// schedules of spec.steps, with the spec's solver, or with multistep if the set is for it; what it has none of, or what
// the version lacks though the spec names it, is reported as a message.
absl::StatusOr<std::vector<Sampler>> ChosenSamplers(JobContext& context, const EvaluateSpec& spec,
                                                    const VelocityModel& model, const VersionKey& version);

// \error RESOURCE_EXHAUSTED if the host's memory cannot hold the samples of two samplers, which are compared.
absl::Status CheckSampleMemory(const EvaluateSpec& spec, const std::vector<int64_t>& sample_shape);

// Weight of a row of `steps` solver steps in a plan.
double RowWeight(const EvaluateSpec& spec, int steps);

// Used between EnterStage(kEvaluation, rows + 1) and the next stage: the baseline's samples are one unit, each row
// another one. A row that an earlier run of the job reported is not judged again.
class SamplerEvaluation {
 public:
  // Reads the reference data set, if there is one.
  // `features_version`: the version whose classifier is used where the spec names no feature network. Keeps references
  // to all but the strings. \error FAILED_PRECONDITION if a reference data set is named and there are no features, or
  // it has another shape than the samples.
  static absl::StatusOr<SamplerEvaluation> Create(JobContext& context, const EvaluateSpec& spec,
                                                  const VelocityModel& baseline, const VersionKey& baseline_version,
                                                  const VersionKey& features_version);

  // Judges a sampler and reports the row.
  absl::StatusOr<EvaluationRow> Judge(const Sampler& sampler);
  // The row of `model`'s fine Euler sampler. For the baseline itself nothing is drawn again.
  absl::StatusOr<EvaluationRow> JudgeFine(const VelocityModel& model, const std::string& version);

 private:
  struct Drawn {
    at::Tensor samples;  // [N, ...] on the CPU
    double seconds = 0;
  };

  SamplerEvaluation(JobContext& context, const EvaluateSpec& spec, const VelocityModel& baseline,
                    std::string baseline_version, NoiseSource noises)
      : context_(&context),
        spec_(&spec),
        baseline_(&baseline),
        baseline_version_(std::move(baseline_version)),
        noises_(std::move(noises)) {}

  // The row that an earlier run reported for this sampler.
  std::optional<EvaluationRow> Reported(const Sampler& sampler, SolverKind solver) const;
  // Draws the baseline's fine samples and computes the reference's features, unless it has.
  absl::Status Prepare();
  absl::Status LoadReference(const VersionKey& features_version);
  absl::StatusOr<Drawn> Draw(const Sampler& sampler, SolverKind solver);
  absl::StatusOr<double> MeasureStraightness(const VelocityModel& model);
  absl::StatusOr<EvaluationRow> Score(const Sampler& sampler, SolverKind solver, const Drawn& drawn);

  JobContext* context_;
  const EvaluateSpec* spec_;
  const VelocityModel* baseline_;
  std::string baseline_version_;
  NoiseSource noises_;
  std::unique_ptr<FeatureNetwork> features_;  // null: no Frechet distance
  at::Tensor reference_images_;
  std::optional<FeatureStatistics> reference_;
  Drawn fine_;  // undefined samples: not drawn yet
};

}  // namespace boss::server
