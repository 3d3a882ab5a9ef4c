// Uploads over the wire: what they survive, and what they are refused for.
#include <gmock/gmock.h>
#include <zlib.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <thread>

#include "core/io/atomic_file.h"
#include "core/io/safetensors.h"
#include "server/store/sha256.h"
#include "tests/integration/bossd_fixture.h"

namespace boss::testing {
namespace {

using ::testing::HasSubstr;

// 8.7 MB of weights: two whole pieces of an upload, and a rest.
constexpr char kLargeArchitecture[] = R"({"model": {"architecture": "mlp", "dim": 2, "hidden": 1040, "layers": 3}})";
constexpr int64_t kPieceBytes = int64_t{4} << 20;

// One ImportModel call.
class ImportCall {
 public:
  ImportCall(v1::Models::Stub& models, const v1::ImportStart& start)
      : stream_(models.ImportModel(&context_, &response_)) {
    v1::ImportModelRequest request;
    *request.mutable_start() = start;
    stream_->Write(request);
  }
  bool Send(int64_t offset, const std::string& data) {
    v1::ImportModelRequest request;
    v1::ImportChunk& chunk = *request.mutable_chunk();
    chunk.set_offset(offset);
    chunk.set_data(data);
    chunk.set_crc32(
        static_cast<uint32_t>(crc32(0, reinterpret_cast<const Bytef*>(data.data()), static_cast<uInt>(data.size()))));
    return Send(request);
  }
  bool Send(const v1::ImportModelRequest& request) { return stream_->Write(request); }
  void Cancel() { context_.TryCancel(); }
  grpc::Status Finish() {
    stream_->WritesDone();
    return stream_->Finish();
  }
  const v1::ImportModelResponse& response() const { return response_; }

 private:
  grpc::ClientContext context_;
  v1::ImportModelResponse response_;
  const std::unique_ptr<grpc::ClientWriter<v1::ImportModelRequest>> stream_;
};

class ImportTest : public BossdTest {
 protected:
  ImportTest() { weights_ = *ReadFile(folder_ / "seeds/vectors/model.safetensors"); }

  v1::ImportStart Upload(const std::string& upload_id = "") const {
    v1::ImportStart start;
    start.set_model("uploaded");
    start.set_architecture_json(architecture_);
    start.set_total_bytes(static_cast<int64_t>(weights_.size()));
    start.set_sha256(server::Sha256Hex(weights_));
    start.set_upload_id(upload_id);
    return start;
  }
  void TakeLargeWeights() {
    architecture_ = kLargeArchitecture;
    weights_ = *SerializeSafetensors({TinyModel(kLargeArchitecture, /*seed=*/5)->State(), {}});
    ASSERT_GT(weights_.size(), 2u * kPieceBytes);
  }

  // The weights from `offset` on, in chunks.
  grpc::Status Import(const v1::ImportStart& start, int64_t offset, v1::ImportModelResponse& response) {
    constexpr int64_t kChunk = 1 << 20;
    ImportCall call(*models_, start);
    for (; offset < static_cast<int64_t>(weights_.size()); offset += kChunk) {
      if (!call.Send(offset, weights_.substr(static_cast<size_t>(offset), kChunk))) break;
    }
    const grpc::Status status = call.Finish();
    response = call.response();
    return status;
  }
  grpc::Status Import(const v1::ImportStart& start, int64_t offset = 0) {
    v1::ImportModelResponse response;
    return Import(start, offset, response);
  }
  int64_t Query(v1::ImportStart start) {
    start.set_query_upload(true);
    ImportCall call(*models_, start);
    const grpc::Status status = call.Finish();
    EXPECT_TRUE(status.ok()) << status.error_message();
    EXPECT_FALSE(call.response().has_version());
    return status.ok() ? call.response().committed_bytes() : -1;
  }

  std::string Uploads() const { return folder_ / "data/uploads"; }
  // Until the server has written a file of so many bytes.
  void AwaitFile(const std::string& path, uintmax_t size) {
    std::error_code error;
    while (std::filesystem::file_size(path, error) != size || error) std::this_thread::yield();
  }
  std::vector<std::string> ListNames(const std::string& filter) {
    grpc::ClientContext context;
    v1::ListModelsRequest request;
    request.set_filter(filter);
    v1::ListModelsResponse response;
    const grpc::Status status = models_->ListModels(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    std::vector<std::string> names;
    for (const v1::Model& model : response.models()) names.push_back(model.name());
    return names;
  }
  int NumVersions(const std::string& name) {
    grpc::ClientContext context;
    v1::GetModelRequest request;
    request.set_model(name);
    v1::Model model;
    return models_->GetModel(&context, request, &model).ok() ? model.versions_size() : 0;
  }

  std::string architecture_ = kTinyVectorArchitecture;
  std::string weights_;
};

TEST_F(ImportTest, GoesOnAfterTheConnectionWasLost) {
  Start();
  const v1::ImportStart start = Upload("lost-connection");
  {
    ImportCall call(*models_, start);
    ASSERT_TRUE(call.Send(0, weights_.substr(0, 700)));
    ASSERT_TRUE(call.Send(700, weights_.substr(700, 100)));
    AwaitFile(Uploads() + "/lost-connection/00000000000000000000.part", 800);
    call.Cancel();
    EXPECT_EQ(call.Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  EXPECT_EQ(Query(start), 800);
  EXPECT_EQ(NumVersions("uploaded"), 0);
  const grpc::Status again = Import(start, 0);
  EXPECT_EQ(again.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(FieldOfError(again), "chunk.offset");
  EXPECT_THAT(again.error_message(), HasSubstr("got 0, expected 800"));
  v1::ImportModelResponse response;
  const grpc::Status status = Import(start, 800, response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.committed_bytes(), start.total_bytes());
  EXPECT_EQ(response.version().version(), "1");
  EXPECT_EQ(Generate(Request("uploaded", 2, 3)).Bytes(), Generate(Request("vectors", 2, 3)).Bytes());
  EXPECT_TRUE(std::filesystem::is_empty(Uploads()));
}

TEST_F(ImportTest, GoesOnAfterTheServerWasKilled) {
  TakeLargeWeights();
  Start();
  v1::ImportStart start = Upload("killed-server");
  {
    ImportCall call(*models_, start);
    for (int64_t offset = 0; offset < kPieceBytes + (2 << 20); offset += 1 << 20) {
      ASSERT_TRUE(call.Send(offset, weights_.substr(static_cast<size_t>(offset), 1 << 20)));
    }
    AwaitFile(Uploads() + "/killed-server/00000000000000000000", kPieceBytes);
    server_->Signal(SIGKILL);
    server_->WaitForExit();
    EXPECT_FALSE(call.Finish().ok());
  }
  Start();
  EXPECT_EQ(NumVersions("uploaded"), 0);
  const int64_t committed = Query(start);
  EXPECT_EQ(committed, kPieceBytes);
  v1::ImportModelResponse resumed, whole;
  const grpc::Status status = Import(start, committed, resumed);
  ASSERT_TRUE(status.ok()) << status.error_message();
  start = Upload();
  start.set_model("undisturbed");
  ASSERT_TRUE(Import(start, 0, whole).ok());
  EXPECT_EQ(resumed.version().weights_sha256(), whole.version().weights_sha256());
}

TEST_F(ImportTest, IsPublishedOnceHoweverOftenTheServerIsKilled) {
  Start();
  v1::ImportStart start = Upload("once");
  start.set_alias("best");
  ASSERT_TRUE(Import(start).ok());
  for (int round = 0; round < 2; ++round) {
    server_->Signal(SIGKILL);
    server_->WaitForExit();
    Start();
    // As a client that never saw the answer.
    EXPECT_EQ(Query(start), start.total_bytes());
    v1::ImportModelResponse response;
    const grpc::Status status = Import(start, start.total_bytes(), response);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(response.version().version(), "1");
    EXPECT_EQ(response.committed_bytes(), start.total_bytes());
    // Even one that sends everything again.
    v1::ImportModelResponse repeated;
    ASSERT_TRUE(Import(start, 0, repeated).ok());
    EXPECT_EQ(repeated.version().version(), "1");
  }
  EXPECT_EQ(NumVersions("uploaded"), 1);
  EXPECT_TRUE(std::filesystem::is_empty(Uploads()));
}

TEST_F(ImportTest, ASecondConnectionTakesOver) {
  Start();
  const v1::ImportStart start = Upload("shared");
  ImportCall first(*models_, start);
  ASSERT_TRUE(first.Send(0, weights_.substr(0, 500)));
  AwaitFile(Uploads() + "/shared/00000000000000000000.part", 500);
  v1::ImportModelResponse response;
  const grpc::Status status = Import(start, 500, response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  first.Send(500, weights_.substr(500));
  const grpc::Status aborted = first.Finish();
  EXPECT_EQ(aborted.error_code(), grpc::StatusCode::ABORTED) << aborted.error_message();
  EXPECT_EQ(NumVersions("uploaded"), 1);
}

TEST_F(ImportTest, AnIdIsNotSharedByOtherContents) {
  Start();
  ImportCall call(*models_, Upload("mine"));
  ASSERT_TRUE(call.Send(0, weights_.substr(0, 500)));
  AwaitFile(Uploads() + "/mine/00000000000000000000.part", 500);
  v1::ImportStart other = Upload("mine");
  other.set_sha256(std::string(64, '0'));
  for (const bool query : {false, true}) {
    other.set_query_upload(query);
    const grpc::Status status = Import(other);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::ALREADY_EXISTS) << status.error_message();
    EXPECT_THAT(status.error_message(), HasSubstr("start.upload_id"));
  }
  // The upload has not noticed.
  ASSERT_TRUE(call.Send(500, weights_.substr(500)));
  EXPECT_TRUE(call.Finish().ok());
}

TEST_F(ImportTest, WhatIsCorruptIsNotKept) {
  Start();
  v1::ImportStart start = Upload("corrupt");
  {
    ImportCall call(*models_, start);
    ASSERT_TRUE(call.Send(0, weights_.substr(0, 500)));
    v1::ImportModelRequest request;
    request.mutable_chunk()->set_offset(500);
    request.mutable_chunk()->set_data(weights_.substr(500));
    request.mutable_chunk()->set_crc32(1);
    call.Send(request);
    EXPECT_EQ(call.Finish().error_code(), grpc::StatusCode::DATA_LOSS);
  }
  EXPECT_EQ(Query(start), 500);  // what came before the chunk is right
  const std::string right = weights_;
  weights_.back() ^= 1;
  EXPECT_EQ(Import(start, 500).error_code(), grpc::StatusCode::DATA_LOSS);  // SHA-256
  EXPECT_EQ(Query(start), 0);
  weights_ = right;
  EXPECT_TRUE(Import(start).ok());
}

TEST_F(ImportTest, AValidationPublishesNothing) {
  Start();
  for (const std::string id : {"", "check"}) {
    v1::ImportStart start = Upload(id);
    start.set_validate_only(true);
    v1::ImportModelResponse response;
    const grpc::Status status = Import(start, 0, response);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_FALSE(response.has_version());
    EXPECT_EQ(response.committed_bytes(), start.total_bytes());
    start.set_architecture_json(kTinyImageArchitecture);
    EXPECT_EQ(Import(start).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  }
  EXPECT_EQ(NumVersions("uploaded"), 0);
  EXPECT_TRUE(std::filesystem::is_empty(Uploads()));
}

TEST_F(ImportTest, LabelsComeBackAndFilter) {
  Start();
  v1::ImportStart start = Upload();
  (*start.mutable_labels())["team"] = "vision";
  (*start.mutable_labels())["stage"] = "test";
  v1::ImportModelResponse response;
  ASSERT_TRUE(Import(start, 0, response).ok());
  EXPECT_EQ(response.version().labels().at("team"), "vision");
  grpc::ClientContext context;
  v1::GetModelRequest get;
  get.set_model("uploaded");
  v1::Model model;
  ASSERT_TRUE(models_->GetModel(&context, get, &model).ok());
  EXPECT_EQ(model.labels().size(), 2u);
  EXPECT_EQ(model.versions(0).labels().at("stage"), "test");
  EXPECT_EQ(ListNames(R"(labels.team = "vision" AND labels.stage = test)"), std::vector<std::string>{"uploaded"});
  EXPECT_TRUE(ListNames("labels.team = audio").empty());
  EXPECT_TRUE(ListNames("labels.nothing = vision").empty());
  (*start.mutable_labels())[""] = "no key";
  EXPECT_EQ(FieldOfError(Import(start)), "start.labels");
}

TEST_F(ImportTest, LimitsHoldBeforeAnythingIsWritten) {
  TakeLargeWeights();
  Start({"--max-store-bytes=4000000", "--max-import-bytes=9000000"});
  EXPECT_EQ(Import(Upload("big")).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  v1::ImportStart start = Upload("big");
  start.set_total_bytes(9'000'001);
  const grpc::Status status = Import(start);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("start.total_bytes"));
  EXPECT_TRUE(std::filesystem::is_empty(Uploads()));
  EXPECT_TRUE(Generate(Request("vectors", 1, 2)).status.ok());
}

TEST_F(ImportTest, StreamsThatMakeNoSenseAreErrors) {
  Start();
  const auto message = [](const std::function<void(v1::ImportModelRequest&)>& fill) {
    v1::ImportModelRequest request;
    fill(request);
    return request;
  };
  const auto start = message([&](auto& request) { *request.mutable_start() = Upload(); });
  const auto chunk = message([&](auto& request) { request.mutable_chunk()->set_data(weights_); });
  const auto empty = message([](auto&) {});
  const auto large = message([](auto& request) { request.mutable_chunk()->set_data(std::string((1 << 20) + 1, 'x')); });
  const auto negative = message([&](auto& request) {
    request.mutable_chunk()->set_data("x");
    request.mutable_chunk()->set_offset(-1);
  });
  const auto beyond = message([&](auto& request) { request.mutable_chunk()->set_data(weights_ + "x"); });
  const auto query = message([&](auto& request) { request.mutable_start()->set_query_upload(true); });
  const struct {
    std::vector<v1::ImportModelRequest> messages;
    grpc::StatusCode code;
    const char* field;
  } cases[] = {
      {{}, grpc::StatusCode::INVALID_ARGUMENT, "start"},
      {{empty}, grpc::StatusCode::INVALID_ARGUMENT, "start"},
      {{chunk, start}, grpc::StatusCode::INVALID_ARGUMENT, "start"},
      {{start, start}, grpc::StatusCode::INVALID_ARGUMENT, "chunk"},
      {{start, empty}, grpc::StatusCode::INVALID_ARGUMENT, "chunk"},
      {{start, large}, grpc::StatusCode::INVALID_ARGUMENT, "chunk.data"},
      {{start, beyond}, grpc::StatusCode::INVALID_ARGUMENT, "chunk.data"},
      {{start, negative}, grpc::StatusCode::INVALID_ARGUMENT, "chunk.offset"},
      {{start, chunk, chunk}, grpc::StatusCode::INVALID_ARGUMENT, "chunk.offset"},
      {{start}, grpc::StatusCode::DATA_LOSS, ""},
      {{query}, grpc::StatusCode::INVALID_ARGUMENT, "start.model"},
  };
  for (const auto& one : cases) {
    grpc::ClientContext context;
    v1::ImportModelResponse response;
    const auto stream = models_->ImportModel(&context, &response);
    for (const v1::ImportModelRequest& request : one.messages) stream->Write(request);
    stream->WritesDone();
    const grpc::Status status = stream->Finish();
    EXPECT_EQ(status.error_code(), one.code) << status.error_message();
    EXPECT_EQ(FieldOfError(status), one.field) << status.error_message();
  }
  EXPECT_EQ(NumVersions("uploaded"), 0);
  EXPECT_TRUE(std::filesystem::is_empty(Uploads()));
  EXPECT_EQ(Stop(), 0);
}

}  // namespace
}  // namespace boss::testing
