#include "server/rpc/jobs_service.h"

#include <string>
#include <utility>

#include "core/base/error_details.h"
#include "core/base/status_macros.h"
#include "server/rpc/call_metadata.h"
#include "server/rpc/convert_job.h"
#include "server/rpc/convert_job_spec.h"
#include "server/rpc/refusal.h"

namespace boss::server {
namespace {

// A slot gets free when a job ends, which takes minutes rather than seconds.
constexpr absl::Duration kFullQueueRetryDelay = absl::Seconds(30);

}  // namespace

template <typename Request>
grpc::ServerUnaryReactor* JobsService::Submit(grpc::CallbackServerContext* context, absl::string_view method,
                                              const Request* request, v1::Job* response) {
  return calls_.Run(context, method, [this, context, request, response](const Principal& principal) -> absl::Status {
    if (!request->has_spec()) return FieldError("spec", "is required");
    BOSS_ASSIGN_OR_RETURN(JobSpec spec, JobSpecFromProto(request->spec()));
    BOSS_ASSIGN_OR_RETURN(SubmitOptions options,
                          SubmitOptionsFromProto(request->options(), request->request_id(), request->validate_only()));
    options.owner = principal.name;
    options.call = CallIdOf(*context);
    options.max_unfinished_of_owner = principal.max_unfinished_jobs;
    const absl::StatusOr<Job> job = jobs_.Submit(std::move(spec), options);
    if (ReasonOf(job.status()) == kJobQuotaReason) {
      access_.CountRefusal(Access::Refusal::kQuota);
      return WithRetryDelay(job.status(), kFullQueueRetryDelay);
    }
    if (absl::IsResourceExhausted(job.status())) {
      return WithReason(WithRetryDelay(job.status(), kFullQueueRetryDelay), "QUEUE_FULL");
    }
    if (!job.ok()) return job.status();
    *response = ToProto(*job);
    return absl::OkStatus();
  });
}

absl::StatusOr<std::string> JobsService::VisibleJob(const std::string& name, const Principal& principal) const {
  BOSS_ASSIGN_OR_RETURN(std::string id, JobIdFromName(name));
  if (!principal.is_admin) BOSS_RETURN_IF_ERROR(jobs_.CheckOwner(id, principal.name));
  return id;
}

template <typename Request, typename Call>
grpc::ServerUnaryReactor* JobsService::OnJob(grpc::CallbackServerContext* context, absl::string_view method,
                                             const Request* request, v1::Job* response, Call call) {
  return calls_.Run(context, method, [this, request, response, call](const Principal& principal) -> absl::Status {
    BOSS_ASSIGN_OR_RETURN(const std::string id, VisibleJob(request->name(), principal));
    BOSS_ASSIGN_OR_RETURN(const Job job, call(id));
    *response = ToProto(job);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* JobsService::TrainJob(grpc::CallbackServerContext* context,
                                                const v1::TrainJobRequest* request, v1::Job* response) {
  return Submit(context, "TrainJob", request, response);
}

grpc::ServerUnaryReactor* JobsService::OptimizeStepsizesJob(grpc::CallbackServerContext* context,
                                                            const v1::OptimizeStepsizesJobRequest* request,
                                                            v1::Job* response) {
  return Submit(context, "OptimizeStepsizesJob", request, response);
}

grpc::ServerUnaryReactor* JobsService::DistillJob(grpc::CallbackServerContext* context,
                                                  const v1::DistillJobRequest* request, v1::Job* response) {
  return Submit(context, "DistillJob", request, response);
}

grpc::ServerUnaryReactor* JobsService::EvaluateJob(grpc::CallbackServerContext* context,
                                                   const v1::EvaluateJobRequest* request, v1::Job* response) {
  return Submit(context, "EvaluateJob", request, response);
}

grpc::ServerUnaryReactor* JobsService::GetJob(grpc::CallbackServerContext* context, const v1::GetJobRequest* request,
                                              v1::Job* response) {
  return calls_.Run(context, "GetJob", [this, request, response](const Principal& principal) -> absl::Status {
    BOSS_ASSIGN_OR_RETURN(const std::string id, VisibleJob(request->name(), principal));
    BOSS_ASSIGN_OR_RETURN(const Job job, jobs_.Get(id));
    *response = ToProto(job);
    response->set_stored_bytes(jobs_.StoredBytes(id));
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* JobsService::CancelJob(grpc::CallbackServerContext* context,
                                                 const v1::CancelJobRequest* request, v1::Job* response) {
  return OnJob(context, "CancelJob", request, response, [this](const std::string& id) { return jobs_.Cancel(id); });
}

grpc::ServerUnaryReactor* JobsService::PauseJob(grpc::CallbackServerContext* context,
                                                const v1::PauseJobRequest* request, v1::Job* response) {
  return OnJob(context, "PauseJob", request, response, [this](const std::string& id) { return jobs_.Pause(id); });
}

grpc::ServerUnaryReactor* JobsService::ResumeJob(grpc::CallbackServerContext* context,
                                                 const v1::ResumeJobRequest* request, v1::Job* response) {
  return OnJob(context, "ResumeJob", request, response, [this](const std::string& id) { return jobs_.Resume(id); });
}

grpc::ServerUnaryReactor* JobsService::DeleteJob(grpc::CallbackServerContext* context,
                                                 const v1::DeleteJobRequest* request,
                                                 google::protobuf::Empty* response) {
  return calls_.Run(context, "DeleteJob", [this, request](const Principal& principal) -> absl::Status {
    BOSS_ASSIGN_OR_RETURN(const std::string id, VisibleJob(request->name(), principal));
    return jobs_.Delete(id);
  });
}

grpc::ServerUnaryReactor* JobsService::ListJobs(grpc::CallbackServerContext* context,
                                                const v1::ListJobsRequest* request, v1::ListJobsResponse* response) {
  return calls_.Run(context, "ListJobs", [this, request, response](const Principal& principal) -> absl::Status {
    BOSS_ASSIGN_OR_RETURN(JobPageRequest page_request, JobPageRequestFromProto(*request));
    if (!principal.is_admin) page_request.viewer = principal.name;
    BOSS_ASSIGN_OR_RETURN(const JobPage page, jobs_.List(page_request));
    for (const Job& job : page.jobs) *response->add_jobs() = ToProto(job);
    response->set_next_page_token(page.next_page_token);
    return absl::OkStatus();
  });
}

grpc::ServerWriteReactor<v1::JobEvent>* JobsService::WatchJob(grpc::CallbackServerContext* context,
                                                              const v1::WatchJobRequest* request) {
  absl::StatusOr<Admission> admission = calls_.Admit(*context, "WatchJob");
  if (!admission.ok()) return new Refusal<grpc::ServerWriteReactor<v1::JobEvent>>(admission.status());
  return WatchReactor::Start(jobs_, *std::move(admission), pool_, watches_, *request);
}

}  // namespace boss::server
