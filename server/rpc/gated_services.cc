#include "server/rpc/gated_services.h"

namespace boss::server {

grpc::ServerWriteReactor<v1::GenerateResponse>* GatedSampler::Generate(grpc::CallbackServerContext* context,
                                                                       const v1::GenerateRequest* request) {
  return Stream([&](auto& service) { return service.Generate(context, request); });
}

grpc::ServerUnaryReactor* GatedJobs::TrainJob(grpc::CallbackServerContext* context, const v1::TrainJobRequest* request,
                                              v1::Job* response) {
  return Unary(context, [&](auto& service) { return service.TrainJob(context, request, response); });
}

grpc::ServerUnaryReactor* GatedJobs::OptimizeStepsizesJob(grpc::CallbackServerContext* context,
                                                          const v1::OptimizeStepsizesJobRequest* request,
                                                          v1::Job* response) {
  return Unary(context, [&](auto& service) { return service.OptimizeStepsizesJob(context, request, response); });
}

grpc::ServerUnaryReactor* GatedJobs::DistillJob(grpc::CallbackServerContext* context,
                                                const v1::DistillJobRequest* request, v1::Job* response) {
  return Unary(context, [&](auto& service) { return service.DistillJob(context, request, response); });
}

grpc::ServerUnaryReactor* GatedJobs::EvaluateJob(grpc::CallbackServerContext* context,
                                                 const v1::EvaluateJobRequest* request, v1::Job* response) {
  return Unary(context, [&](auto& service) { return service.EvaluateJob(context, request, response); });
}

grpc::ServerUnaryReactor* GatedJobs::GetJob(grpc::CallbackServerContext* context, const v1::GetJobRequest* request,
                                            v1::Job* response) {
  return Unary(context, [&](auto& service) { return service.GetJob(context, request, response); });
}

grpc::ServerUnaryReactor* GatedJobs::ListJobs(grpc::CallbackServerContext* context, const v1::ListJobsRequest* request,
                                              v1::ListJobsResponse* response) {
  return Unary(context, [&](auto& service) { return service.ListJobs(context, request, response); });
}

grpc::ServerUnaryReactor* GatedJobs::CancelJob(grpc::CallbackServerContext* context,
                                               const v1::CancelJobRequest* request, v1::Job* response) {
  return Unary(context, [&](auto& service) { return service.CancelJob(context, request, response); });
}

grpc::ServerUnaryReactor* GatedJobs::PauseJob(grpc::CallbackServerContext* context, const v1::PauseJobRequest* request,
                                              v1::Job* response) {
  return Unary(context, [&](auto& service) { return service.PauseJob(context, request, response); });
}

grpc::ServerUnaryReactor* GatedJobs::ResumeJob(grpc::CallbackServerContext* context,
                                               const v1::ResumeJobRequest* request, v1::Job* response) {
  return Unary(context, [&](auto& service) { return service.ResumeJob(context, request, response); });
}

grpc::ServerUnaryReactor* GatedJobs::DeleteJob(grpc::CallbackServerContext* context,
                                               const v1::DeleteJobRequest* request, google::protobuf::Empty* response) {
  return Unary(context, [&](auto& service) { return service.DeleteJob(context, request, response); });
}

grpc::ServerWriteReactor<v1::JobEvent>* GatedJobs::WatchJob(grpc::CallbackServerContext* context,
                                                            const v1::WatchJobRequest* request) {
  return Stream([&](auto& service) { return service.WatchJob(context, request); });
}

grpc::ServerUnaryReactor* GatedModels::ListModels(grpc::CallbackServerContext* context,
                                                  const v1::ListModelsRequest* request,
                                                  v1::ListModelsResponse* response) {
  return Unary(context, [&](auto& service) { return service.ListModels(context, request, response); });
}

grpc::ServerUnaryReactor* GatedModels::GetModel(grpc::CallbackServerContext* context,
                                                const v1::GetModelRequest* request, v1::Model* response) {
  return Unary(context, [&](auto& service) { return service.GetModel(context, request, response); });
}

grpc::ServerUnaryReactor* GatedModels::LoadModel(grpc::CallbackServerContext* context,
                                                 const v1::LoadModelRequest* request, v1::ModelVersion* response) {
  return Unary(context, [&](auto& service) { return service.LoadModel(context, request, response); });
}

grpc::ServerUnaryReactor* GatedModels::UnloadModel(grpc::CallbackServerContext* context,
                                                   const v1::UnloadModelRequest* request, v1::ModelVersion* response) {
  return Unary(context, [&](auto& service) { return service.UnloadModel(context, request, response); });
}

grpc::ServerReadReactor<v1::ImportModelRequest>* GatedModels::ImportModel(grpc::CallbackServerContext* context,
                                                                          v1::ImportModelResponse* response) {
  return Stream([&](auto& service) { return service.ImportModel(context, response); });
}

grpc::ServerWriteReactor<v1::ExportModelResponse>* GatedModels::ExportModel(grpc::CallbackServerContext* context,
                                                                            const v1::ExportModelRequest* request) {
  return Stream([&](auto& service) { return service.ExportModel(context, request); });
}

grpc::ServerUnaryReactor* GatedModels::SetAlias(grpc::CallbackServerContext* context,
                                                const v1::SetAliasRequest* request, v1::Model* response) {
  return Unary(context, [&](auto& service) { return service.SetAlias(context, request, response); });
}

grpc::ServerUnaryReactor* GatedModels::MergeAdapter(grpc::CallbackServerContext* context,
                                                    const v1::MergeAdapterRequest* request,
                                                    v1::ModelVersion* response) {
  return Unary(context, [&](auto& service) { return service.MergeAdapter(context, request, response); });
}

grpc::ServerUnaryReactor* GatedModels::DeleteVersion(grpc::CallbackServerContext* context,
                                                     const v1::DeleteVersionRequest* request,
                                                     google::protobuf::Empty* response) {
  return Unary(context, [&](auto& service) { return service.DeleteVersion(context, request, response); });
}

grpc::ServerUnaryReactor* GatedModels::GetSchedule(grpc::CallbackServerContext* context,
                                                   const v1::GetScheduleRequest* request, v1::ScheduleSet* response) {
  return Unary(context, [&](auto& service) { return service.GetSchedule(context, request, response); });
}

grpc::ServerUnaryReactor* GatedModels::ListSchedules(grpc::CallbackServerContext* context,
                                                     const v1::ListSchedulesRequest* request,
                                                     v1::ListSchedulesResponse* response) {
  return Unary(context, [&](auto& service) { return service.ListSchedules(context, request, response); });
}

grpc::ServerUnaryReactor* GatedModels::ImportSchedule(grpc::CallbackServerContext* context,
                                                      const v1::ImportScheduleRequest* request,
                                                      v1::ScheduleSet* response) {
  return Unary(context, [&](auto& service) { return service.ImportSchedule(context, request, response); });
}

grpc::ServerUnaryReactor* GatedModels::DeleteSchedule(grpc::CallbackServerContext* context,
                                                      const v1::DeleteScheduleRequest* request,
                                                      google::protobuf::Empty* response) {
  return Unary(context, [&](auto& service) { return service.DeleteSchedule(context, request, response); });
}

grpc::ServerUnaryReactor* GatedModels::GetCapabilities(grpc::CallbackServerContext* context,
                                                       const v1::GetCapabilitiesRequest* request,
                                                       v1::Capabilities* response) {
  return Unary(context, [&](auto& service) { return service.GetCapabilities(context, request, response); });
}

grpc::ServerUnaryReactor* GatedInference::ServerLive(grpc::CallbackServerContext* context,
                                                     const inference::ServerLiveRequest* request,
                                                     inference::ServerLiveResponse* response) {
  if (gate().Enter().ok()) return service().ServerLive(context, request, response);
  response->set_live(true);
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerUnaryReactor* GatedInference::ServerReady(grpc::CallbackServerContext* context,
                                                      const inference::ServerReadyRequest* request,
                                                      inference::ServerReadyResponse* response) {
  if (gate().Enter().ok()) return service().ServerReady(context, request, response);
  response->set_ready(false);
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerUnaryReactor* GatedInference::ModelReady(grpc::CallbackServerContext* context,
                                                     const inference::ModelReadyRequest* request,
                                                     inference::ModelReadyResponse* response) {
  return Unary(context, [&](auto& service) { return service.ModelReady(context, request, response); });
}

grpc::ServerUnaryReactor* GatedInference::ServerMetadata(grpc::CallbackServerContext* context,
                                                         const inference::ServerMetadataRequest* request,
                                                         inference::ServerMetadataResponse* response) {
  return Unary(context, [&](auto& service) { return service.ServerMetadata(context, request, response); });
}

grpc::ServerUnaryReactor* GatedInference::ModelMetadata(grpc::CallbackServerContext* context,
                                                        const inference::ModelMetadataRequest* request,
                                                        inference::ModelMetadataResponse* response) {
  return Unary(context, [&](auto& service) { return service.ModelMetadata(context, request, response); });
}

grpc::ServerUnaryReactor* GatedInference::ModelInfer(grpc::CallbackServerContext* context,
                                                     const inference::ModelInferRequest* request,
                                                     inference::ModelInferResponse* response) {
  return Unary(context, [&](auto& service) { return service.ModelInfer(context, request, response); });
}

grpc::ServerBidiReactor<inference::ModelInferRequest, inference::ModelStreamInferResponse>*
GatedInference::ModelStreamInfer(grpc::CallbackServerContext* context) {
  return Stream([&](auto& service) { return service.ModelStreamInfer(context); });
}

}  // namespace boss::server
