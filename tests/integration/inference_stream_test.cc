// Streams of the Open Inference Protocol against a real server, and how calls end before their work is done.
#include <gmock/gmock.h>
#include <signal.h>

#include <chrono>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/integration/inference_fixture.h"

namespace boss::testing {
namespace {

using inference::ModelInferRequest;
using inference::ModelInferResponse;
using inference::ModelStreamInferResponse;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST_F(InferenceTest, AStreamAnswersEachRequestOneSampleATime) {
  StartInference();
  const Generated expected = Generate(Same("images", v1::OUTPUT_FORMAT_FLOAT32));
  grpc::ClientContext context;
  const auto stream = inference_->ModelStreamInfer(&context);
  ModelInferRequest plain = RawRequest("images"), wrong = RawRequest("images"), with_empty = RawRequest("images");
  wrong.set_id("wrong");
  wrong.set_model_version("7");
  with_empty.set_id("r2");
  (*with_empty.mutable_parameters())["triton_enable_empty_final_response"].set_bool_param(true);
  for (const ModelInferRequest* request : {&plain, &wrong, &with_empty}) ASSERT_TRUE(stream->Write(*request));
  stream->WritesDone();

  std::map<std::string, std::vector<ModelStreamInferResponse>> answers;
  ModelStreamInferResponse response;
  while (stream->Read(&response)) answers[response.infer_response().id()].push_back(response);
  EXPECT_TRUE(stream->Finish().ok());
  ASSERT_EQ(answers["r1"].size(), 2u);
  ASSERT_EQ(answers["wrong"].size(), 1u);
  ASSERT_EQ(answers["r2"].size(), 3u);
  EXPECT_THAT(answers["wrong"][0].error_message(), HasSubstr("NOT_FOUND"));
  EXPECT_EQ(answers["r2"][2].infer_response().outputs_size(), 0);
  for (const auto& [id, list] : answers) {
    for (size_t i = 0; i < list.size(); ++i) {
      const bool is_last = list[i].infer_response().parameters().at("triton_final_response").bool_param();
      EXPECT_EQ(is_last, i + 1 == list.size()) << id << " " << i;
    }
  }
  for (const char* id : {"r1", "r2"}) {
    for (int i = 0; i < 2; ++i) {
      const ModelInferResponse& sample = answers[id][static_cast<size_t>(i)].infer_response();
      const int64_t index = sample.parameters().at("sample_index").int64_param();
      EXPECT_EQ(sample.model_name(), "images");
      EXPECT_THAT(sample.outputs(0).shape(), ElementsAre(1, 1, 8, 8));
      EXPECT_EQ(sample.raw_output_contents(0), expected.samples[static_cast<size_t>(index)].data()) << id;
      EXPECT_THAT(Values<uint64_t>(sample.raw_output_contents(1)), ElementsAre(42 + index));
    }
  }
}

TEST_F(InferenceTest, ResponsesTellWhatSolverAndScheduleSetWereTaken) {
  StartInference();
  const ModelInferRequest request = RawRequest("vectors");
  ModelInferResponse unary;
  ASSERT_TRUE(Infer(request, unary).ok());
  EXPECT_EQ(unary.parameters().at("solver").string_param(), "euler");
  EXPECT_FALSE(unary.parameters().contains("schedule_set"));
  grpc::Status watched;
  Watch(SubmitOptimize(8, 12).name(), 1, watched);  // until the job's end
  ASSERT_TRUE(watched.ok()) << watched.error_message();

  ModelInferRequest heun = request;
  heun.set_id("heun");
  AddRawText(heun, "solver", "heun");
  grpc::ClientContext context;
  const auto stream = inference_->ModelStreamInfer(&context);
  for (const ModelInferRequest& each : {request, heun}) ASSERT_TRUE(stream->Write(each));
  stream->WritesDone();
  int responses = 0;
  ModelStreamInferResponse response;
  for (; stream->Read(&response); ++responses) {
    const auto& parameters = response.infer_response().parameters();
    const bool is_default = response.infer_response().id() == request.id();
    EXPECT_EQ(parameters.at("solver").string_param(), is_default ? "multistep" : "heun");
    const auto schedule_set = parameters.find("schedule_set");
    ASSERT_EQ(schedule_set != parameters.end(), is_default);
    if (is_default) {
      EXPECT_EQ(schedule_set->second.string_param(), "multistep-g1-k8");
    }
  }
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(responses, 4);
  unary.Clear();
  ASSERT_TRUE(Infer(request, unary).ok());
  EXPECT_EQ(unary.parameters().at("solver").string_param(), "multistep");
  EXPECT_EQ(unary.parameters().at("schedule_set").string_param(), "multistep-g1-k8");
}

TEST_F(InferenceTest, MoreRequestsThanRunAtOnceAreAllAnswered) {
  StartInference();
  grpc::ClientContext context;
  const auto stream = inference_->ModelStreamInfer(&context);
  constexpr int kRequests = 50;
  std::thread writer([&] {
    for (int i = 0; i < kRequests; ++i) {
      ModelInferRequest request = RawRequest("vectors");
      request.set_id(absl::StrCat(i));
      request.set_raw_input_contents(3, Bytes(std::vector<uint8_t>{0}));
      stream->Write(request);
    }
    stream->WritesDone();
  });
  std::map<std::string, int> samples;
  ModelStreamInferResponse response;
  while (stream->Read(&response)) ++samples[response.infer_response().id()];
  writer.join();
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(samples.size(), static_cast<size_t>(kRequests));
  for (const auto& [id, count] : samples) EXPECT_EQ(count, 2) << id;
}

// A request that would take hours.
ModelInferRequest LongRequest() {
  ModelInferRequest request = RawRequest("images");
  request.set_raw_input_contents(0, Bytes(std::vector<int32_t>{1000}));
  request.set_raw_input_contents(2, Bytes(std::vector<int32_t>{4096}));
  request.set_raw_input_contents(3, Bytes(std::vector<uint8_t>{0}));
  return request;
}

TEST_F(InferenceTest, DeadlinesAndCancellationFreeTheWork) {
  StartInference({"--max-queued-samples=4096"});
  {
    ModelInferRequest request = LongRequest();
    (*request.mutable_parameters())["timeout"].set_int64_param(1000);  // microseconds
    ModelInferResponse response;
    EXPECT_EQ(Infer(request, response).error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  }
  {
    grpc::ClientContext context;
    const auto stream = inference_->ModelStreamInfer(&context);
    ASSERT_TRUE(stream->Write(LongRequest()));
    ModelInferRequest refused = RawRequest("vectors");
    refused.set_id("refused");
    ModelStreamInferResponse response;
    ASSERT_TRUE(stream->Write(refused));
    do {
      ASSERT_TRUE(stream->Read(&response));
    } while (response.infer_response().id() != "refused");
    EXPECT_THAT(response.error_message(), HasSubstr("RESOURCE_EXHAUSTED"));  // the queue is full of the long one
    context.TryCancel();
    while (stream->Read(&response)) {
    }
    EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  // The queue has room again as soon as the server has seen the cancellation.
  const auto infer_once_there_is_room = [&] {
    ModelInferResponse response;
    grpc::Status status;
    do {
      status = Infer(RawRequest("vectors"), response);
    } while (status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED);
    return status;
  };
  EXPECT_TRUE(infer_once_there_is_room().ok());
  {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(50));
    ModelInferResponse response;
    EXPECT_EQ(inference_->ModelInfer(&context, LongRequest(), &response).error_code(),
              grpc::StatusCode::DEADLINE_EXCEEDED);
  }
  EXPECT_TRUE(infer_once_there_is_room().ok());
}

TEST_F(InferenceTest, AnIdleStreamDoesNotHoldUpTheShutdown) {
  StartInference({"--grace-seconds=100000"});
  grpc::ClientContext context;
  const auto stream = inference_->ModelStreamInfer(&context);
  ASSERT_TRUE(stream->Write(RawRequest("vectors")));
  ModelStreamInferResponse response;
  ASSERT_TRUE(stream->Read(&response));
  ASSERT_TRUE(stream->Read(&response));
  server_->Signal(SIGTERM);
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(server_->WaitForExit(), 0);
}

}  // namespace
}  // namespace boss::testing
