// boss.v1.Models.
#pragma once

#include <cstdint>

#include "boss/v1/models.grpc.pb.h"
#include "server/engine/device_pool.h"
#include "server/engine/thread_pool.h"
#include "server/rpc/convert_capabilities.h"
#include "server/rpc/model_catalog.h"
#include "server/rpc/unary_call.h"
#include "server/store/model_store.h"
#include "server/store/upload_store.h"

namespace boss::server {

// What is passed as a reference outlives the service. Thread-safe.
class ModelsService final : public v1::Models::CallbackService {
 public:
  struct Options {
    int default_steps = 20;  // of a model that names none
    ServerDescription description;
  };
  ModelsService(Options options, ModelStore& store, UploadStore& uploads, DevicePool& devices, Access& access,
                ThreadPool& pool)
      : options_(std::move(options)),
        store_(store),
        uploads_(uploads),
        devices_(devices),
        pool_(pool),
        catalog_(store, devices),
        calls_(access, pool, v1::Models::service_full_name()) {}

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

 private:
  absl::Status List(const v1::ListModelsRequest& request, v1::ListModelsResponse& response) const;
  absl::Status Merge(const v1::MergeAdapterRequest& request, v1::ModelVersion& response);
  absl::Status Delete(const v1::DeleteVersionRequest& request);
  absl::Status Schedule(const v1::GetScheduleRequest& request, v1::ScheduleSet& response) const;
  absl::Status AddSchedule(const v1::ImportScheduleRequest& request, v1::ScheduleSet& response);
  absl::Status Schedules(const v1::ListSchedulesRequest& request, v1::ListSchedulesResponse& response) const;

  const Options options_;
  ModelStore& store_;
  UploadStore& uploads_;
  DevicePool& devices_;
  ThreadPool& pool_;
  const ModelCatalog catalog_;
  const UnaryCalls calls_;
};

}  // namespace boss::server
