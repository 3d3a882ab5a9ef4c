// A client of the services in proto/boss/v1.
#pragma once

#include <grpcpp/channel.h>

#include <cstdint>
#include <istream>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "boss/v1/jobs.grpc.pb.h"
#include "boss/v1/models.grpc.pb.h"
#include "boss/v1/sampling.grpc.pb.h"
#include "client/call_control.h"
#include "client/credentials.h"
#include "client/pager.h"
#include "grpc/health/v1/health.grpc.pb.h"

namespace boss::client {

struct ClientOptions {
  std::string address = "127.0.0.1:50051";      // HOST:PORT, or another gRPC target
  absl::Duration timeout = absl::Seconds(120);  // of every unary call; streams have none of their own
  int max_message_bytes = 256 << 20;
  RetryPolicy retry;
  std::string trace_parent;  // W3C trace context that calls are a part of, as of "traceparent"; empty: none
};

// Everything that a Generate call streamed.
struct GenerateResult {
  boss::v1::Accepted accepted;
  std::vector<boss::v1::Sample> samples;  // by index
  boss::v1::Summary summary;
};

// Thread-safe; calls block. Every method returns what the server reports as an absl::Status (client/status.h tells its
// details), CANCELLED after Cancel(), DEADLINE_EXCEEDED after the timeout. UNAVAILABLE is tried again as options.retry
// says, but for MergeAdapter. Submissions without a request_id get a random one, so that a repeated submission is one
// job. What a repeated deletion does not find any more is deleted.
class Client {
 public:
  // Without TLS and without a token.
  explicit Client(ClientOptions options);
  // \error as of ResolveCredentials. A server that cannot be reached or has the wrong certificate is UNAVAILABLE at the
  // first call.
  static absl::StatusOr<std::unique_ptr<Client>> Connect(ClientOptions options, const Credentials& credentials);
  // Over a channel of the caller's; options.address is not used.
  Client(std::shared_ptr<grpc::Channel> channel, ClientOptions options);

  // 128 random bits, as a request_id or an upload_id.
  static std::string NewId();

  // Ends every call under way with CANCELLED, and every later one. Callable from any thread.
  void Cancel() { control_.Cancel(); }
  bool cancelled() const { return control_.cancelled(); }

  // ---- Sampling ----
  // Calls `on_response` for each message in order; an error that it returns cancels the call and is returned. Tried
  // again only while nothing was received.
  absl::Status Generate(const boss::v1::GenerateRequest& request,
                        absl::FunctionRef<absl::Status(const boss::v1::GenerateResponse&)> on_response);
  // \error also INTERNAL if a sample is missing or came twice.
  absl::StatusOr<GenerateResult> GenerateAll(const boss::v1::GenerateRequest& request);

  // ---- Jobs ----
  absl::StatusOr<boss::v1::Job> TrainJob(boss::v1::TrainJobRequest request);
  absl::StatusOr<boss::v1::Job> OptimizeStepsizesJob(boss::v1::OptimizeStepsizesJobRequest request);
  absl::StatusOr<boss::v1::Job> DistillJob(boss::v1::DistillJobRequest request);
  absl::StatusOr<boss::v1::Job> EvaluateJob(boss::v1::EvaluateJobRequest request);
  absl::StatusOr<boss::v1::Job> GetJob(const std::string& name);
  using JobPager = Pager<boss::v1::ListJobsRequest, boss::v1::ListJobsResponse, boss::v1::Job>;
  JobPager ListJobs(boss::v1::ListJobsRequest request);
  absl::StatusOr<boss::v1::Job> CancelJob(const std::string& name);
  absl::StatusOr<boss::v1::Job> PauseJob(const std::string& name);
  absl::StatusOr<boss::v1::Job> ResumeJob(const std::string& name);
  absl::Status DeleteJob(const std::string& name);
  // Calls `on_event` for each event from `request.from_sequence` on, each exactly once and in order. A connection that
  // is lost (UNAVAILABLE) is made again and goes on after the last event. Returns OK after the job's final event (or
  // the replay); an error of `on_event` ends it. \error also DATA_LOSS if the server skips an event.
  absl::Status WatchJob(boss::v1::WatchJobRequest request,
                        absl::FunctionRef<absl::Status(const boss::v1::JobEvent&)> on_event);

  // ---- Models ----
  using ModelPager = Pager<boss::v1::ListModelsRequest, boss::v1::ListModelsResponse, boss::v1::Model>;
  ModelPager ListModels(boss::v1::ListModelsRequest request);
  absl::StatusOr<boss::v1::Model> GetModel(const std::string& model);
  absl::StatusOr<boss::v1::ModelVersion> LoadModel(const boss::v1::LoadModelRequest& request);
  absl::StatusOr<boss::v1::ModelVersion> UnloadModel(const std::string& model);
  // Streams the file at `path`; sets total_bytes and sha256. `on_progress` gets the bytes sent. A connection that is
  // lost goes on after the bytes that the server has committed, under start.upload_id; without one the import gets a
  // random one. One that the caller gives also goes on with what an earlier client left. A decoder's file follows in the
  // same upload; empty: none. \error also NOT_FOUND or PERMISSION_DENIED for a file.
  absl::StatusOr<boss::v1::ImportModelResponse> ImportModel(boss::v1::ImportStart start, const std::string& path,
                                                            absl::FunctionRef<void(int64_t bytes)> on_progress,
                                                            const std::string& decoder_path = "");
  // Writes the file to `path`, by way of a temporary file beside it. A connection that is lost goes on at its offset.
  // `on_progress` gets the bytes received. \error also DATA_LOSS if sizes or checksums differ; then nothing is left at
  // `path`.
  absl::StatusOr<boss::v1::ExportModelResponse::Header> ExportModel(boss::v1::ExportModelRequest request,
                                                                    const std::string& path,
                                                                    absl::FunctionRef<void(int64_t bytes)> on_progress);
  absl::StatusOr<boss::v1::Model> SetAlias(const boss::v1::SetAliasRequest& request);
  // \error also UNAVAILABLE, not tried again: the version may be there, and another call would make a second one.
  absl::StatusOr<boss::v1::ModelVersion> MergeAdapter(const boss::v1::MergeAdapterRequest& request);
  absl::Status DeleteVersion(const boss::v1::DeleteVersionRequest& request);
  absl::StatusOr<boss::v1::ScheduleSet> GetSchedule(const boss::v1::GetScheduleRequest& request);
  using SchedulePager = Pager<boss::v1::ListSchedulesRequest, boss::v1::ListSchedulesResponse, boss::v1::ScheduleSet>;
  SchedulePager ListSchedules(boss::v1::ListSchedulesRequest request);
  absl::StatusOr<boss::v1::ScheduleSet> ImportSchedule(const boss::v1::ImportScheduleRequest& request);
  absl::Status DeleteSchedule(const boss::v1::DeleteScheduleRequest& request);
  absl::StatusOr<boss::v1::Capabilities> GetCapabilities();

  // ---- Health ----
  // `service`: e.g. "boss.v1.Sampler"; empty for the server as a whole.
  absl::StatusOr<grpc::health::v1::HealthCheckResponse::ServingStatus> CheckHealth(const std::string& service);

 private:
  Client(std::shared_ptr<grpc::Channel> channel, ClientOptions options, CallControl::TokenSource token);

  // What another attempt would do after one that may have come through.
  enum class Repeat {
    kSame,      // the same
    kNotFound,  // not find what was deleted
    kTwice,     // it a second time
  };
  template <typename Stub, typename Request, typename Response>
  absl::StatusOr<Response> Unary(Stub& stub,
                                 grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                                 const Request& request, Repeat repeat = Repeat::kSame);
  class UploadedFiles;
  // One attempt of ImportModel. A query asks the server where to go on and sends no bytes.
  absl::StatusOr<int64_t> QueryUpload(boss::v1::ImportStart start);
  absl::StatusOr<boss::v1::ImportModelResponse> SendUpload(const boss::v1::ImportStart& start, UploadedFiles& files,
                                                           int64_t offset,
                                                           absl::FunctionRef<void(int64_t bytes)> on_progress);

  CallControl control_;
  const std::unique_ptr<boss::v1::Sampler::Stub> sampler_;
  const std::unique_ptr<boss::v1::Jobs::Stub> jobs_;
  const std::unique_ptr<boss::v1::Models::Stub> models_;
  const std::unique_ptr<grpc::health::v1::Health::Stub> health_;
};

}  // namespace boss::client
