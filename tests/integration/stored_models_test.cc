// What clients and operators see of the model versions on the disk.
#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>

#include "core/io/atomic_file.h"
#include "tests/integration/bossd_fixture.h"
#include "tests/support/http_get.h"
#include "tests/support/prometheus_text.h"

namespace boss::testing {
namespace {

using ::testing::HasSubstr;

class StoredModelsTest : public BossdTest {
 protected:
  void Restart(const std::vector<std::string>& arguments = {}) {
    ASSERT_EQ(Stop(), 0);
    Start(arguments);
  }

  v1::Model GetModel(const std::string& name) {
    grpc::ClientContext context;
    v1::GetModelRequest request;
    request.set_model(name);
    v1::Model model;
    const grpc::Status status = models_->GetModel(&context, request, &model);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return model;
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
  grpc::Status Load(const std::string& reference) {
    grpc::ClientContext context;
    v1::LoadModelRequest request;
    request.set_model(reference);
    v1::ModelVersion version;
    return models_->LoadModel(&context, request, &version);
  }
  grpc::Status Delete(const std::string& reference, bool force = false) {
    grpc::ClientContext context;
    v1::DeleteVersionRequest request;
    request.set_model(reference);
    request.set_force(force);
    google::protobuf::Empty response;
    return models_->DeleteVersion(&context, request, &response);
  }
  // The weights of "vectors" as a new version of `model`.
  grpc::Status Import(const std::string& model) {
    const std::string bytes = *ReadFile(folder_ / "seeds/vectors/model.safetensors");
    grpc::ClientContext context;
    v1::ImportModelResponse response;
    const auto stream = models_->ImportModel(&context, &response);
    v1::ImportModelRequest request;
    request.mutable_start()->set_model(model);
    request.mutable_start()->set_architecture_json(kTinyVectorArchitecture);
    request.mutable_start()->set_total_bytes(static_cast<int64_t>(bytes.size()));
    stream->Write(request);
    request.mutable_chunk()->set_data(bytes);
    stream->Write(request);
    stream->WritesDone();
    return stream->Finish();
  }
  PrometheusText Metrics() {
    const std::string page = HttpGet(server_->metrics_port(), "/metrics");
    const auto metrics = ParsePrometheusText(absl::string_view(page).substr(page.find("\r\n\r\n") + 4));
    EXPECT_TRUE(metrics.ok()) << metrics.status();
    return metrics.ok() ? *metrics : PrometheusText();
  }
  double Versions(const std::string& state) {
    return Metrics().samples.at("boss_model_versions{state=\"" + state + "\"}");
  }
};

TEST_F(StoredModelsTest, ACorruptVersionIsReportedAndTheRestServes) {
  Start();
  EXPECT_EQ(Versions("published"), 2);
  EXPECT_EQ(Versions("quarantined"), 0);
  const double bytes = Metrics().Sum("boss_store_bytes");
  EXPECT_GT(bytes, 0);
  ASSERT_EQ(Stop(), 0);
  std::ofstream(folder_ / "data/models/images/1/model.safetensors", std::ios::app) << "x";

  Start();
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(Versions("published"), 1);
    EXPECT_EQ(Versions("quarantined"), 1);
    EXPECT_EQ(Metrics().Sum("boss_store_bytes"), bytes + 1);
    EXPECT_EQ(ListNames(""), (std::vector<std::string>{"images", "vectors"}));
    EXPECT_EQ(ListNames("state = QUARANTINED"), std::vector<std::string>{"images"});
    const v1::Model images = GetModel("images");
    ASSERT_EQ(images.versions_size(), 1);
    EXPECT_EQ(images.versions(0).state(), v1::ModelVersion::QUARANTINED);
    EXPECT_THAT(images.versions(0).error_message(), HasSubstr("model.safetensors is corrupt"));
    EXPECT_FALSE(images.aliases().contains("latest"));
    const grpc::Status load = Load("images@1");
    EXPECT_EQ(load.error_code(), grpc::StatusCode::DATA_LOSS);
    EXPECT_THAT(load.error_message(), HasSubstr("model.safetensors is corrupt"));
    EXPECT_EQ(Generate(Request("images", 1, 2)).status.error_code(), grpc::StatusCode::DATA_LOSS);
    EXPECT_TRUE(Generate(Request("vectors", 1, 2)).status.ok());
    Restart();
  }

  ASSERT_TRUE(Delete("images@1").ok());
  EXPECT_EQ(Versions("quarantined"), 0);
  EXPECT_EQ(ListNames(""), std::vector<std::string>{"vectors"});
  Restart();  // brings the seed model back, as another version
  EXPECT_EQ(GetModel("images").versions(0).version(), "2");
  EXPECT_TRUE(Generate(Request("images", 1, 2)).status.ok());
}

TEST_F(StoredModelsTest, WhatIsFoundCorruptWhileServingIsReportedThen) {
  Start();
  std::ofstream(folder_ / "data/models/vectors/1/model.safetensors", std::ios::app) << "x";
  EXPECT_EQ(Generate(Request("vectors", 1, 2)).status.error_code(), grpc::StatusCode::DATA_LOSS);
  EXPECT_EQ(GetModel("vectors").versions(0).state(), v1::ModelVersion::QUARANTINED);
  EXPECT_EQ(Versions("quarantined"), 1);
  EXPECT_TRUE(Generate(Request("images", 1, 2)).status.ok());
}

TEST_F(StoredModelsTest, TheInputOfALiveJobIsDeletedOnlyByForce) {
  Start();
  const v1::Job job = SubmitOptimize(200, 100'000);  // longer than this test
  const grpc::Status refused = Delete("vectors@1");
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(refused.error_message(), HasSubstr("job " + job.name().substr(job.name().find('/') + 1)));
  EXPECT_EQ(GetModel("vectors").versions(0).state(), v1::ModelVersion::AVAILABLE);
  grpc::ClientContext context;
  v1::CancelJobRequest cancel;
  cancel.set_name(job.name());
  v1::Job cancelled;
  ASSERT_TRUE(jobs_->CancelJob(&context, cancel, &cancelled).ok());
  grpc::Status watched;
  Watch(job.name(), 1, watched);  // until the job has ended
  ASSERT_TRUE(watched.ok()) << watched.error_message();
  EXPECT_TRUE(Delete("vectors@1").ok());
}

TEST_F(StoredModelsTest, OldVersionsGoByPolicy) {
  Start({"--keep-versions=2"});
  for (int version = 2; version <= 4; ++version) {
    const grpc::Status status = Import("vectors");
    ASSERT_TRUE(status.ok()) << status.error_message();
  }
  const v1::Model model = GetModel("vectors");
  ASSERT_EQ(model.versions_size(), 2);
  EXPECT_EQ(model.versions(0).version(), "4");
  EXPECT_EQ(model.versions(1).version(), "3");
  Restart({"--keep-versions=1"});
  EXPECT_EQ(GetModel("vectors").versions_size(), 1);
  EXPECT_EQ(Versions("published"), 2);
}

TEST_F(StoredModelsTest, TheQuotaEndsImports) {
  Start();
  const auto used = static_cast<int64_t>(Metrics().Sum("boss_store_bytes"));
  Restart({"--max-store-bytes=" + std::to_string(used + 100)});
  const grpc::Status full = Import("more");
  EXPECT_EQ(full.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << full.error_message();
  EXPECT_THAT(full.error_message(), HasSubstr(std::to_string(used + 100)));
  EXPECT_EQ(ListNames(""), (std::vector<std::string>{"images", "vectors"}));
  EXPECT_TRUE(Generate(Request("vectors", 1, 2)).status.ok());
}

}  // namespace
}  // namespace boss::testing
