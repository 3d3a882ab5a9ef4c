#include "server/jobs/sampler_evaluation.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"
#include "core/evaluate/sample_quality.h"
#include "core/flow/multistep.h"
#include "core/io/image_dataset.h"
#include "core/solver/record_trajectory.h"
#include "core/solver/solver.h"
#include "server/device/host_memory.h"

namespace boss::server {
namespace {

constexpr int64_t kDefaultBatch = 64, kFeatureBatch = 256;
constexpr int64_t kStraightnessSamples = 64;
constexpr char kDefaultReference[] = "fashion-mnist-test";

int64_t EvaluationsPerSolverStep(SolverKind solver) { return solver == SolverKind::kHeun ? 2 : 1; }

}  // namespace

absl::StatusOr<std::vector<Sampler>> ChosenSamplers(JobContext& context, const EvaluateSpec& spec,
                                                    const VelocityModel& model, const VersionKey& version) {
  BOSS_ASSIGN_OR_RETURN(const auto sets, context.store().ListScheduleSets(version));
  std::vector<std::string> names = spec.schedules.sets;
  if (spec.schedules.named) {
    for (const auto& stored : sets) {
      const bool is_new = std::find(names.begin(), names.end(), stored->Name()) == names.end();
      if (is_new && !stored->client_name.empty()) names.push_back(stored->Name());
    }
  }
  std::vector<Sampler> samplers;
  for (const std::string& name : names) {
    const auto found =
        std::find_if(sets.begin(), sets.end(), [&](const auto& stored) { return stored->Name() == name; });
    if (found == sets.end()) {
      BOSS_RETURN_IF_ERROR(context.ReportMessage(
          Severity::kWarning, absl::StrCat(version.ToString(), " has no schedule set ", name, ": it gets no rows")));
      continue;
    }
    // Coefficients are multistep's, and the spec need not say so.
    const bool is_multistep = (*found)->set.solver == SolverKind::kMultistep;
    const SolverKind solver = is_multistep ? SolverKind::kMultistep : spec.solver;
    for (const std::string& mismatch : Mismatches(**found, solver, spec.guidance_scale))
      BOSS_RETURN_IF_ERROR(context.ReportMessage(Severity::kWarning, mismatch));
    for (int steps : spec.steps) {
      const Schedule* const schedule = (*found)->set.Find(steps);
      if (schedule != nullptr) {
        samplers.push_back(
            {model, version.ToString(), name, "named", name, schedule->time_grid, schedule->coefficients, solver});
        continue;
      }
      BOSS_RETURN_IF_ERROR(context.ReportMessage(
          Severity::kInfo, absl::StrCat("the schedule set ", name, " has no schedule of ", steps, " steps: no row")));
    }
  }
  const std::vector<std::vector<double>>& grids = spec.schedules.time_grids;
  for (size_t i = 0; i < grids.size(); ++i) {
    BOSS_ASSIGN_OR_RETURN(TimeGrid time_grid, TimeGrid::Create(grids[i]));
    const std::string label = grids.size() == 1 ? "explicit" : absl::StrCat("explicit ", i + 1);
    samplers.push_back({model, version.ToString(), label, "explicit", "", std::move(time_grid)});
  }
  return samplers;
}

std::vector<Sampler> NativeSamplers(const VelocityModel& model, const std::string& version,
                                    const NativeSchedule& native) {
  const Schedule& schedule = native.schedule;
  const char* const label = native.kind == "uniform" ? "reflow" : "straightened";
  std::vector<Sampler> samplers;
  samplers.push_back({model, version, label, native.kind, "", schedule.time_grid});
  if (schedule.solver == SolverKind::kMultistep) {
    samplers.push_back({model, version, absl::StrCat(label, "-multistep"), native.kind, "", schedule.time_grid,
                        schedule.coefficients, SolverKind::kMultistep});
  }
  return samplers;
}

absl::StatusOr<std::vector<Sampler>> OtherSolversSamplers(JobContext& context, const EvaluateSpec& spec,
                                                          const VelocityModel& model, const VersionKey& version) {
  std::vector<Sampler> samplers;
  for (const SolverKind solver : spec.other_solvers) {
    if (solver == SolverKind::kHeun) {
      for (const int steps : spec.steps) {
        if (steps % 2 != 0) continue;
        samplers.push_back(
            {model, version.ToString(), "heun", "uniform", "", TimeGrid::Uniform(steps / 2), {}, solver});
      }
      continue;
    }
    std::vector<int> missing;
    std::string what_there_is;
    for (const int steps : spec.steps) {
      const auto stored = context.store().FindScheduleSet(version, spec.guidance_scale, solver, steps);
      if (absl::IsNotFound(stored.status())) {
        BOSS_RETURN_IF_ERROR(context.ReportMessage(Severity::kInfo, std::string(stored.status().message())));
        break;
      }
      BOSS_RETURN_IF_ERROR(stored.status());
      const Schedule* const schedule = (*stored)->set.Find(steps);
      if (schedule == nullptr) {
        missing.push_back(steps);
        what_there_is = absl::StrCat((*stored)->Name(), " has those ", StepsText((*stored)->set));
        continue;
      }
      samplers.push_back({model, version.ToString(), "multistep", "bellman", (*stored)->Name(), schedule->time_grid,
                          schedule->coefficients, solver});
    }
    if (!missing.empty()) {
      BOSS_RETURN_IF_ERROR(context.ReportMessage(
          Severity::kInfo, absl::StrCat("multistep has no schedule of ", absl::StrJoin(missing, ", "),
                                        " steps, the schedule set ", what_there_is, ": no row")));
    }
  }
  return samplers;
}

double RowWeight(const EvaluateSpec& spec, int steps) { return static_cast<double>(spec.num_samples) * steps; }

absl::Status CheckSampleMemory(const EvaluateSpec& spec, const std::vector<int64_t>& sample_shape) {
  double bytes = 2.0 * sizeof(float) * static_cast<double>(spec.num_samples);
  for (const int64_t size : sample_shape) bytes *= static_cast<double>(size);
  return CheckHostMemory(absl::StrCat(spec.num_samples, " samples and as many to compare them with"), bytes);
}

absl::StatusOr<SamplerEvaluation> SamplerEvaluation::Create(JobContext& context, const EvaluateSpec& spec,
                                                            const VelocityModel& baseline,
                                                            const VersionKey& baseline_version,
                                                            const VersionKey& features_version) {
  BOSS_RETURN_IF_ERROR(CheckSampleMemory(spec, baseline.SampleShape()));
  BOSS_ASSIGN_OR_RETURN(NoiseSource noises, NoiseSource::Create(baseline, NoiseUse::kEvaluation, spec.seed,
                                                                spec.guidance_scale, spec.unconditional));
  SamplerEvaluation evaluation(context, spec, baseline, baseline_version.ToString(), std::move(noises));
  BOSS_RETURN_IF_ERROR(evaluation.LoadReference(features_version));
  return evaluation;
}

std::optional<EvaluationRow> SamplerEvaluation::Reported(const Sampler& sampler, SolverKind solver) const {
  for (const EvaluationRow& row : context_->job().result.evaluation) {
    // What this job published has its version since.
    const bool same_version =
        row.version == sampler.version || (sampler.version.empty() && row.version == context_->job().output_version);
    if (same_version && row.label == sampler.label && row.steps == sampler.time_grid.steps() &&
        row.schedule == sampler.schedule && row.schedule_set == sampler.schedule_set && row.solver == solver)
      return row;
  }
  return std::nullopt;
}

absl::Status SamplerEvaluation::Prepare() {
  if (fine_.samples.defined()) return absl::OkStatus();
  if (features_ != nullptr) {
    BOSS_ASSIGN_OR_RETURN(reference_, ComputeStatistics(*features_, reference_images_, kFeatureBatch, *context_));
  }
  const Sampler fine{*baseline_, baseline_version_, "", "", "", FineGridOf(*spec_)};
  BOSS_ASSIGN_OR_RETURN(fine_, Draw(fine, SolverKind::kEuler));
  return absl::OkStatus();
}

absl::Status SamplerEvaluation::LoadReference(const VersionKey& features_version) {
  const bool required = spec_->reference_dataset.has_value();
  const std::string source = spec_->reference_dataset.value_or(kDefaultReference);
  if (source.empty()) return absl::OkStatus();

  std::unique_ptr<FeatureNetwork> features;
  if (!spec_->feature_network.empty()) {
    const auto path = context_->options().feature_networks.find(spec_->feature_network);
    if (path == context_->options().feature_networks.end()) {
      return absl::FailedPreconditionError(
          absl::StrCat("feature_network: the server has none of the name ", spec_->feature_network));
    }
    BOSS_ASSIGN_OR_RETURN(features, LoadTorchScriptFeatures(path->second));
  } else {
    const absl::StatusOr<std::string> classifier = context_->store().AuxiliaryFile(features_version, kClassifierFile);
    if (absl::IsNotFound(classifier.status())) {
      if (!required) return absl::OkStatus();
      return absl::FailedPreconditionError(absl::StrCat("reference_dataset: there is no ", kClassifierFile, " beside ",
                                                        features_version.ToString(),
                                                        ", and no feature_network is named"));
    }
    BOSS_RETURN_IF_ERROR(classifier.status());
    BOSS_ASSIGN_OR_RETURN(features, LoadClassifierFeatures(*classifier));
  }
  const absl::StatusOr<ImageDataset> data = OpenDataset(source);
  if (!data.ok()) return required ? data.status() : absl::OkStatus();
  const std::vector<int64_t> shape = baseline_->SampleShape();
  if (data->size() == 0 || data->images[0].sizes() != at::IntArrayRef(shape)) {
    if (!required) return absl::OkStatus();
    return absl::FailedPreconditionError(absl::StrCat("reference_dataset: it has ", data->size(), " pictures [",
                                                      absl::StrJoin(data->images.sizes().slice(1), ", "),
                                                      "], the samples are [", absl::StrJoin(shape, ", "), "]"));
  }
  BOSS_ASSIGN_OR_RETURN(reference_images_,
                        GuardTorch("reference data set", [&] { return ToModelRange(data->images); }));
  features_ = std::move(features);
  return absl::OkStatus();
}

absl::StatusOr<SamplerEvaluation::Drawn> SamplerEvaluation::Draw(const Sampler& sampler, SolverKind solver) {
  const int64_t batch_size = spec_->batch_size > 0 ? spec_->batch_size : kDefaultBatch;
  const int64_t batches = (spec_->num_samples + batch_size - 1) / batch_size;
  const double units = 1.0 / static_cast<double>(batches * sampler.time_grid.steps());
  SolverOptions options;
  options.solver = solver;
  options.time_grid = sampler.time_grid;
  if (solver == SolverKind::kMultistep) {
    options.coefficients = sampler.coefficients.empty() ? AdamsBashforth(sampler.time_grid, 2) : sampler.coefficients;
  }
  Drawn drawn;
  for (int64_t first = 0; first < spec_->num_samples; first += batch_size) {
    const int64_t count = std::min(batch_size, spec_->num_samples - first);
    const NoiseBatch batch = noises_.Draw(first, count);
    CountingExecutor counting(*context_, units,
                              count * noises_.evaluations_per_step() * EvaluationsPerSolverStep(solver));
    const absl::Time start = context_->clock().Now();
    BOSS_ASSIGN_OR_RETURN(const at::Tensor samples,
                          Solve(sampler.model, batch.noise, batch.condition, options, count, counting));
    drawn.seconds += absl::ToDoubleSeconds(context_->clock().Now() - start);
    BOSS_RETURN_IF_ERROR(GuardTorch("samples", [&]() -> absl::Status {
      std::vector<int64_t> shape = samples.sizes().vec();
      shape[0] = spec_->num_samples;
      if (!drawn.samples.defined()) drawn.samples = at::empty(shape, samples.options().device(at::kCPU));
      drawn.samples.slice(0, first, first + count).copy_(samples);
      return absl::OkStatus();
    }));
  }
  return drawn;
}

absl::StatusOr<double> SamplerEvaluation::MeasureStraightness(const VelocityModel& model) {
  const int64_t total = std::min(spec_->num_samples, kStraightnessSamples);
  const int64_t batch_size = std::min(TrajectoryBatchSize(0, model.SampleShape(), spec_->k_max), total);
  double sum = 0;
  for (int64_t first = 0; first < total; first += batch_size) {
    const int64_t count = std::min(batch_size, total - first);
    const NoiseBatch batch = noises_.Draw(first, count);
    CountingExecutor counting(*context_, 0, count * noises_.evaluations_per_step());
    BOSS_ASSIGN_OR_RETURN(const Trajectory trajectory,
                          RecordTrajectory(model, batch.noise, batch.condition, FineGridOf(*spec_), counting));
    BOSS_ASSIGN_OR_RETURN(const double mean, GuardTorch("straightness", [&] { return Straightness(trajectory); }));
    sum += mean * static_cast<double>(count);
  }
  return sum / static_cast<double>(total);
}

absl::StatusOr<EvaluationRow> SamplerEvaluation::Score(const Sampler& sampler, SolverKind solver, const Drawn& drawn) {
  EvaluationRow row;
  row.label = sampler.label;
  row.version = sampler.version;
  row.steps = sampler.time_grid.steps();
  row.schedule = sampler.schedule;
  row.schedule_set = sampler.schedule_set;
  row.solver = solver;
  row.guidance_scale = spec_->guidance_scale;
  row.nfe = row.steps * noises_.evaluations_per_step() * EvaluationsPerSolverStep(solver);
  row.num_samples = spec_->num_samples;
  row.samples_per_second = drawn.seconds > 0 ? static_cast<double>(spec_->num_samples) / drawn.seconds : 0;
  row.baseline = baseline_version_;
  row.baseline_steps = spec_->k_max;
  BOSS_ASSIGN_OR_RETURN(row.trajectory_error,
                        GuardTorch("trajectory error", [&] { return TrajectoryError(drawn.samples, fine_.samples); }));
  if (features_ != nullptr && spec_->num_samples >= 2) {
    const absl::StatusOr<FeatureStatistics> statistics =
        ComputeStatistics(*features_, drawn.samples, kFeatureBatch, *context_);
    if (absl::IsInvalidArgument(statistics.status())) {
      // A sampler that diverges has no distance; the others have, and a student is published with them.
      BOSS_RETURN_IF_ERROR(context_->ReportMessage(
          Severity::kWarning, absl::StrCat(row.label, ", ", row.steps, " steps, has no Frechet distance: ",
                                           statistics.status().message())));
    } else {
      BOSS_RETURN_IF_ERROR(statistics.status());
      BOSS_ASSIGN_OR_RETURN(row.frechet_distance, FrechetDistance(*statistics, *reference_));
      row.features = features_->Description();
    }
  }
  if (spec_->measure_straightness) {
    BOSS_ASSIGN_OR_RETURN(row.straightness, MeasureStraightness(sampler.model));
  }
  BOSS_RETURN_IF_ERROR(context_->ReportRow(row));
  BOSS_RETURN_IF_ERROR(context_->ReportSaved());
  return row;
}

absl::StatusOr<EvaluationRow> SamplerEvaluation::Judge(const Sampler& sampler) {
  const SolverKind solver = sampler.solver.value_or(spec_->solver);
  if (const std::optional<EvaluationRow> row = Reported(sampler, solver)) {
    BOSS_RETURN_IF_ERROR(context_->Advance(1, 0));
    return *row;
  }
  BOSS_RETURN_IF_ERROR(Prepare());
  BOSS_ASSIGN_OR_RETURN(const Drawn drawn, Draw(sampler, solver));
  return Score(sampler, solver, drawn);
}

absl::StatusOr<EvaluationRow> SamplerEvaluation::JudgeFine(const VelocityModel& model, const std::string& version) {
  const Sampler sampler{model, version,           "fine", spec_->fine_time_grid.empty() ? "uniform" : "explicit",
                        "",    FineGridOf(*spec_)};
  if (const std::optional<EvaluationRow> row = Reported(sampler, SolverKind::kEuler)) {
    BOSS_RETURN_IF_ERROR(context_->Advance(1, 0));
    return *row;
  }
  BOSS_RETURN_IF_ERROR(Prepare());
  if (&model != baseline_) {
    BOSS_ASSIGN_OR_RETURN(const Drawn drawn, Draw(sampler, SolverKind::kEuler));
    return Score(sampler, SolverKind::kEuler, drawn);
  }
  BOSS_RETURN_IF_ERROR(context_->Advance(1, 0));
  return Score(sampler, SolverKind::kEuler, fine_);
}

}  // namespace boss::server
