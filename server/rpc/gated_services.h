// The services as gRPC knows them from the moment that the port is open: each hands its calls on to one that may come
// into being later, and refuses them while the gate is closed.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <type_traits>

#include "boss/v1/jobs.grpc.pb.h"
#include "boss/v1/models.grpc.pb.h"
#include "boss/v1/sampling.grpc.pb.h"
#include "inference/grpc_service.grpc.pb.h"
#include "server/rpc/gate.h"
#include "server/rpc/refusal.h"

namespace boss::server {

// What the gated services share. Thread-safe.
template <typename Service>
class GatedTo {
 public:
  // `gate` outlives it.
  explicit GatedTo(const Gate& gate) : gate_(gate) {}

  // Before the gate is first opened. `service` outlives the gRPC server.
  void Attach(Service& service) { service_ = &service; }

 protected:
  const Gate& gate() const { return gate_; }
  Service& service() const { return *service_; }

  // `call` hands the call on to the service that it is given.
  template <typename Call>
  grpc::ServerUnaryReactor* Unary(grpc::CallbackServerContext* context, Call call) const {
    const absl::Status status = gate_.Enter();
    if (status.ok()) return call(service());
    grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
    reactor->Finish(ToGrpcStatus(status));
    return reactor;
  }
  template <typename Call>
  auto Stream(Call call) const -> decltype(call(service())) {
    const absl::Status status = gate_.Enter();
    if (status.ok()) return call(service());
    return new Refusal<std::remove_pointer_t<decltype(call(service()))>>(status);
  }

 private:
  const Gate& gate_;
  Service* service_ = nullptr;  // set before the gate, whose lock every call takes, is open
};

class GatedSampler final : public v1::Sampler::CallbackService, public GatedTo<v1::Sampler::CallbackService> {
 public:
  using GatedTo::GatedTo;
  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(grpc::CallbackServerContext* context,
                                                           const v1::GenerateRequest* request) override;
};

class GatedJobs final : public v1::Jobs::CallbackService, public GatedTo<v1::Jobs::CallbackService> {
 public:
  using GatedTo::GatedTo;
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
};

class GatedModels final : public v1::Models::CallbackService, public GatedTo<v1::Models::CallbackService> {
 public:
  using GatedTo::GatedTo;
  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context, const v1::ListModelsRequest* request,
                                       v1::ListModelsResponse* response) override;
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context, const v1::GetModelRequest* request,
                                     v1::Model* response) override;
  grpc::ServerUnaryReactor* LoadModel(grpc::CallbackServerContext* context, const v1::LoadModelRequest* request,
                                      v1::ModelVersion* response) override;
  grpc::ServerUnaryReactor* UnloadModel(grpc::CallbackServerContext* context, const v1::UnloadModelRequest* request,
                                        v1::ModelVersion* response) override;
  grpc::ServerReadReactor<v1::ImportModelRequest>* ImportModel(grpc::CallbackServerContext* context,
                                                               v1::ImportModelResponse* response) override;
  grpc::ServerWriteReactor<v1::ExportModelResponse>* ExportModel(grpc::CallbackServerContext* context,
                                                                 const v1::ExportModelRequest* request) override;
  grpc::ServerUnaryReactor* SetAlias(grpc::CallbackServerContext* context, const v1::SetAliasRequest* request,
                                     v1::Model* response) override;
  grpc::ServerUnaryReactor* MergeAdapter(grpc::CallbackServerContext* context, const v1::MergeAdapterRequest* request,
                                         v1::ModelVersion* response) override;
  grpc::ServerUnaryReactor* DeleteVersion(grpc::CallbackServerContext* context, const v1::DeleteVersionRequest* request,
                                          google::protobuf::Empty* response) override;
  grpc::ServerUnaryReactor* GetSchedule(grpc::CallbackServerContext* context, const v1::GetScheduleRequest* request,
                                        v1::ScheduleSet* response) override;
  grpc::ServerUnaryReactor* ListSchedules(grpc::CallbackServerContext* context, const v1::ListSchedulesRequest* request,
                                          v1::ListSchedulesResponse* response) override;
  grpc::ServerUnaryReactor* ImportSchedule(grpc::CallbackServerContext* context,
                                           const v1::ImportScheduleRequest* request,
                                           v1::ScheduleSet* response) override;
  grpc::ServerUnaryReactor* DeleteSchedule(grpc::CallbackServerContext* context,
                                           const v1::DeleteScheduleRequest* request,
                                           google::protobuf::Empty* response) override;
  grpc::ServerUnaryReactor* GetCapabilities(grpc::CallbackServerContext* context,
                                            const v1::GetCapabilitiesRequest* request,
                                            v1::Capabilities* response) override;
};

// ServerLive and ServerReady are answered while the gate is closed, too: live, and not ready.
class GatedInference final : public inference::GRPCInferenceService::CallbackService,
                             public GatedTo<inference::GRPCInferenceService::CallbackService> {
 public:
  using GatedTo::GatedTo;
  grpc::ServerUnaryReactor* ServerLive(grpc::CallbackServerContext* context,
                                       const inference::ServerLiveRequest* request,
                                       inference::ServerLiveResponse* response) override;
  grpc::ServerUnaryReactor* ServerReady(grpc::CallbackServerContext* context,
                                        const inference::ServerReadyRequest* request,
                                        inference::ServerReadyResponse* response) override;
  grpc::ServerUnaryReactor* ModelReady(grpc::CallbackServerContext* context,
                                       const inference::ModelReadyRequest* request,
                                       inference::ModelReadyResponse* response) override;
  grpc::ServerUnaryReactor* ServerMetadata(grpc::CallbackServerContext* context,
                                           const inference::ServerMetadataRequest* request,
                                           inference::ServerMetadataResponse* response) override;
  grpc::ServerUnaryReactor* ModelMetadata(grpc::CallbackServerContext* context,
                                          const inference::ModelMetadataRequest* request,
                                          inference::ModelMetadataResponse* response) override;
  grpc::ServerUnaryReactor* ModelInfer(grpc::CallbackServerContext* context,
                                       const inference::ModelInferRequest* request,
                                       inference::ModelInferResponse* response) override;
  grpc::ServerBidiReactor<inference::ModelInferRequest, inference::ModelStreamInferResponse>* ModelStreamInfer(
      grpc::CallbackServerContext* context) override;
};

}  // namespace boss::server
