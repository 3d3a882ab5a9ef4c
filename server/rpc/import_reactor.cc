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

ImportReactor::ImportReactor(grpc::CallbackServerContext* context, Admission admission,
                             v1::ImportModelResponse* response, const ModelImport::Context& imports,
                             const ModelCatalog& catalog, ThreadPool& pool)
    : context_(context),
      admission_(std::move(admission)),
      response_(response),
      imports_(imports),
      catalog_(catalog),
      strand_(pool) {
  StartRead(&request_);
}

void ImportReactor::OnReadDone(bool ok) {
  strand_.Post([this, ok] {
    if (!ok) return End(Complete());
    const absl::StatusOr<bool> complete = Take();
    if (!complete.ok() || *complete) return End(complete.status());
    StartRead(&request_);
  });
}

void ImportReactor::End(const absl::Status& status) {
  // Here and not with the reactor, whose end is no place to wait for the disk.
  import_.reset();
  admission_.Leave();
  Finish(ToGrpcStatus(status));
}

absl::StatusOr<bool> ImportReactor::Begin(const v1::ImportStart& start) {
  BOSS_ASSIGN_OR_RETURN(ImportOptions options, ImportOptionsFromProto(start));
  if (start.query_upload()) {
    BOSS_ASSIGN_OR_RETURN(const int64_t committed, ModelImport::Query(imports_, options));
    response_->set_committed_bytes(committed);
    return true;
  }
  BOSS_ASSIGN_OR_RETURN(import_, ModelImport::Begin(imports_, std::move(options)));
  if (!import_->is_published()) return false;
  BOSS_RETURN_IF_ERROR(Complete());
  return true;
}

absl::StatusOr<bool> ImportReactor::Take() {
  if (!import_) {
    if (!request_.has_start()) return FieldError("start", "must be in the first message");
    return Begin(request_.start());
  }
  if (!request_.has_chunk()) return FieldError("chunk", "must be in every message after the first");
  const v1::ImportChunk& chunk = request_.chunk();
  if (chunk.data().size() > kMaxChunk) {
    return FieldError("chunk.data", absl::StrCat("must have at most ", kMaxChunk, " bytes, got ", chunk.data().size()));
  }
  BOSS_RETURN_IF_ERROR(
      import_->Append(chunk.offset(), chunk.data(), chunk.has_crc32() ? std::optional(chunk.crc32()) : std::nullopt));
  return false;
}

absl::Status ImportReactor::Complete() {
  if (context_->IsCancelled()) return absl::CancelledError("the client has gone");
  if (!import_) return FieldError("start", "is required");
  BOSS_ASSIGN_OR_RETURN(const ImportResult result, import_->Finish());
  if (result.version) *response_->mutable_version() = ToProto(catalog_.Version(*result.version));
  response_->set_committed_bytes(result.committed_bytes);
  response_->mutable_warnings()->Add(result.warnings.begin(), result.warnings.end());
  return absl::OkStatus();
}

}  // namespace boss::server
