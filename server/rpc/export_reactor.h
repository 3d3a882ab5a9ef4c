// One ExportModel call.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <cstdint>
#include <fstream>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "boss/v1/models.pb.h"
#include "server/engine/thread_pool.h"
#include "server/rpc/access.h"
#include "server/store/model_store.h"

namespace boss::server {

// Reads one chunk at a time, when the client has taken the last one. Deletes itself.
class ExportReactor final : public grpc::ServerWriteReactor<v1::ExportModelResponse> {
 public:
  // What is passed outlives the call, except for `request`.
  ExportReactor(Admission admission, const v1::ExportModelRequest& request, const ModelStore& store, ThreadPool& pool);

  void OnWriteDone(bool ok) override;
  void OnDone() override { delete this; }

 private:
  // Run on the strand. After End the reactor may be gone.
  void End(const absl::Status& status);
  absl::Status Open();
  absl::Status OpenFile(const VersionKey& key, const std::string& file_name);
  void OpenText(std::string name, std::string text);
  // Fills in the next chunk. \pre offset_ < total_bytes_.
  absl::Status ReadChunk();

  Admission admission_;
  const v1::ExportModelRequest request_;
  const ModelStore& store_;
  Strand strand_;
  VersionUse use_;
  v1::ExportModelResponse response_;  // being written
  std::string text_;                  // the contents, if they are not in a file
  std::ifstream file_;
  int64_t offset_ = 0;
  int64_t total_bytes_ = 0;
};

}  // namespace boss::server
