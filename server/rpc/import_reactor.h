// One ImportModel call.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "boss/v1/models.pb.h"
#include "server/engine/thread_pool.h"
#include "server/rpc/access.h"
#include "server/rpc/model_catalog.h"
#include "server/rpc/model_import.h"

namespace boss::server {

// Takes one message at a time: the next is read when the last one is written. Deletes itself.
class ImportReactor final : public grpc::ServerReadReactor<v1::ImportModelRequest> {
 public:
  // What is passed, and what `imports` refers to, outlives the call.
  ImportReactor(grpc::CallbackServerContext* context, Admission admission, v1::ImportModelResponse* response,
                const ModelImport::Context& imports, const ModelCatalog& catalog, ThreadPool& pool);

  void OnReadDone(bool ok) override;
  void OnDone() override { delete this; }

 private:
  // Run on the strand.
  // True if the response is complete: whatever the client still sends is not read.
  absl::StatusOr<bool> Take();
  absl::StatusOr<bool> Begin(const v1::ImportStart& start);
  absl::Status Complete();
  // Ends the import and the call; afterwards the reactor may be gone.
  void End(const absl::Status& status);

  grpc::CallbackServerContext* const context_;
  Admission admission_;
  v1::ImportModelResponse* const response_;
  const ModelImport::Context imports_;
  const ModelCatalog& catalog_;
  Strand strand_;
  v1::ImportModelRequest request_;  // being read
  std::unique_ptr<ModelImport> import_;
};

}  // namespace boss::server
