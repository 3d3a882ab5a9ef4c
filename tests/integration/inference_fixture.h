// Requests of the Open Inference Protocol, and a real bossd to send them to.
#pragma once

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "inference/grpc_service.grpc.pb.h"
#include "tests/integration/bossd_fixture.h"

namespace boss::testing {

template <typename T>
std::string Bytes(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

template <typename T>
std::vector<T> Values(const std::string& bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

inline std::string WithLength(const std::string& text) {
  return Bytes(std::vector<uint32_t>{static_cast<uint32_t>(text.size())}) + text;
}

template <typename T>
void AddRaw(inference::ModelInferRequest& request, const std::string& name, const std::string& datatype,
            const std::vector<int64_t>& shape, const std::vector<T>& values) {
  auto& input = *request.add_inputs();
  input.set_name(name);
  input.set_datatype(datatype);
  input.mutable_shape()->Add(shape.begin(), shape.end());
  request.add_raw_input_contents(Bytes(values));
}

inline void AddRawText(inference::ModelInferRequest& request, const std::string& name, const std::string& text) {
  AddRaw<char>(request, name, "BYTES", {1}, {});
  *request.mutable_raw_input_contents()->rbegin() = WithLength(text);
}

inline inference::ModelInferRequest::InferInputTensor& AddTyped(inference::ModelInferRequest& request,
                                                                const std::string& name, const std::string& datatype,
                                                                const std::vector<int64_t>& shape) {
  auto& input = *request.add_inputs();
  input.set_name(name);
  input.set_datatype(datatype);
  input.mutable_shape()->Add(shape.begin(), shape.end());
  return input;
}

// Two samples of four steps, deterministic so that they are the bits of any other call's.
inline inference::ModelInferRequest RawRequest(const std::string& model) {
  inference::ModelInferRequest request;
  request.set_model_name(model);
  request.set_id("r1");
  AddRaw<int32_t>(request, "steps", "INT32", {1}, {4});
  AddRaw<int64_t>(request, "seed", "INT64", {1}, {42});
  AddRaw<int32_t>(request, "num_samples", "INT32", {1}, {2});
  AddRaw<uint8_t>(request, "deterministic", "BOOL", {1}, {1});
  return request;
}

class InferenceTest : public BossdTest {
 protected:
  void StartInference(const std::vector<std::string>& arguments = {}) {
    Start(arguments);
    channel_ = grpc::CreateChannel(server_->address(), grpc::InsecureChannelCredentials());
    inference_ = inference::GRPCInferenceService::NewStub(channel_);
  }

  grpc::Status Infer(const inference::ModelInferRequest& request, inference::ModelInferResponse& response) {
    grpc::ClientContext context;
    return inference_->ModelInfer(&context, request, &response);
  }

  // What boss.v1 gives for RawRequest.
  v1::GenerateRequest Same(const std::string& model, v1::OutputFormat format) {
    v1::GenerateRequest request = Request(model, 2, 4);
    request.set_deterministic(true);
    request.set_output_format(format);
    return request;
  }

  bool Ready(const std::string& name, const std::string& version) {
    grpc::ClientContext context;
    inference::ModelReadyRequest request;
    request.set_name(name);
    request.set_version(version);
    inference::ModelReadyResponse response;
    const grpc::Status status = inference_->ModelReady(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.ready();
  }

  bool ServerReady() {
    grpc::ClientContext context;
    inference::ServerReadyResponse response;
    EXPECT_TRUE(inference_->ServerReady(&context, {}, &response).ok());
    return response.ready();
  }

  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<inference::GRPCInferenceService::Stub> inference_;
};

}  // namespace boss::testing
