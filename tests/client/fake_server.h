// A server of the three services in this process, on a port of its own, whose answers the test chooses.
#pragma once

#include <grpcpp/ext/health_check_service_server_builder_option.h>
#include <grpcpp/grpcpp.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "boss/v1/jobs.grpc.pb.h"
#include "boss/v1/models.grpc.pb.h"
#include "boss/v1/sampling.grpc.pb.h"
#include "client/boss_client.h"

namespace boss::client {

// What one call of a stream does: it sends `count` messages from where it was asked to start (all that there are, if
// negative), then fails with `status`, or ends if that is OK.
struct StreamScript {
  int count = -1;
  grpc::Status status = grpc::Status::OK;
};

// The fields are set before a call and read after it.
class FakeJobs final : public boss::v1::Jobs::Service {
 public:
  grpc::Status DistillJob(grpc::ServerContext*, const boss::v1::DistillJobRequest* request,
                          boss::v1::Job* job) override;
  grpc::Status OptimizeStepsizesJob(grpc::ServerContext*, const boss::v1::OptimizeStepsizesJobRequest* request,
                                    boss::v1::Job* job) override;
  grpc::Status EvaluateJob(grpc::ServerContext*, const boss::v1::EvaluateJobRequest* request,
                           boss::v1::Job* job) override;
  grpc::Status GetJob(grpc::ServerContext* context, const boss::v1::GetJobRequest* request,
                      boss::v1::Job* job) override;
  grpc::Status DeleteJob(grpc::ServerContext*, const boss::v1::DeleteJobRequest* request,
                         google::protobuf::Empty*) override;
  grpc::Status ListJobs(grpc::ServerContext*, const boss::v1::ListJobsRequest* request,
                        boss::v1::ListJobsResponse* response) override;
  grpc::Status WatchJob(grpc::ServerContext* context, const boss::v1::WatchJobRequest* request,
                        grpc::ServerWriter<boss::v1::JobEvent>* writer) override;

  boss::v1::Job job;                        // what GetJob and the submissions return
  std::vector<boss::v1::JobEvent> events;   // of that job
  std::vector<StreamScript> watch_scripts;  // one for each WatchJob call; afterwards calls send all
  bool replay_one_before = false;           // WatchJob starts one event too early
  grpc::Status get_status = grpc::Status::OK;
  int failing_gets = 0;  // so many GetJob calls fail with get_status; negative: all
  int list_total = 0;    // jobs that ListJobs has: `job` under other names

  std::vector<int64_t> watched_from;
  std::vector<std::string> request_ids;
  boss::v1::DistillJobRequest distilled;
  boss::v1::EvaluateJobRequest evaluated;
  boss::v1::OptimizeStepsizesJobRequest optimized;
  int gets = 0;
  std::string trace_parent;                   // of the latest GetJob; empty: it had none
  std::vector<grpc::Status> delete_statuses;  // of one DeleteJob after another; then OK
  bool hang = false;  // WatchJob sends its events and waits until it is cancelled
};

class FakeModels final : public boss::v1::Models::Service {
 public:
  grpc::Status GetModel(grpc::ServerContext*, const boss::v1::GetModelRequest* request,
                        boss::v1::Model* model) override;
  grpc::Status ListModels(grpc::ServerContext*, const boss::v1::ListModelsRequest* request,
                          boss::v1::ListModelsResponse* response) override;
  grpc::Status ImportModel(grpc::ServerContext*, grpc::ServerReader<boss::v1::ImportModelRequest>* reader,
                           boss::v1::ImportModelResponse* response) override;
  grpc::Status ExportModel(grpc::ServerContext*, const boss::v1::ExportModelRequest* request,
                           grpc::ServerWriter<boss::v1::ExportModelResponse>* writer) override;
  grpc::Status GetSchedule(grpc::ServerContext*, const boss::v1::GetScheduleRequest* request,
                           boss::v1::ScheduleSet* set) override;
  grpc::Status ListSchedules(grpc::ServerContext*, const boss::v1::ListSchedulesRequest* request,
                             boss::v1::ListSchedulesResponse* response) override;
  grpc::Status ImportSchedule(grpc::ServerContext*, const boss::v1::ImportScheduleRequest* request,
                              boss::v1::ScheduleSet* set) override;
  grpc::Status DeleteSchedule(grpc::ServerContext*, const boss::v1::DeleteScheduleRequest* request,
                              google::protobuf::Empty*) override;
  grpc::Status MergeAdapter(grpc::ServerContext*, const boss::v1::MergeAdapterRequest* request,
                            boss::v1::ModelVersion* version) override;
  grpc::Status DeleteVersion(grpc::ServerContext*, const boss::v1::DeleteVersionRequest* request,
                             google::protobuf::Empty*) override;
  grpc::Status GetCapabilities(grpc::ServerContext*, const boss::v1::GetCapabilitiesRequest*,
                               boss::v1::Capabilities* capabilities) override;

  boss::v1::Model model;
  boss::v1::ScheduleSet schedules;  // what GetSchedule returns, with the schedule of the steps that are asked for
  // Sets of one schedule without a name, which it returns instead for their steps and solver if no name is asked for.
  std::vector<boss::v1::ScheduleSet> own_schedules;
  std::vector<boss::v1::ScheduleSet> listed_schedules;
  grpc::Status schedule_status = grpc::Status::OK;  // of GetSchedule
  boss::v1::GetScheduleRequest schedule_request;
  boss::v1::ImportScheduleRequest imported_schedule;
  boss::v1::DeleteScheduleRequest deleted_schedule;
  boss::v1::MergeAdapterRequest merged;
  grpc::Status merge_status = grpc::Status::OK;
  int merges = 0;
  std::vector<grpc::Status> delete_statuses;  // of one DeleteVersion or DeleteSchedule after another; then OK
  std::string list_filter;
  std::string file;                          // what ExportModel sends, and what ImportModel has got
  std::string sha256;                        // that ExportModel states
  bool corrupt_chunk = false;                // ExportModel's second chunk does not have its checksum
  std::vector<StreamScript> export_scripts;  // one for each ExportModel call, counted in chunks
  std::vector<StreamScript> import_scripts;  // one for each ImportModel call that is no query: after so many chunks
  std::string import_warning;                // empty: none
  boss::v1::ImportStart import_start;        // of the latest such call
  std::vector<boss::v1::ImportStart> import_queries;
  int import_calls = 0;                 // that were no queries
  std::vector<int64_t> import_offsets;  // of the first chunk of each call that had one
  std::vector<int64_t> export_offsets;
};

class FakeSampler final : public boss::v1::Sampler::Service {
 public:
  grpc::Status Generate(grpc::ServerContext*, const boss::v1::GenerateRequest* request,
                        grpc::ServerWriter<boss::v1::GenerateResponse>* writer) override;

  boss::v1::GenerateRequest request;  // the latest
  grpc::Status status = grpc::Status::OK;
  int failing_calls = 0;  // so many calls fail with `status` before their first message; negative: all
  bool reverse = false;   // samples in falling order
  bool leave_out_last = false;
  int calls = 0;
};

class FakeServer {
 public:
  FakeServer();
  ~FakeServer();

  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  // Retries do not wait; `waits` tells how long they would have.
  ClientOptions client_options();
  grpc::HealthCheckServiceInterface& health() { return *server_->GetHealthCheckService(); }

  FakeJobs jobs;
  FakeModels models;
  FakeSampler sampler;
  std::vector<absl::Duration> waits;

 private:
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

// ---- Contents ----

// n events: QUEUED to RUNNING first, metrics in between, `last` at the end.
std::vector<boss::v1::JobEvent> MakeEvents(int n, boss::v1::Job::State last);
// A job that distilled to K = 4 and was evaluated at two numbers of steps.
boss::v1::Job MakeDistillJob();
// k_max 8, schedules of every K, costs (j - i)^3 / 512.
boss::v1::ScheduleSet MakeScheduleSet();

}  // namespace boss::client
