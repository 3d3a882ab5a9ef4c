#include "server/rpc/jobs_service.h"

#include <string>
#include <utility>

#include "core/base/error_details.h"
#include "core/base/status_macros.h"
#include "server/rpc/convert_job.h"
#include "server/rpc/convert_job_spec.h"
#include "server/rpc/unary_call.h"

namespace boss::server {
namespace {

// A slot gets free when a job ends, which takes minutes rather than seconds.
constexpr absl::Duration kFullQueueRetryDelay = absl::Seconds(30);

}  // namespace

template <typename Request>
grpc::ServerUnaryReactor* JobsService::Submit(grpc::CallbackServerContext* context, const Request* request,
                                              v1::Job* response) {
  return RunUnaryCall(context, pool_, [this, request, response]() -> absl::Status {
    if (!request->has_spec()) return FieldError("spec", "is required");
    BOSS_ASSIGN_OR_RETURN(JobSpec spec, JobSpecFromProto(request->spec()));
    BOSS_ASSIGN_OR_RETURN(const SubmitOptions options,
                          SubmitOptionsFromProto(request->options(), request->request_id(), request->validate_only()));
    const absl::StatusOr<Job> job = jobs_.Submit(std::move(spec), options);
    if (absl::IsResourceExhausted(job.status())) {
      return WithReason(WithRetryDelay(job.status(), kFullQueueRetryDelay), "QUEUE_FULL");
    }
    if (!job.ok()) return job.status();
    *response = ToProto(*job);
    return absl::OkStatus();
  });
}

template <typename Request, typename Call>
grpc::ServerUnaryReactor* JobsService::OnJob(grpc::CallbackServerContext* context, const Request* request,
                                             v1::Job* response, Call call) {
  return RunUnaryCall(context, pool_, [request, response, call]() -> absl::Status {
    BOSS_ASSIGN_OR_RETURN(const std::string id, JobIdFromName(request->name()));
    BOSS_ASSIGN_OR_RETURN(const Job job, call(id));
    *response = ToProto(job);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* JobsService::TrainJob(grpc::CallbackServerContext* context,
                                                const v1::TrainJobRequest* request, v1::Job* response) {
  return Submit(context, request, response);
}

grpc::ServerUnaryReactor* JobsService::OptimizeStepsizesJob(grpc::CallbackServerContext* context,
                                                            const v1::OptimizeStepsizesJobRequest* request,
                                                            v1::Job* response) {
  return Submit(context, request, response);
}

grpc::ServerUnaryReactor* JobsService::DistillJob(grpc::CallbackServerContext* context,
                                                  const v1::DistillJobRequest* request, v1::Job* response) {
  return Submit(context, request, response);
}

grpc::ServerUnaryReactor* JobsService::EvaluateJob(grpc::CallbackServerContext* context,
                                                   const v1::EvaluateJobRequest* request, v1::Job* response) {
  return Submit(context, request, response);
}

grpc::ServerUnaryReactor* JobsService::GetJob(grpc::CallbackServerContext* context, const v1::GetJobRequest* request,
                                              v1::Job* response) {
  return RunUnaryCall(context, pool_, [this, request, response]() -> absl::Status {
    BOSS_ASSIGN_OR_RETURN(const std::string id, JobIdFromName(request->name()));
    BOSS_ASSIGN_OR_RETURN(const Job job, jobs_.Get(id));
    *response = ToProto(job);
    response->set_stored_bytes(jobs_.StoredBytes(id));
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* JobsService::CancelJob(grpc::CallbackServerContext* context,
                                                 const v1::CancelJobRequest* request, v1::Job* response) {
  return OnJob(context, request, response, [this](const std::string& id) { return jobs_.Cancel(id); });
}

grpc::ServerUnaryReactor* JobsService::PauseJob(grpc::CallbackServerContext* context,
                                                const v1::PauseJobRequest* request, v1::Job* response) {
  return OnJob(context, request, response, [this](const std::string& id) { return jobs_.Pause(id); });
}

grpc::ServerUnaryReactor* JobsService::ResumeJob(grpc::CallbackServerContext* context,
                                                 const v1::ResumeJobRequest* request, v1::Job* response) {
  return OnJob(context, request, response, [this](const std::string& id) { return jobs_.Resume(id); });
}

grpc::ServerUnaryReactor* JobsService::DeleteJob(grpc::CallbackServerContext* context,
                                                 const v1::DeleteJobRequest* request,
                                                 google::protobuf::Empty* response) {
  return RunUnaryCall(context, pool_, [this, request]() -> absl::Status {
    BOSS_ASSIGN_OR_RETURN(const std::string id, JobIdFromName(request->name()));
    return jobs_.Delete(id);
  });
}

grpc::ServerUnaryReactor* JobsService::ListJobs(grpc::CallbackServerContext* context,
                                                const v1::ListJobsRequest* request, v1::ListJobsResponse* response) {
  return RunUnaryCall(context, pool_, [this, request, response]() -> absl::Status {
    BOSS_ASSIGN_OR_RETURN(const JobPageRequest page_request, JobPageRequestFromProto(*request));
    BOSS_ASSIGN_OR_RETURN(const JobPage page, jobs_.List(page_request));
    for (const Job& job : page.jobs) *response->add_jobs() = ToProto(job);
    response->set_next_page_token(page.next_page_token);
    return absl::OkStatus();
  });
}

grpc::ServerWriteReactor<v1::JobEvent>* JobsService::WatchJob(grpc::CallbackServerContext* context,
                                                              const v1::WatchJobRequest* request) {
  return WatchReactor::Start(jobs_, pool_, watches_, *request);
}

}  // namespace boss::server
