// inference.GRPCInferenceService: the Open Inference Protocol on the models and the engine of boss/v1.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "inference/grpc_service.grpc.pb.h"
#include "server/engine/thread_pool.h"
#include "server/rpc/infer_stream.h"
#include "server/rpc/model_catalog.h"
#include "server/rpc/sampling_call.h"
#include "server/rpc/unary_call.h"
#include "server/store/model_store.h"

namespace boss::server {

// Thread-safe. What the constructor takes by reference outlives it.
class InferenceService final : public inference::GRPCInferenceService::CallbackService {
 public:
  struct Options {
    std::string version;            // of the server
    int64_t max_message_bytes = 0;  // of a response's samples
  };

  // Calls that may block run on `pool`.
  InferenceService(Options options, const ModelStore& store, Sampling& sampling, Access& access, ThreadPool& pool)
      : options_(std::move(options)),
        store_(store),
        sampling_(sampling),
        catalog_(store, sampling.devices()),
        calls_(access, pool, inference::GRPCInferenceService::service_full_name()) {}

  grpc::ServerUnaryReactor* ServerLive(grpc::CallbackServerContext* context, const inference::ServerLiveRequest*,
                                       inference::ServerLiveResponse* response) override;
  grpc::ServerUnaryReactor* ServerReady(grpc::CallbackServerContext* context, const inference::ServerReadyRequest*,
                                        inference::ServerReadyResponse* response) override;
  grpc::ServerUnaryReactor* ModelReady(grpc::CallbackServerContext* context,
                                       const inference::ModelReadyRequest* request,
                                       inference::ModelReadyResponse* response) override;
  grpc::ServerUnaryReactor* ServerMetadata(grpc::CallbackServerContext* context,
                                           const inference::ServerMetadataRequest*,
                                           inference::ServerMetadataResponse* response) override;
  grpc::ServerUnaryReactor* ModelMetadata(grpc::CallbackServerContext* context,
                                          const inference::ModelMetadataRequest* request,
                                          inference::ModelMetadataResponse* response) override;
  grpc::ServerUnaryReactor* ModelInfer(grpc::CallbackServerContext* context,
                                       const inference::ModelInferRequest* request,
                                       inference::ModelInferResponse* response) override;
  grpc::ServerBidiReactor<inference::ModelInferRequest, inference::ModelStreamInferResponse>* ModelStreamInfer(
      grpc::CallbackServerContext* context) override;

  // What ServerReady and ModelReady say; true at first.
  void SetReady(bool ready) { ready_ = ready; }
  // Streams end with UNAVAILABLE once what is under way on them is answered.
  void EndStreams();

 private:
  const Options options_;
  const ModelStore& store_;
  Sampling& sampling_;
  const ModelCatalog catalog_;
  const UnaryCalls calls_;
  std::atomic<bool> ready_ = true;
  InferStreamList streams_;
};

}  // namespace boss::server
