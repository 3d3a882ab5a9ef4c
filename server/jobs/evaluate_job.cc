#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "server/jobs/job_models.h"
#include "server/jobs/run_job.h"
#include "server/jobs/sampler_evaluation.h"

namespace boss::server {
namespace {

// One version to judge, and the samplers of it.
struct Candidate {
  VersionKey key;
  std::shared_ptr<const VelocityModel> model;
  std::vector<Sampler> samplers;
};

// The version's own schedules of the steps that the spec names.
std::vector<Sampler> OwnSamplers(const Candidate& candidate, const Manifest& manifest, const EvaluateSpec& spec) {
  std::vector<Sampler> samplers;
  for (const NativeSchedule& native : manifest.schedules) {
    const int steps = native.schedule.time_grid.steps();
    if (std::find(spec.steps.begin(), spec.steps.end(), steps) == spec.steps.end()) continue;
    if (FormatGuidance(native.guidance_scale) != FormatGuidance(spec.guidance_scale)) continue;
    for (const Sampler& sampler : NativeSamplers(*candidate.model, candidate.key.ToString(), native)) {
      // Without fitted coefficients multistep has nothing there.
      if (spec.solver == SolverKind::kMultistep && !sampler.solver) continue;
      samplers.push_back(sampler);
    }
  }
  return samplers;
}

// Uniform and Bellman schedules, after those in `samplers`. What the searched sets lack is reported as a message.
// \error FAILED_PRECONDITION if it is required.
absl::StatusOr<std::vector<Sampler>> UsualSamplers(JobContext& context, const Candidate& candidate,
                                                   const EvaluateSpec& spec, std::vector<Sampler> samplers) {
  const std::string version = candidate.key.ToString();
  if (spec.schedules.uniform) {
    for (int steps : spec.steps)
      samplers.push_back({*candidate.model, version, "uniform", "uniform", "", TimeGrid::Uniform(steps)});
  }
  if (!spec.schedules.bellman) return samplers;
  const bool is_multistep = spec.solver == SolverKind::kMultistep;
  const SolverKind searched_for = is_multistep ? SolverKind::kMultistep : SolverKind::kEuler;
  for (int steps : spec.steps) {
    const auto stored = context.store().FindScheduleSet(candidate.key, spec.guidance_scale, searched_for, steps);
    if (!stored.ok()) {
      if (absl::IsNotFound(stored.status()) && !spec.schedules.require_bellman) return samplers;
      return absl::IsNotFound(stored.status()) ? absl::FailedPreconditionError(stored.status().message())
                                               : stored.status();
    }
    const ScheduleSet& set = (*stored)->set;
    const Schedule* const schedule = set.Find(steps);
    if (schedule == nullptr && spec.schedules.require_bellman) {
      return absl::FailedPreconditionError(
          absl::StrCat("steps: got ", steps, ", the schedule set ", (*stored)->Name(), " has those ", StepsText(set)));
    }
    if (schedule == nullptr) {
      BOSS_RETURN_IF_ERROR(
          context.ReportMessage(Severity::kInfo, absl::StrCat("the schedule set ", (*stored)->Name(), " of ", version,
                                                              " has no schedule of ", steps, " steps: no row")));
      continue;
    }
    samplers.push_back({*candidate.model, version, is_multistep ? "multistep" : "bellman", "bellman", (*stored)->Name(),
                        schedule->time_grid, schedule->coefficients});
  }
  return samplers;
}

absl::StatusOr<std::vector<Sampler>> AllSamplers(JobContext& context, const Candidate& candidate,
                                                 const EvaluateSpec& spec) {
  BOSS_ASSIGN_OR_RETURN(const VersionInfo info, context.store().GetVersion(candidate.key));
  std::vector<Sampler> samplers = OwnSamplers(candidate, info.manifest, spec);
  // A version with schedules of its own has no others, unless they are asked for.
  if (samplers.empty() || spec.schedules.more()) {
    BOSS_ASSIGN_OR_RETURN(samplers, UsualSamplers(context, candidate, spec, std::move(samplers)));
    BOSS_ASSIGN_OR_RETURN(const std::vector<Sampler> chosen,
                          ChosenSamplers(context, spec, *candidate.model, candidate.key));
    for (const Sampler& sampler : chosen) samplers.push_back(sampler);
  }
  BOSS_ASSIGN_OR_RETURN(const std::vector<Sampler> others,
                        OtherSolversSamplers(context, spec, *candidate.model, candidate.key));
  for (const Sampler& sampler : others) samplers.push_back(sampler);
  return samplers;
}

}  // namespace

absl::Status RunEvaluateJob(JobContext& context, const EvaluateSpec& spec) {
  context.SetPlan({{JobStage::kPreparing, 0}, {JobStage::kEvaluation, 1}});
  BOSS_RETURN_IF_ERROR(context.EnterStage(JobStage::kPreparing, 1));
  // Each version once, however often it is named: so the baseline's fine samples are recognised.
  std::map<VersionKey, std::shared_ptr<const VelocityModel>> models;
  std::vector<Candidate> candidates;
  int64_t rows = 0;
  for (size_t i = 0; i < context.job().input_versions.size(); ++i) {
    Candidate candidate;
    BOSS_ASSIGN_OR_RETURN(candidate.key, InputVersion(context, i));
    std::shared_ptr<const VelocityModel>& model = models[candidate.key];
    if (model == nullptr) {
      BOSS_ASSIGN_OR_RETURN(model, LoadModelForJob(context, candidate.key));
    }
    candidate.model = model;
    if (i < 1 + spec.other_models.size()) {
      BOSS_ASSIGN_OR_RETURN(candidate.samplers, AllSamplers(context, candidate, spec));
      rows += static_cast<int64_t>(candidate.samplers.size()) + (spec.include_fine ? 1 : 0);
    }
    candidates.push_back(std::move(candidate));
  }
  if (rows == 0) return absl::FailedPreconditionError("there is none of the schedules that are to be judged");
  const Candidate baseline = std::move(candidates.back());
  candidates.pop_back();
  for (const Candidate& candidate : candidates) {
    if (candidate.model->SampleShape() != baseline.model->SampleShape()) {
      return absl::FailedPreconditionError(absl::StrCat(candidate.key.ToString(), " and the baseline ",
                                                        baseline.key.ToString(), " have samples of different shapes"));
    }
  }

  BOSS_RETURN_IF_ERROR(context.EnterStage(JobStage::kEvaluation, rows + 1));
  BOSS_ASSIGN_OR_RETURN(SamplerEvaluation evaluation, SamplerEvaluation::Create(context, spec, *baseline.model,
                                                                                baseline.key, candidates.front().key));
  for (const Candidate& candidate : candidates) {
    if (spec.include_fine)
      BOSS_RETURN_IF_ERROR(evaluation.JudgeFine(*candidate.model, candidate.key.ToString()).status());
    for (const Sampler& sampler : candidate.samplers) BOSS_RETURN_IF_ERROR(evaluation.Judge(sampler).status());
  }
  return absl::OkStatus();
}

}  // namespace boss::server
