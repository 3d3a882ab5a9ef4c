#include "core/base/status_macros.h"
#include "server/jobs/job_models.h"
#include "server/jobs/run_job.h"
#include "server/jobs/stepsize_search.h"

namespace boss::server {

absl::Status RunOptimizeStepsizesJob(JobContext& context, const OptimizeStepsizesSpec& spec) {
  context.SetPlan({{JobStage::kPreparing, 0},
                   {JobStage::kTrajectories, SearchWeight(spec)},
                   {JobStage::kCostMatrix, 0},
                   {JobStage::kSchedule, ScheduleWeight(spec)}});
  BOSS_RETURN_IF_ERROR(context.EnterStage(JobStage::kPreparing, 1));
  BOSS_ASSIGN_OR_RETURN(const VersionKey key, InputVersion(context, 0));
  BOSS_ASSIGN_OR_RETURN(const std::shared_ptr<const VelocityModel> model, LoadModelForJob(context, key));
  BOSS_ASSIGN_OR_RETURN(const auto set, SearchSchedules(context, *model, key, spec));
  return context.ReportSchedule(set->Name(), key, std::nullopt);
}

}  // namespace boss::server
