#include "server/rpc/import_reactor.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/error_details.h"
#include "core/base/status_macros.h"
#include "server/rpc/convert_model.h"
#include "server/rpc/status.h"

namespace boss::server {
namespace {

constexpr size_t kMaxChunk = 1 << 20;

}  // namespace

ImportReactor::ImportReactor(grpc::CallbackServerContext* context, v1::ImportModelResponse* response, ModelStore& store,
                             const ModelCatalog& catalog, ThreadPool& pool, int64_t max_bytes)
    : context_(context), response_(response), store_(store), catalog_(catalog), max_bytes_(max_bytes), strand_(pool) {
  StartRead(&request_);
}

void ImportReactor::OnReadDone(bool ok) {
  strand_.Post([this, ok] {
    if (!ok) return Finish(ToGrpcStatus(Complete()));
    const absl::Status status = Take();
    if (!status.ok()) return Finish(ToGrpcStatus(status));
    StartRead(&request_);
  });
}

absl::Status ImportReactor::Take() {
  if (!import_) {
    if (!request_.has_start()) return FieldError("start", "must be in the first message");
    BOSS_ASSIGN_OR_RETURN(ImportOptions options, ImportOptionsFromProto(request_.start()));
    BOSS_ASSIGN_OR_RETURN(import_, ModelImport::Begin(store_, std::move(options), max_bytes_));
    return absl::OkStatus();
  }
  if (!request_.has_chunk()) return FieldError("chunk", "must be in every message after the first");
  const v1::ImportChunk& chunk = request_.chunk();
  if (chunk.data().size() > kMaxChunk) {
    return FieldError("chunk.data", absl::StrCat("must have at most ", kMaxChunk, " bytes, got ", chunk.data().size()));
  }
  return import_->Append(chunk.offset(), chunk.data(), chunk.has_crc32() ? std::optional(chunk.crc32()) : std::nullopt);
}

absl::Status ImportReactor::Complete() {
  if (context_->IsCancelled()) return absl::CancelledError("the client has gone");
  if (!import_) return FieldError("start", "is required");
  BOSS_ASSIGN_OR_RETURN(const VersionKey key, import_->Publish());
  *response_->mutable_version() = ToProto(catalog_.Version(key));
  response_->set_committed_bytes(import_->received_bytes());
  return absl::OkStatus();
}

}  // namespace boss::server
