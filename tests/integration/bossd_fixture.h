// A real bossd with tiny models, and stubs to talk to it.
#pragma once

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "boss/v1/errors.pb.h"
#include "boss/v1/jobs.grpc.pb.h"
#include "boss/v1/models.grpc.pb.h"
#include "boss/v1/sampling.grpc.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "tests/support/server_process.h"
#include "tests/support/temp_folder.h"
#include "tests/support/tiny_models.h"

namespace boss::testing {

// What a Generate call brought.
struct Generated {
  grpc::Status status;
  v1::Accepted accepted;
  std::vector<v1::Progress> progress;
  std::vector<v1::Preview> previews;
  std::vector<v1::Sample> samples;  // by index
  v1::Summary summary;
  std::string order;  // of the messages: a p v s S

  std::string Bytes() const {
    std::string bytes;
    for (const v1::Sample& sample : samples) bytes += sample.data();
    return bytes;
  }
};

// The field that an error is about; empty if it names none.
inline std::string FieldOfError(const grpc::Status& status) {
  v1::Status details;
  details.ParseFromString(status.error_details());
  for (const auto& any : details.details()) {
    v1::BadRequest bad_request;
    if (any.type_url() == "type.googleapis.com/google.rpc.BadRequest" && bad_request.ParseFromString(any.value())) {
      return bad_request.field_violations(0).field();
    }
  }
  return "";
}

class BossdTest : public ::testing::Test {
 protected:
  BossdTest() {
    std::filesystem::create_directories(folder_ / "seeds");
    WriteSeedModel(folder_ / "seeds", "images", kTinyImageArchitecture);
    WriteSeedModel(folder_ / "seeds", "vectors", kTinyVectorArchitecture);
  }

  void Start(std::vector<std::string> arguments = {}, ServerPorts ports = {}) {
    for (const std::string& argument :
         {"--data=" + (folder_ / "data"), "--seed-models=" + (folder_ / "seeds"), std::string("--threads=1"),
          std::string("--min-free-disk-bytes=0")}) {
      arguments.push_back(argument);
    }
    auto server = ServerProcess::Start(BOSSD_BINARY, folder_.path(), arguments, ports, log_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    Connect(grpc::CreateChannel(server_->address(), grpc::InsecureChannelCredentials()));
  }

  void Connect(const std::shared_ptr<grpc::Channel>& channel) {
    sampler_ = v1::Sampler::NewStub(channel);
    jobs_ = v1::Jobs::NewStub(channel);
    models_ = v1::Models::NewStub(channel);
    health_ = grpc::health::v1::Health::NewStub(channel);
  }

  // SIGTERM, and the exit status.
  int Stop() {
    server_->Signal(SIGTERM);
    return server_->WaitForExit();
  }

  static v1::GenerateRequest Request(const std::string& model, int num_samples, int steps) {
    v1::GenerateRequest request;
    request.set_model(model);
    request.set_num_samples(num_samples);
    request.set_steps(steps);
    request.set_seed(42);
    return request;
  }

  Generated Generate(const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    const auto stream = sampler_->Generate(&context, request);
    Generated generated;
    generated.samples.resize(static_cast<size_t>(std::max(request.num_samples(), 1)));
    v1::GenerateResponse response;
    while (stream->Read(&response)) {
      switch (response.event_case()) {
        case v1::GenerateResponse::kAccepted:
          generated.order += 'a';
          generated.accepted = response.accepted();
          break;
        case v1::GenerateResponse::kProgress:
          generated.progress.push_back(response.progress());
          break;
        case v1::GenerateResponse::kPreview:
          generated.order += 'v';
          generated.previews.push_back(response.preview());
          break;
        case v1::GenerateResponse::kSample:
          generated.order += 's';
          generated.samples.at(static_cast<size_t>(response.sample().index())) = response.sample();
          break;
        case v1::GenerateResponse::kSummary:
          generated.order += 'S';
          generated.summary = response.summary();
          break;
        case v1::GenerateResponse::EVENT_NOT_SET:
          ADD_FAILURE() << "an empty message";
      }
    }
    generated.status = stream->Finish();
    return generated;
  }

  // A job of stage 1 on the model of vectors.
  v1::Job SubmitOptimize(int k_max, int num_samples) {
    v1::OptimizeStepsizesJobRequest request;
    request.mutable_spec()->set_model("vectors");
    request.mutable_spec()->set_k_max(k_max);
    request.mutable_spec()->set_num_samples(num_samples);
    grpc::ClientContext context;
    v1::Job job;
    const grpc::Status status = jobs_->OptimizeStepsizesJob(&context, request, &job);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return job;
  }

  std::vector<v1::JobEvent> Watch(const std::string& name, int64_t from_sequence, grpc::Status& status) {
    grpc::ClientContext context;
    v1::WatchJobRequest request;
    request.set_name(name);
    request.set_from_sequence(from_sequence);
    const auto stream = jobs_->WatchJob(&context, request);
    std::vector<v1::JobEvent> events;
    v1::JobEvent event;
    while (stream->Read(&event)) events.push_back(event);
    status = stream->Finish();
    return events;
  }

  grpc::health::v1::HealthCheckResponse::ServingStatus Health(const std::string& service) {
    grpc::ClientContext context;
    grpc::health::v1::HealthCheckRequest request;
    request.set_service(service);
    grpc::health::v1::HealthCheckResponse response;
    const grpc::Status status = health_->Check(&context, request, &response);
    return status.ok() ? response.status() : grpc::health::v1::HealthCheckResponse::SERVICE_UNKNOWN;
  }

  TempFolder folder_;
  std::string log_;  // file for the server's standard error; empty: the test's
  std::unique_ptr<ServerProcess> server_;
  std::unique_ptr<v1::Sampler::Stub> sampler_;
  std::unique_ptr<v1::Jobs::Stub> jobs_;
  std::unique_ptr<v1::Models::Stub> models_;
  std::unique_ptr<grpc::health::v1::Health::Stub> health_;
};

}  // namespace boss::testing
