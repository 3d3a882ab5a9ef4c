// The Open Inference Protocol against a real server: what it shares with Generate, and where it differs.
#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/integration/inference_fixture.h"
#include "tests/support/http_get.h"

namespace boss::testing {
namespace {

using inference::ModelInferRequest;
using inference::ModelInferResponse;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST_F(InferenceTest, TellsWhatServesAndWhatItTakes) {
  StartInference();
  grpc::ClientContext live_context, metadata_context, model_context, vectors_context, unknown_context;
  inference::ServerLiveResponse live;
  ASSERT_TRUE(inference_->ServerLive(&live_context, {}, &live).ok());
  EXPECT_TRUE(live.live());
  EXPECT_TRUE(ServerReady());
  inference::ServerMetadataResponse server;
  ASSERT_TRUE(inference_->ServerMetadata(&metadata_context, {}, &server).ok());
  EXPECT_EQ(server.name(), "boss");
  EXPECT_FALSE(server.version().empty());

  inference::ModelMetadataRequest request;
  request.set_name("images");
  inference::ModelMetadataResponse model;
  ASSERT_TRUE(inference_->ModelMetadata(&model_context, request, &model).ok());
  EXPECT_EQ(model.name(), "images");
  EXPECT_THAT(model.versions(), ElementsAre("1"));
  std::map<std::string, std::string> tensors;
  for (const auto* list : {&model.inputs(), &model.outputs()}) {
    for (const auto& tensor : *list) {
      std::string& text = tensors[(list == &model.inputs() ? "> " : "< ") + tensor.name()];
      text = tensor.datatype();
      for (const int64_t size : tensor.shape()) absl::StrAppend(&text, " ", size);
    }
  }
  EXPECT_EQ(tensors["> steps"], "INT32 1");
  EXPECT_EQ(tensors["> class_labels"], "INT64 -1");
  EXPECT_EQ(tensors["> initial_noise"], "FP32 -1 1 8 8");
  EXPECT_EQ(tensors["> solver"], "BYTES 1");
  EXPECT_EQ(tensors["< samples"], "FP32 -1 1 8 8");
  EXPECT_EQ(tensors["< seeds"], "UINT64 -1");
  EXPECT_EQ(tensors["< time_grid"], "FP64 -1");

  request.set_name("nothing");
  EXPECT_EQ(inference_->ModelMetadata(&unknown_context, request, &model).error_code(), grpc::StatusCode::NOT_FOUND);

  EXPECT_TRUE(Ready("images", ""));
  EXPECT_TRUE(Ready("images", "1"));
  EXPECT_TRUE(Ready("images", "latest"));
  EXPECT_FALSE(Ready("images", "2"));
  EXPECT_FALSE(Ready("nothing", ""));
}

TEST_F(InferenceTest, AQuarantinedVersionIsNotReady) {
  StartInference();
  const std::string weights = folder_ / "data/models/images/1/model.safetensors";
  std::filesystem::resize_file(weights, std::filesystem::file_size(weights) - 100);
  EXPECT_TRUE(Ready("images", "1"));  // nobody has read it yet
  ModelInferResponse response;
  EXPECT_EQ(Infer(RawRequest("images"), response).error_code(), grpc::StatusCode::DATA_LOSS);
  EXPECT_FALSE(Ready("images", "1"));
  EXPECT_TRUE(Ready("vectors", ""));
}

TEST_F(InferenceTest, RawInputsGiveTheBytesOfGenerate) {
  StartInference();
  const Generated expected = Generate(Same("images", v1::OUTPUT_FORMAT_FLOAT32));
  ASSERT_TRUE(expected.status.ok()) << expected.status.error_message();
  ModelInferResponse response;
  const grpc::Status status = Infer(RawRequest("images"), response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.model_name(), "images");
  EXPECT_EQ(response.model_version(), "1");
  EXPECT_EQ(response.id(), "r1");
  // None were named, so all come.
  ASSERT_EQ(response.outputs_size(), 3);
  ASSERT_EQ(response.raw_output_contents_size(), 3);
  EXPECT_EQ(response.outputs(0).name(), "samples");
  EXPECT_EQ(response.outputs(0).datatype(), "FP32");
  EXPECT_THAT(response.outputs(0).shape(), ElementsAre(2, 1, 8, 8));
  EXPECT_EQ(response.raw_output_contents(0), expected.Bytes());
  EXPECT_THAT(Values<uint64_t>(response.raw_output_contents(1)), ElementsAre(42, 43));
  EXPECT_THAT(Values<double>(response.raw_output_contents(2)), ElementsAre(0, 0.25, 0.5, 0.75, 1));
}

TEST_F(InferenceTest, TypedInputsGiveTypedOutputs) {
  StartInference();
  v1::GenerateRequest generate = Same("images", v1::OUTPUT_FORMAT_FLOAT32);
  generate.add_class_labels(1);
  generate.add_class_labels(2);
  generate.set_guidance_scale(1.5);
  generate.set_solver(v1::SOLVER_HEUN);
  const Generated expected = Generate(generate);
  ASSERT_TRUE(expected.status.ok()) << expected.status.error_message();

  ModelInferRequest request;
  request.set_model_name("images");
  request.set_model_version("1");
  AddTyped(request, "steps", "INT64", {1}).mutable_contents()->add_int64_contents(4);
  AddTyped(request, "seed", "UINT64", {1}).mutable_contents()->add_uint64_contents(42);
  auto& labels = AddTyped(request, "class_labels", "INT64", {2});
  labels.mutable_contents()->add_int64_contents(1);
  labels.mutable_contents()->add_int64_contents(2);
  AddTyped(request, "guidance_scale", "FP32", {1}).mutable_contents()->add_fp32_contents(1.5);
  AddTyped(request, "solver", "BYTES", {1}).mutable_contents()->add_bytes_contents("heun");
  (*request.mutable_parameters())["deterministic"].set_bool_param(true);
  request.add_outputs()->set_name("seeds");
  request.add_outputs()->set_name("samples");
  ModelInferResponse response;
  const grpc::Status status = Infer(request, response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.raw_output_contents_size(), 0);
  ASSERT_EQ(response.outputs_size(), 2);  // in the order of the request
  EXPECT_THAT(response.outputs(0).contents().uint64_contents(), ElementsAre(42, 43));
  const auto& floats = response.outputs(1).contents().fp32_contents();
  EXPECT_EQ(Bytes(std::vector<float>(floats.begin(), floats.end())), expected.Bytes());
}

TEST_F(InferenceTest, FormatsAreThoseOfGenerate) {
  StartInference();
  const Generated pixels = Generate(Same("images", v1::OUTPUT_FORMAT_UINT8));
  const Generated files = Generate(Same("images", v1::OUTPUT_FORMAT_PNG));
  ASSERT_TRUE(pixels.status.ok() && files.status.ok());
  ModelInferRequest request = RawRequest("images");
  auto& output = *request.add_outputs();
  output.set_name("samples");
  (*output.mutable_parameters())["format"].set_string_param("uint8");
  ModelInferResponse response;
  ASSERT_TRUE(Infer(request, response).ok());
  EXPECT_EQ(response.outputs(0).datatype(), "UINT8");
  EXPECT_THAT(response.outputs(0).shape(), ElementsAre(2, 8, 8, 1));
  EXPECT_EQ(response.raw_output_contents(0), pixels.Bytes());

  // Of a client that cannot set parameters of outputs.
  output.clear_parameters();
  (*request.mutable_parameters())["format"].set_string_param("png");
  ASSERT_TRUE(Infer(request, response).ok());
  EXPECT_EQ(response.outputs(0).datatype(), "BYTES");
  EXPECT_THAT(response.outputs(0).shape(), ElementsAre(2));
  EXPECT_EQ(response.raw_output_contents(0), WithLength(files.samples[0].data()) + WithLength(files.samples[1].data()));

  ModelInferRequest typed;
  typed.set_model_name("images");
  AddTyped(typed, "steps", "INT32", {1}).mutable_contents()->add_int_contents(4);
  for (const auto& [name, value] : std::map<std::string, int>{{"seed", 42}, {"num_samples", 2}}) {
    (*typed.mutable_parameters())[name].set_int64_param(value);
  }
  (*typed.mutable_parameters())["deterministic"].set_bool_param(true);
  (*typed.mutable_parameters())["format"].set_string_param("png");
  ASSERT_TRUE(Infer(typed, response).ok());
  EXPECT_THAT(response.outputs(0).contents().bytes_contents(),
              ElementsAre(files.samples[0].data(), files.samples[1].data()));
  (*typed.mutable_parameters())["format"].set_string_param("uint8");
  ASSERT_TRUE(Infer(typed, response).ok());
  const auto& values = response.outputs(0).contents().uint_contents();
  EXPECT_EQ(std::string(values.begin(), values.end()), pixels.Bytes());
}

TEST_F(InferenceTest, TakesNoiseAndTimes) {
  StartInference();
  v1::GenerateRequest generate = Request("vectors", 2, 0);
  generate.set_deterministic(true);
  generate.set_schedule(v1::SCHEDULE_KIND_EXPLICIT);
  for (const double t : {0.0, 0.5, 1.0}) generate.add_time_grid(t);
  const std::vector<float> noise = {0.5, -1, 2, 0.25};
  generate.mutable_initial_noise()->set_dtype(v1::Tensor::DATA_TYPE_FLOAT32);
  generate.mutable_initial_noise()->mutable_shape()->Add(2);
  generate.mutable_initial_noise()->mutable_shape()->Add(2);
  generate.mutable_initial_noise()->set_data(Bytes(noise));
  const Generated expected = Generate(generate);
  ASSERT_TRUE(expected.status.ok()) << expected.status.error_message();

  ModelInferRequest request;  // num_samples and the schedule follow from what is there
  request.set_model_name("vectors");
  AddRaw<float>(request, "initial_noise", "FP32", {2, 2}, noise);
  AddRaw<float>(request, "time_grid", "FP32", {3}, {0, 0.5, 1});
  AddRaw<uint8_t>(request, "deterministic", "BOOL", {1}, {1});
  AddRawText(request, "solver", "euler");
  request.add_outputs()->set_name("samples");
  ModelInferResponse response;
  const grpc::Status status = Infer(request, response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.raw_output_contents(0), expected.Bytes());
  EXPECT_THAT(response.outputs(0).shape(), ElementsAre(2, 2));
}

TEST_F(InferenceTest, EveryErrorHasItsCodeAndField) {
  StartInference();
  struct Case {
    std::function<void(ModelInferRequest&)> change;
    grpc::StatusCode code;
    std::string field;
  };
  using enum grpc::StatusCode;
  const std::vector<Case> cases = {
      {[](auto& r) { r.set_model_name("nothing"); }, NOT_FOUND, "model"},
      {[](auto& r) { r.clear_model_name(); }, INVALID_ARGUMENT, "model_name"},
      {[](auto& r) { r.set_model_version("7"); }, NOT_FOUND, "model"},
      {[](auto& r) { r.set_model_name("vectors@1"), r.set_model_version("1"); }, INVALID_ARGUMENT, "model_version"},
      {[](auto& r) { r.mutable_inputs(0)->set_datatype("FP32"); }, INVALID_ARGUMENT, "steps"},
      {[](auto& r) { r.mutable_inputs(0)->set_datatype("INT128"); }, INVALID_ARGUMENT, "steps"},
      {[](auto& r) { r.mutable_inputs(0)->set_shape(0, 2); }, INVALID_ARGUMENT, "steps"},
      {[](auto& r) { r.mutable_inputs(0)->set_shape(0, -1); }, INVALID_ARGUMENT, "steps"},
      {[](auto& r) { r.mutable_inputs(0)->mutable_contents()->add_int_contents(4); }, INVALID_ARGUMENT, "steps"},
      {[](auto& r) { r.mutable_raw_input_contents()->RemoveLast(); }, INVALID_ARGUMENT, "raw_input_contents"},
      {[](auto& r) { r.mutable_inputs(1)->set_name("steps"); }, INVALID_ARGUMENT, "steps"},
      {[](auto& r) { r.mutable_inputs(1)->set_name("sead"); }, INVALID_ARGUMENT, "sead"},
      {[](auto& r) { (*r.mutable_parameters())["sead"].set_int64_param(1); }, INVALID_ARGUMENT, "sead"},
      {[](auto& r) { (*r.mutable_parameters())["seed"].set_int64_param(1); }, INVALID_ARGUMENT, "seed"},
      {[](auto& r) { (*r.mutable_parameters())["guidance_scale"].set_string_param("2"); }, INVALID_ARGUMENT,
       "guidance_scale"},
      {[](auto& r) { (*r.mutable_parameters())["sequence_id"].set_int64_param(1); }, UNIMPLEMENTED, "sequence_id"},
      {[](auto& r) { r.add_outputs()->set_name("pictures"); }, INVALID_ARGUMENT, "outputs"},
      {[](auto& r) { (*r.mutable_parameters())["format"].set_string_param("gif"); }, INVALID_ARGUMENT, "format"},
      {[](auto& r) { (*r.mutable_parameters())["solver"].set_string_param("magic"); }, INVALID_ARGUMENT, "solver"},
      {[](auto& r) {
         (*r.mutable_parameters())["solver"].set_string_param("multistep");
         (*r.mutable_parameters())["schedule"].set_string_param("uniform");
       },
       INVALID_ARGUMENT, "schedule"},
      {[](auto& r) {
         AddRaw<double>(r, "initial_noise", "FP64", {2, 2}, {0, 0, 0, 0});
       },
       INVALID_ARGUMENT, "initial_noise"},
      {[](auto& r) {
         AddRaw<float>(r, "initial_noise", "FP32", {2, 3}, {0, 0, 0, 0, 0, 0});
       },
       INVALID_ARGUMENT, "initial_noise"},
      {[](auto& r) {
         AddRaw<int64_t>(r, "class_labels", "INT64", {2}, {0, 3});
       },
       INVALID_ARGUMENT, "class_labels"},
      {[](auto& r) {
         AddRawText(r, "schedule", "uniform");
         r.mutable_raw_input_contents()->rbegin()->pop_back();
       },
       INVALID_ARGUMENT, "schedule"},
  };
  for (size_t i = 0; i < cases.size(); ++i) {
    ModelInferRequest request = RawRequest("vectors");
    cases[i].change(request);
    ModelInferResponse response;
    const grpc::Status status = Infer(request, response);
    EXPECT_EQ(status.error_code(), cases[i].code) << i << ": " << status.error_message();
    EXPECT_EQ(FieldOfError(status), cases[i].field) << i << ": " << status.error_message();
  }
}

TEST_F(InferenceTest, WhatIsTooLargeForAMessageIsToBeStreamed) {
  StartInference({"--max-message-bytes=1048576", "--max-samples-per-request=8192"});
  ModelInferRequest request = RawRequest("images");  // 256 bytes a sample as floats
  request.set_raw_input_contents(0, Bytes(std::vector<int32_t>{1}));
  request.set_raw_input_contents(2, Bytes(std::vector<int32_t>{4097}));
  request.set_raw_input_contents(3, Bytes(std::vector<uint8_t>{0}));
  ModelInferResponse response;
  const grpc::Status status = Infer(request, response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(FieldOfError(status), "num_samples");
  EXPECT_THAT(status.error_message(), HasSubstr("ModelStreamInfer"));
  // A quarter of that as bytes.
  (*request.mutable_parameters())["format"].set_string_param("uint8");
  EXPECT_TRUE(Infer(request, response).ok());
}

TEST_F(InferenceTest, HealthAndMetricsKnowIt) {
  StartInference();
  EXPECT_EQ(Health("inference.GRPCInferenceService"), grpc::health::v1::HealthCheckResponse::SERVING);
  ModelInferResponse response;
  ASSERT_TRUE(Infer(RawRequest("vectors"), response).ok());
  // Methods that clients make up are one series.
  grpc::GenericStub stub(channel_);
  for (int i = 0; i < 3; ++i) {
    grpc::ClientContext context;
    grpc::CompletionQueue queue;
    const auto call = stub.PrepareUnaryCall(&context, absl::StrCat("/inference.GRPCInferenceService/Made", i),
                                            grpc::ByteBuffer(), &queue);
    call->StartCall();
    grpc::ByteBuffer answer;
    grpc::Status status;
    call->Finish(&answer, &status, nullptr);
    void* tag = nullptr;
    bool ok = false;
    ASSERT_TRUE(queue.Next(&tag, &ok));
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
  }
  const std::string page = HttpGet(server_->metrics_port(), "/metrics");
  EXPECT_THAT(page, HasSubstr("method=\"/inference.GRPCInferenceService/ModelInfer\""));
  EXPECT_THAT(page, ::testing::Not(HasSubstr("Made0")));
}

}  // namespace
}  // namespace boss::testing
