#include "server/rpc/export_reactor.h"

#include <zlib.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/error_details.h"
#include "core/base/status_macros.h"
#include "core/io/safetensors.h"
#include "server/rpc/status.h"
#include "server/store/sha256.h"
#include "server/store/store_files.h"

namespace boss::server {
namespace {

constexpr int64_t kChunk = 1 << 20;

}  // namespace

ExportReactor::ExportReactor(Admission admission, const v1::ExportModelRequest& request, const ModelStore& store,
                             ThreadPool& pool)
    : admission_(std::move(admission)), request_(request), store_(store), strand_(pool), offset_(request.offset()) {
  strand_.Post([this] {
    const absl::Status status = Open();
    if (!status.ok()) return End(status);
    StartWrite(&response_);
  });
}

void ExportReactor::End(const absl::Status& status) {
  admission_.Leave();
  Finish(ToGrpcStatus(status));
}

void ExportReactor::OnWriteDone(bool ok) {
  strand_.Post([this, ok] {
    if (!ok) return End(absl::CancelledError("the stream is broken"));
    if (offset_ == total_bytes_) return End(absl::OkStatus());
    const absl::Status status = ReadChunk();
    if (!status.ok()) return End(status);
    StartWrite(&response_);
  });
}

void ExportReactor::OpenText(std::string name, std::string text) {
  text_ = std::move(text);
  v1::ExportModelResponse::Header& header = *response_.mutable_header();
  header.set_file_name(std::move(name));
  header.set_total_bytes(static_cast<int64_t>(text_.size()));
  header.set_sha256(Sha256Hex(text_));
}

absl::Status ExportReactor::OpenFile(const VersionKey& key, const std::string& file_name) {
  BOSS_ASSIGN_OR_RETURN(const std::vector<ExportFile> files, store_.OpenForExport(key));
  const auto found =
      std::find_if(files.begin(), files.end(), [&](const ExportFile& file) { return file.name == file_name; });
  if (found == files.end()) return absl::DataLossError(absl::StrCat(key.ToString(), " has no ", file_name));
  file_.open(found->path, std::ios::binary);
  if (!file_) return absl::DataLossError(absl::StrCat("cannot open ", file_name, " of ", key.ToString()));
  v1::ExportModelResponse::Header& header = *response_.mutable_header();
  header.set_file_name(found->name);
  header.set_total_bytes(found->size_bytes);
  header.set_sha256(found->sha256);
  return absl::OkStatus();
}

absl::Status ExportReactor::Open() {
  if (request_.model().empty()) return FieldError("model", "is required");
  BOSS_ASSIGN_OR_RETURN(const VersionKey key, store_.Resolve(request_.model()));
  BOSS_ASSIGN_OR_RETURN(use_, store_.Use(key, "being exported"));
  BOSS_ASSIGN_OR_RETURN(const VersionInfo info, store_.GetVersion(key));
  const bool is_adapter = info.manifest.adapter.has_value();
  switch (request_.part()) {
    case v1::ExportModelRequest::PART_UNSPECIFIED:
    case v1::ExportModelRequest::WEIGHTS:
      if (is_adapter) {
        BOSS_ASSIGN_OR_RETURN(const std::unique_ptr<VelocityModel> merged, store_.LoadVersionModel(key));
        BOSS_ASSIGN_OR_RETURN(std::string bytes,
                              SerializeSafetensors({.tensors = merged->State(),
                                                    .metadata = {{"architecture", info.manifest.architecture_json}}}));
        OpenText(kWeightsFile, std::move(bytes));
      } else {
        BOSS_RETURN_IF_ERROR(OpenFile(key, WeightsFile(info.manifest)));
      }
      break;
    case v1::ExportModelRequest::ADAPTER:
      if (!is_adapter) return absl::FailedPreconditionError(absl::StrCat(key.ToString(), " is no adapter"));
      BOSS_RETURN_IF_ERROR(OpenFile(key, kAdapterFile));
      break;
    case v1::ExportModelRequest::DECODER:
      if (!info.manifest.sha256.contains(kDecoderFile))
        return absl::FailedPreconditionError(absl::StrCat(key.ToString(), " has no decoder"));
      BOSS_RETURN_IF_ERROR(OpenFile(key, kDecoderFile));
      break;
    case v1::ExportModelRequest::MANIFEST:
      OpenText(kManifestFile, ManifestToJson(info.manifest));
      break;
    default:
      return FieldError("part", absl::StrCat("unknown value ", static_cast<int>(request_.part())));
  }
  response_.mutable_header()->set_model(key.ToString());
  total_bytes_ = response_.header().total_bytes();
  if (offset_ < 0 || offset_ > total_bytes_) {
    return WithField(absl::OutOfRangeError(absl::StrCat("offset: must be in [0, ", total_bytes_, "], got ", offset_)),
                     "offset");
  }
  if (file_.is_open()) file_.seekg(offset_);
  return absl::OkStatus();
}

absl::Status ExportReactor::ReadChunk() {
  const int64_t size = std::min(kChunk, total_bytes_ - offset_);
  std::string data;
  if (file_.is_open()) {
    data.resize(static_cast<size_t>(size));
    if (!file_.read(data.data(), size))
      return absl::DataLossError(absl::StrCat("cannot read the file at offset ", offset_));
  } else {
    data = text_.substr(static_cast<size_t>(offset_), static_cast<size_t>(size));
  }
  v1::ExportModelResponse::Chunk& chunk = *response_.mutable_chunk();
  chunk.set_offset(offset_);
  chunk.set_crc32(
      static_cast<uint32_t>(crc32(0, reinterpret_cast<const Bytef*>(data.data()), static_cast<uInt>(size))));
  chunk.set_data(std::move(data));
  offset_ += size;
  return absl::OkStatus();
}

}  // namespace boss::server
