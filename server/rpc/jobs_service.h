// boss.v1.Jobs.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "boss/v1/jobs.grpc.pb.h"
#include "server/engine/thread_pool.h"
#include "server/jobs/job_manager.h"
#include "server/rpc/unary_call.h"
#include "server/rpc/watch_reactor.h"

namespace boss::server {

// Thread-safe. What is passed outlives it. A job of somebody else's is one that does not exist, unless the caller is an
// admin.
class JobsService final : public v1::Jobs::CallbackService {
 public:
  JobsService(JobManager& jobs, Access& access, ThreadPool& pool)
      : jobs_(jobs), access_(access), pool_(pool), calls_(access, pool, v1::Jobs::service_full_name()) {}

  grpc::ServerUnaryReactor* TrainJob(grpc::CallbackServerContext* context, const v1::TrainJobRequest* request,
                                     v1::Job* response) override;
  grpc::ServerUnaryReactor* OptimizeStepsizesJob(grpc::CallbackServerContext* context,
                                                 const v1::OptimizeStepsizesJobRequest* request,
                                                 v1::Job* response) override;
  grpc::ServerUnaryReactor* DistillJob(grpc::CallbackServerContext* context, const v1::DistillJobRequest* request,
                                       v1::Job* response) override;
  grpc::ServerUnaryReactor* EvaluateJob(grpc::CallbackServerContext* context, const v1::EvaluateJobRequest* request,
                                        v1::Job* response) override;
  grpc::ServerUnaryReactor* GetJob(grpc::CallbackServerContext* context, const v1::GetJobRequest* request,
                                   v1::Job* response) override;
  grpc::ServerUnaryReactor* ListJobs(grpc::CallbackServerContext* context, const v1::ListJobsRequest* request,
                                     v1::ListJobsResponse* response) override;
  grpc::ServerUnaryReactor* CancelJob(grpc::CallbackServerContext* context, const v1::CancelJobRequest* request,
                                      v1::Job* response) override;
  grpc::ServerUnaryReactor* PauseJob(grpc::CallbackServerContext* context, const v1::PauseJobRequest* request,
                                     v1::Job* response) override;
  grpc::ServerUnaryReactor* ResumeJob(grpc::CallbackServerContext* context, const v1::ResumeJobRequest* request,
                                      v1::Job* response) override;
  grpc::ServerUnaryReactor* DeleteJob(grpc::CallbackServerContext* context, const v1::DeleteJobRequest* request,
                                      google::protobuf::Empty* response) override;
  grpc::ServerWriteReactor<v1::JobEvent>* WatchJob(grpc::CallbackServerContext* context,
                                                   const v1::WatchJobRequest* request) override;

  // Sends the watchers what there is and ends their streams with UNAVAILABLE; they can go on from their last sequence
  // number later.
  void EndWatches() {
    watches_.EndAll(absl::UnavailableError("the server is shutting down; watch again from the next sequence number"));
  }

 private:
  template <typename Request>
  grpc::ServerUnaryReactor* Submit(grpc::CallbackServerContext* context, absl::string_view method,
                                   const Request* request, v1::Job* response);
  // Cancel, Pause, Resume: a call of the manager that takes an id and returns the job.
  template <typename Request, typename Call>
  grpc::ServerUnaryReactor* OnJob(grpc::CallbackServerContext* context, absl::string_view method,
                                  const Request* request, v1::Job* response, Call call);
  // The id of a job that the caller may see. \error INVALID_ARGUMENT for the name; NOT_FOUND.
  absl::StatusOr<std::string> VisibleJob(const std::string& name, const Principal& principal) const;

  JobManager& jobs_;
  Access& access_;
  ThreadPool& pool_;
  const UnaryCalls calls_;
  WatchList watches_;
};

}  // namespace boss::server
