// The Client's model files on their way in and out.
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "client/boss_client.h"
#include "client/sha256.h"
#include "client/status.h"

namespace boss::client {
namespace {

constexpr int64_t kChunkBytes = 512 << 10;

uint32_t Crc32(const std::string& data) {
  return static_cast<uint32_t>(crc32(0, reinterpret_cast<const Bytef*>(data.data()), static_cast<uInt>(data.size())));
}

absl::Status FileError(const char* operation, const std::string& path) {
  const int error = errno;
  return absl::ErrnoToStatus(error == 0 ? EIO : error, absl::StrCat(operation, " ", path));
}

}  // namespace

// One or two files, read as one after the other.
class Client::UploadedFiles {
 public:
  absl::Status Add(const std::string& path) {
    errno = 0;
    std::ifstream file(path, std::ios::binary);
    if (!file) return FileError("open", path);
    if (std::filesystem::is_directory(path)) return FileError("read", path);
    file.seekg(0, std::ios::end);
    const int64_t size = file.tellg();
    if (!file) return FileError("read", path);
    files_.push_back({std::move(file), path, size});
    return absl::OkStatus();
  }

  int64_t size() const {
    int64_t size = 0;
    for (const File& file : files_) size += file.size;
    return size;
  }

  // The chunk at that offset; shorter at the end of a file, empty where all end or one has shrunk.
  std::string ReadChunk(int64_t offset) {
    for (File& file : files_) {
      if (offset >= file.size) {
        offset -= file.size;
        continue;
      }
      std::string data(std::min(kChunkBytes, file.size - offset), '\0');
      file.stream.clear();
      file.stream.seekg(offset);
      file.stream.read(data.data(), static_cast<std::streamsize>(data.size()));
      data.resize(static_cast<size_t>(file.stream.gcount()));
      return data;
    }
    return "";
  }

 private:
  struct File {
    std::ifstream stream;
    std::string path;
    int64_t size = 0;
  };
  std::vector<File> files_;
};

absl::StatusOr<int64_t> Client::QueryUpload(boss::v1::ImportStart start) {
  CallControl::Call call(control_, /*with_deadline=*/true);
  boss::v1::ImportModelResponse response;
  const auto writer = models_->ImportModel(&call.context(), &response);
  start.set_query_upload(true);
  boss::v1::ImportModelRequest message;
  *message.mutable_start() = std::move(start);
  writer->Write(message);
  writer->WritesDone();
  const absl::Status status = call.End(writer->Finish());
  if (!status.ok()) return status;
  return response.committed_bytes();
}

absl::StatusOr<boss::v1::ImportModelResponse> Client::SendUpload(const boss::v1::ImportStart& start,
                                                                 UploadedFiles& files, int64_t offset,
                                                                 absl::FunctionRef<void(int64_t)> on_progress) {
  CallControl::Call call(control_, /*with_deadline=*/false);
  boss::v1::ImportModelResponse response;
  const auto writer = models_->ImportModel(&call.context(), &response);
  boss::v1::ImportModelRequest message;
  *message.mutable_start() = start;
  bool open = writer->Write(message);
  while (open && offset < start.total_bytes()) {
    auto& chunk = *message.mutable_chunk();
    chunk.set_offset(offset);
    chunk.set_data(files.ReadChunk(offset));
    if (chunk.data().empty()) break;  // the file shrank: the server sees that bytes are missing
    chunk.set_crc32(Crc32(chunk.data()));
    offset += static_cast<int64_t>(chunk.data().size());
    open = writer->Write(message);
    if (open) on_progress(offset);
  }
  writer->WritesDone();
  const absl::Status status = call.End(writer->Finish());
  if (!status.ok()) return status;
  return response;
}

absl::StatusOr<boss::v1::ImportModelResponse> Client::ImportModel(boss::v1::ImportStart start, const std::string& path,
                                                                  absl::FunctionRef<void(int64_t)> on_progress,
                                                                  const std::string& decoder_path) {
  UploadedFiles files;
  if (const absl::Status status = files.Add(path); !status.ok()) return status;
  const int64_t model_bytes = files.size();
  if (!decoder_path.empty()) {
    if (const absl::Status status = files.Add(decoder_path); !status.ok()) return status;
    start.set_decoder_bytes(files.size() - model_bytes);
  }
  Sha256 digest;
  int64_t total = 0;
  for (std::string data = files.ReadChunk(0); !data.empty(); data = files.ReadChunk(total)) {
    digest.Update(data);
    total += static_cast<int64_t>(data.size());
  }
  if (total != files.size()) return FileError("read", path);
  start.set_total_bytes(total);
  start.set_sha256(digest.HexDigest());
  bool ask = !start.upload_id().empty();  // of an id of our own the server knows nothing yet
  if (!ask) start.set_upload_id(NewId());

  CallControl::Attempts attempts(control_, /*resumable=*/true);
  int64_t committed = 0;
  while (true) {
    absl::Status status;
    if (ask) {
      const absl::StatusOr<int64_t> answer = QueryUpload(start);
      status = answer.status();
      if (answer.ok() && *answer > committed) attempts.Progress();
      if (answer.ok()) committed = *answer;
    }
    if (status.ok()) {
      absl::StatusOr<boss::v1::ImportModelResponse> response = SendUpload(start, files, committed, on_progress);
      if (response.ok()) return response;
      status = response.status();
    }
    if (!attempts.Again(status)) return status;
    ask = true;
  }
}

absl::StatusOr<boss::v1::ExportModelResponse::Header> Client::ExportModel(
    boss::v1::ExportModelRequest request, const std::string& path, absl::FunctionRef<void(int64_t)> on_progress) {
  const std::string temporary = path + ".part";
  errno = 0;
  std::ofstream file(temporary, std::ios::binary | std::ios::trunc);
  if (!file) return FileError("create", temporary);
  absl::Cleanup remove = [&] { std::remove(temporary.c_str()); };

  boss::v1::ExportModelResponse::Header header;
  Sha256 digest;
  int64_t received = 0;
  request.set_offset(0);
  const auto take = [&](const boss::v1::ExportModelResponse& message) -> absl::Status {
    if (message.has_header()) {
      if (received > 0 && message.header().sha256() != header.sha256()) {
        return absl::DataLossError(absl::StrCat(request.model(), " is another file after the connection was lost"));
      }
      header = message.header();
      return absl::OkStatus();
    }
    const auto& chunk = message.chunk();
    if (chunk.offset() != received) {
      return absl::DataLossError(absl::StrCat("got a chunk at offset ", chunk.offset(), ", expected ", received));
    }
    if (Crc32(chunk.data()) != chunk.crc32()) {
      return absl::DataLossError(absl::StrCat("the chunk at offset ", chunk.offset(), " does not have its checksum"));
    }
    digest.Update(chunk.data());
    if (!file.write(chunk.data().data(), static_cast<std::streamsize>(chunk.data().size()))) {
      return FileError("write", temporary);
    }
    received += static_cast<int64_t>(chunk.data().size());
    on_progress(received);
    return absl::OkStatus();
  };

  CallControl::Attempts attempts(control_, /*resumable=*/true);
  while (true) {
    absl::Status status;
    {
      CallControl::Call call(control_, /*with_deadline=*/false);
      request.set_offset(received);
      const int64_t before = received;
      const auto reader = models_->ExportModel(&call.context(), request);
      boss::v1::ExportModelResponse message;
      absl::Status stop;
      while (stop.ok() && reader->Read(&message)) stop = take(message);
      if (!stop.ok()) call.context().TryCancel();
      status = call.End(reader->Finish());
      if (!stop.ok()) return stop;
      if (received > before) attempts.Progress();
    }
    if (status.ok()) break;
    if (!attempts.Again(status)) return status;
  }
  if (received != header.total_bytes()) {
    return absl::DataLossError(absl::StrCat("got ", received, " bytes, expected ", header.total_bytes()));
  }
  if (const std::string sha256 = digest.HexDigest(); sha256 != header.sha256()) {
    return absl::DataLossError(absl::StrCat("SHA-256 is ", sha256, ", expected ", header.sha256()));
  }
  file.close();
  if (!file || std::rename(temporary.c_str(), path.c_str()) != 0) return FileError("write", path);
  std::move(remove).Cancel();
  return header;
}

}  // namespace boss::client
