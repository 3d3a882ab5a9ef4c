// One ImportModel call.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <cstdint>
#include <memory>

#include "boss/v1/models.pb.h"
#include "server/engine/thread_pool.h"
#include "server/rpc/model_catalog.h"
#include "server/rpc/model_import.h"

namespace boss::server {

// Takes one message at a time: the next is read when the last one is on the disk. Deletes itself.
class ImportReactor final : public grpc::ServerReadReactor<v1::ImportModelRequest> {
 public:
  // What is passed outlives the call.
  ImportReactor(grpc::CallbackServerContext* context, v1::ImportModelResponse* response, ModelStore& store,
                const ModelCatalog& catalog, ThreadPool& pool, int64_t max_bytes);

  void OnReadDone(bool ok) override;
  void OnDone() override { delete this; }

 private:
  // Run on the strand. After Finish the reactor may be gone.
  absl::Status Take();
  absl::Status Complete();

  grpc::CallbackServerContext* const context_;
  v1::ImportModelResponse* const response_;
  ModelStore& store_;
  const ModelCatalog& catalog_;
  const int64_t max_bytes_;
  Strand strand_;
  v1::ImportModelRequest request_;  // being read
  std::unique_ptr<ModelImport> import_;
};

}  // namespace boss::server
