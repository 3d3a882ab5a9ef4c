// Models over the wire: import, export, aliases, loading, deletion.
#include <gmock/gmock.h>
#include <zlib.h>

#include <functional>

#include "core/io/atomic_file.h"
#include "core/io/safetensors.h"
#include "server/store/sha256.h"
#include "tests/integration/bossd_fixture.h"

namespace boss::testing {
namespace {

using ::testing::HasSubstr;

class ModelsTest : public BossdTest {
 protected:
  void SetUp() override {
    Start();
    const auto bytes = ReadFile(folder_ / "seeds/vectors/model.safetensors");
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    weights_ = *bytes;
  }

  v1::ImportStart Upload() const {
    v1::ImportStart start;
    start.set_model("uploaded");
    start.set_architecture_json(kTinyVectorArchitecture);
    start.set_total_bytes(static_cast<int64_t>(weights_.size()));
    start.set_sha256(server::Sha256Hex(weights_));
    return start;
  }

  // In chunks of `chunk` bytes; `spoil` may change each before it is sent.
  grpc::Status Import(
      const v1::ImportStart& start, const std::string& bytes, v1::ImportModelResponse& response,
      const std::function<void(v1::ImportChunk&)>& spoil = [](v1::ImportChunk&) {}) {
    constexpr size_t kChunk = 700;
    grpc::ClientContext context;
    const auto stream = models_->ImportModel(&context, &response);
    v1::ImportModelRequest request;
    *request.mutable_start() = start;
    stream->Write(request);
    for (size_t offset = 0; offset < bytes.size(); offset += kChunk) {
      v1::ImportChunk& chunk = *request.mutable_chunk();
      chunk.set_offset(static_cast<int64_t>(offset));
      chunk.set_data(bytes.substr(offset, kChunk));
      chunk.set_crc32(static_cast<uint32_t>(
          crc32(0, reinterpret_cast<const Bytef*>(chunk.data().data()), static_cast<uInt>(chunk.data().size()))));
      spoil(chunk);
      if (!stream->Write(request)) break;
    }
    stream->WritesDone();
    return stream->Finish();
  }
  grpc::Status Import(const v1::ImportStart& start, const std::string& bytes) {
    v1::ImportModelResponse response;
    return Import(start, bytes, response);
  }

  grpc::Status Export(const v1::ExportModelRequest& request, v1::ExportModelResponse::Header& header,
                      std::string& bytes) {
    grpc::ClientContext context;
    const auto stream = models_->ExportModel(&context, request);
    v1::ExportModelResponse response;
    bytes.clear();
    while (stream->Read(&response)) {
      if (response.has_header()) {
        header = response.header();
      } else {
        EXPECT_EQ(response.chunk().offset(), request.offset() + static_cast<int64_t>(bytes.size()));
        bytes += response.chunk().data();
      }
    }
    return stream->Finish();
  }

  grpc::Status GetModel(const std::string& reference, v1::Model& model) {
    grpc::ClientContext context;
    v1::GetModelRequest request;
    request.set_model(reference);
    return models_->GetModel(&context, request, &model);
  }
  grpc::Status SetAlias(const std::string& alias, const std::string& version, v1::Model& model) {
    grpc::ClientContext context;
    v1::SetAliasRequest request;
    request.set_model("vectors");
    request.set_alias(alias);
    request.set_version(version);
    return models_->SetAlias(&context, request, &model);
  }
  grpc::Status Delete(const std::string& reference, bool force) {
    grpc::ClientContext context;
    v1::DeleteVersionRequest request;
    request.set_model(reference);
    request.set_force(force);
    google::protobuf::Empty response;
    return models_->DeleteVersion(&context, request, &response);
  }

  std::string weights_;
};

TEST_F(ModelsTest, WhatIsImportedServesAndIsExportedAgain) {
  v1::ImportStart start = Upload();
  start.set_alias("best");
  v1::ImportModelResponse imported;
  const grpc::Status status = Import(start, weights_, imported);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(imported.version().model(), "uploaded");
  EXPECT_EQ(imported.version().version(), "1");
  EXPECT_EQ(imported.committed_bytes(), static_cast<int64_t>(weights_.size()));
  EXPECT_EQ(Generate(Request("uploaded@best", 2, 3)).Bytes(), Generate(Request("vectors", 2, 3)).Bytes());

  v1::ExportModelRequest request;
  request.set_model("uploaded");
  v1::ExportModelResponse::Header header;
  std::string bytes;
  ASSERT_TRUE(Export(request, header, bytes).ok());
  EXPECT_EQ(header.total_bytes(), static_cast<int64_t>(bytes.size()));
  EXPECT_EQ(header.sha256(), server::Sha256Hex(bytes));
  EXPECT_EQ(ParseSafetensors(bytes)->tensors.size(), ParseSafetensors(weights_)->tensors.size());
  std::string tail;
  request.set_offset(100);
  ASSERT_TRUE(Export(request, header, tail).ok());
  EXPECT_EQ(tail, bytes.substr(100));
  request.set_offset(static_cast<int64_t>(bytes.size()) + 1);
  EXPECT_EQ(Export(request, header, tail).error_code(), grpc::StatusCode::OUT_OF_RANGE);
  request.set_offset(0);
  request.set_part(v1::ExportModelRequest::ADAPTER);
  EXPECT_EQ(Export(request, header, tail).error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  request.set_part(v1::ExportModelRequest::MANIFEST);
  ASSERT_TRUE(Export(request, header, tail).ok());
  EXPECT_THAT(tail, HasSubstr("architecture"));
}

TEST_F(ModelsTest, UploadsThatAreNotWholeOrNotRightPublishNothing) {
  v1::ImportModelResponse response;
  const auto flip = [](v1::ImportChunk& chunk) { (*chunk.mutable_data())[0] ^= 1; };
  EXPECT_EQ(Import(Upload(), weights_, response, flip).error_code(), grpc::StatusCode::DATA_LOSS);  // CRC-32
  v1::ImportStart start = Upload();
  start.set_sha256(std::string(64, '0'));
  EXPECT_EQ(Import(start, weights_).error_code(), grpc::StatusCode::DATA_LOSS);
  EXPECT_EQ(Import(Upload(), weights_.substr(0, weights_.size() - 1)).error_code(), grpc::StatusCode::DATA_LOSS);
  start = Upload();
  start.clear_sha256();
  EXPECT_EQ(Import(start, std::string(weights_.size(), 'x')).error_code(), grpc::StatusCode::DATA_LOSS);
  const grpc::Status gap =
      Import(Upload(), weights_, response, [](v1::ImportChunk& chunk) { chunk.set_offset(chunk.offset() + 1); });
  EXPECT_EQ(gap.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(FieldOfError(gap), "chunk.offset");
  start = Upload();
  start.set_architecture_json(R"({"model": {"architecture": "mlp", "dim": 2, "hidden": 17, "layers": 2}})");
  EXPECT_EQ(Import(start, weights_).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  start = Upload();
  start.clear_architecture_json();
  EXPECT_EQ(FieldOfError(Import(start, weights_)), "start.architecture_json");
  start.set_preset("x");
  EXPECT_EQ(FieldOfError(Import(start, weights_)), "start.preset");
  start = Upload();
  start.set_alias("12");
  EXPECT_EQ(FieldOfError(Import(start, weights_)), "start.alias");
  v1::Model model;
  EXPECT_EQ(GetModel("uploaded", model).error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(ModelsTest, ModelsAreListedInPages) {
  std::vector<std::string> names;
  v1::ListModelsRequest request;
  request.set_page_size(1);
  do {
    grpc::ClientContext context;
    v1::ListModelsResponse response;
    ASSERT_TRUE(models_->ListModels(&context, request, &response).ok());
    for (const v1::Model& model : response.models()) names.push_back(model.name());
    request.set_page_token(response.next_page_token());
  } while (!request.page_token().empty());
  EXPECT_EQ(names, (std::vector<std::string>{"images", "vectors"}));
  request.set_page_size(50);
  request.set_filter("architecture = mlp");
  grpc::ClientContext context;
  v1::ListModelsResponse response;
  ASSERT_TRUE(models_->ListModels(&context, request, &response).ok());
  ASSERT_EQ(response.models_size(), 1);
  const v1::Model& model = response.models(0);
  EXPECT_EQ(model.name(), "vectors");
  EXPECT_EQ(model.num_classes(), 3);
  EXPECT_EQ(model.sample_shape_size(), 1);
  EXPECT_GT(model.parameter_count(), 0);
  EXPECT_EQ(model.aliases().at("latest"), "1");
  EXPECT_EQ(model.versions(0).state(), v1::ModelVersion::AVAILABLE);
}

TEST_F(ModelsTest, LoadUnloadAliasAndDelete) {
  grpc::ClientContext load_context;
  v1::LoadModelRequest load;
  load.set_model("vectors");
  v1::ModelVersion version;
  ASSERT_TRUE(models_->LoadModel(&load_context, load, &version).ok());
  EXPECT_EQ(version.state(), v1::ModelVersion::READY);
  EXPECT_GT(version.memory_bytes(), 0);
  EXPECT_EQ(Delete("vectors@1", false).error_code(), grpc::StatusCode::FAILED_PRECONDITION);  // it is loaded
  grpc::ClientContext unload_context;
  v1::UnloadModelRequest unload;
  unload.set_model("vectors@1");
  ASSERT_TRUE(models_->UnloadModel(&unload_context, unload, &version).ok());
  EXPECT_EQ(version.state(), v1::ModelVersion::AVAILABLE);

  v1::Model model;
  EXPECT_EQ(FieldOfError(SetAlias("stable", "one", model)), "version");
  EXPECT_EQ(SetAlias("stable", "7", model).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(SetAlias("latest", "1", model).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(SetAlias("stable", "", model).error_code(), grpc::StatusCode::NOT_FOUND);
  ASSERT_TRUE(SetAlias("stable", "1", model).ok());
  EXPECT_EQ(model.aliases().at("stable"), "1");
  EXPECT_EQ(Delete("vectors@1", false).error_code(), grpc::StatusCode::FAILED_PRECONDITION);  // it has an alias
  EXPECT_EQ(FieldOfError(Delete("vectors@stable", true)), "model");
  ASSERT_TRUE(Delete("vectors@1", true).ok());
  EXPECT_EQ(Generate(Request("vectors@1", 1, 2)).status.error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(ModelsTest, AModelThatHasSampledCanBeUnloaded) {
  ASSERT_TRUE(Generate(Request("vectors", 2, 2)).status.ok());
  grpc::ClientContext context;
  v1::UnloadModelRequest unload;
  unload.set_model("vectors");
  v1::ModelVersion version;
  ASSERT_TRUE(models_->UnloadModel(&context, unload, &version).ok());
  // The call's own hold on the model ends shortly after the client has heard of its end.
  v1::Model model;
  do {
    ASSERT_TRUE(GetModel("vectors@1", model).ok());
  } while (model.versions(0).state() == v1::ModelVersion::UNLOADING);
  EXPECT_EQ(model.versions(0).state(), v1::ModelVersion::AVAILABLE);
}

TEST_F(ModelsTest, TellsWhatTheServerCanDo) {
  grpc::ClientContext context;
  v1::Capabilities capabilities;
  ASSERT_TRUE(models_->GetCapabilities(&context, {}, &capabilities).ok());
  EXPECT_EQ(capabilities.devices(0).name(), "cpu");
  EXPECT_EQ(capabilities.solvers_size(), 4);
  EXPECT_GT(capabilities.limits().max_samples_per_request(), 0);
  EXPECT_FALSE(capabilities.server_version().empty());
  EXPECT_THAT(capabilities.presets(), ::testing::IsSupersetOf({"cifar10-ddpmpp", "ncsnpp-256", "sit-xl-2-256"}));
  EXPECT_THAT(capabilities.architectures(), ::testing::IsSupersetOf({"ncsnpp", "dit", "mlp"}));
}

}  // namespace
}  // namespace boss::testing
