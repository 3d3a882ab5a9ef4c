#include "server/rpc/convert_inference.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "core/base/error_details.h"
#include "server/rpc/infer_tensor.h"

namespace boss::server {
namespace {

using inference::ModelInferRequest;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

ModelInferRequest NewRequest() {
  ModelInferRequest request;
  request.set_model_name("m");
  return request;
}

void AddRaw(ModelInferRequest& request, const std::string& name, const std::string& datatype,
            const std::vector<int64_t>& shape, const std::string& bytes) {
  auto& input = *request.add_inputs();
  input.set_name(name);
  input.set_datatype(datatype);
  input.mutable_shape()->Add(shape.begin(), shape.end());
  request.add_raw_input_contents(bytes);
}

std::string FieldOfRefused(const ModelInferRequest& request) {
  const auto call = InferCallFromProto(request);
  EXPECT_FALSE(call.ok());
  return call.ok() ? "" : FieldOf(call.status()).value_or("");
}

TEST(ConvertInferenceTest, AnEmptyRequestAsksForOneSampleAndAllOutputs) {
  const auto call = InferCallFromProto(NewRequest());
  ASSERT_TRUE(call.ok()) << call.status();
  EXPECT_EQ(call->generate.model(), "m");
  EXPECT_EQ(call->generate.num_samples(), 1);
  EXPECT_EQ(call->generate.output_format(), v1::OUTPUT_FORMAT_FLOAT32);
  EXPECT_FALSE(call->generate.has_seed());
  EXPECT_THAT(call->outputs, ElementsAre(InferOutput::kSamples, InferOutput::kSeeds, InferOutput::kTimeGrid));
  EXPECT_TRUE(call->raw);
  EXPECT_EQ(call->timeout, absl::InfiniteDuration());
}

TEST(ConvertInferenceTest, WhatIsThereDecidesTheRest) {
  ModelInferRequest request = NewRequest();
  AddRaw(request, "class_labels", "INT32", {3}, std::string(12, '\0'));
  EXPECT_EQ(InferCallFromProto(request)->generate.num_samples(), 3);
  AddRaw(request, "initial_noise", "FP32", {2, 1}, std::string(8, '\0'));
  EXPECT_EQ(InferCallFromProto(request)->generate.num_samples(), 2);
  (*request.mutable_parameters())["num_samples"].set_int64_param(5);
  EXPECT_EQ(InferCallFromProto(request)->generate.num_samples(), 5);
  AddRaw(request, "time_grid", "FP64", {0}, "");
  EXPECT_EQ(InferCallFromProto(request)->generate.schedule(), v1::SCHEDULE_KIND_UNSPECIFIED);
  (*request.mutable_parameters())["schedule_set"].set_string_param("ays");
  EXPECT_EQ(InferCallFromProto(request)->generate.schedule(), v1::SCHEDULE_KIND_NAMED);
  (*request.mutable_parameters())["timeout"].set_int64_param(7);
  EXPECT_EQ(InferCallFromProto(request)->timeout, absl::Microseconds(7));
}

TEST(ConvertInferenceTest, SeedsAreUnsigned) {
  ModelInferRequest request = NewRequest();
  AddRaw(request, "seed", "UINT64", {}, std::string(8, '\xff'));  // a scalar without dimensions
  EXPECT_EQ(InferCallFromProto(request)->generate.seed(), std::numeric_limits<uint64_t>::max());
  request.mutable_inputs(0)->set_datatype("INT64");
  EXPECT_EQ(FieldOfRefused(request), "seed");
}

TEST(ConvertInferenceTest, ConditioningTensorsKeepTheirBytes) {
  ModelInferRequest request = NewRequest();
  AddRaw(request, "conditions.text", "FP16", {1, 2}, "abcd");
  const auto call = InferCallFromProto(request);
  ASSERT_TRUE(call.ok()) << call.status();
  const v1::Tensor& tensor = call->generate.conditions().at("text");
  EXPECT_EQ(tensor.dtype(), v1::Tensor::DATA_TYPE_FLOAT16);
  EXPECT_THAT(tensor.shape(), ElementsAre(1, 2));
  EXPECT_EQ(tensor.data(), "abcd");
}

TEST(ConvertInferenceTest, AShapeThatHasNoSizeIsRefusedBeforeAnythingIsAllocated) {
  constexpr int64_t kHuge = int64_t{1} << 40;
  for (const std::vector<int64_t>& shape : std::vector<std::vector<int64_t>>{{-1}, {kHuge, kHuge}, {kHuge}, {2}, {0}}) {
    ModelInferRequest request = NewRequest();
    AddRaw(request, "initial_noise", "FP32", shape, "abcd");
    EXPECT_EQ(FieldOfRefused(request), "initial_noise") << shape.front();
  }
}

TEST(ConvertInferenceTest, ATextMustFillItsBytes) {
  for (const std::string& bytes : {std::string(""), std::string("\x05\0\0\0heun", 8), std::string("\x03\0\0\0heun", 8),
                                   std::string("\x04\0\0", 3), std::string("\xff\xff\xff\xffheun", 8)}) {
    ModelInferRequest request = NewRequest();
    AddRaw(request, "solver", "BYTES", {1}, bytes);
    EXPECT_EQ(FieldOfRefused(request), "solver") << bytes.size();
  }
  ModelInferRequest request = NewRequest();
  AddRaw(request, "solver", "BYTES", {1}, std::string("\x04\0\0\0HEUN", 8));
  EXPECT_EQ(InferCallFromProto(request)->generate.solver(), v1::SOLVER_HEUN);
}

TEST(ConvertInferenceTest, IntegersMustFit) {
  ModelInferRequest request = NewRequest();
  (*request.mutable_parameters())["steps"].set_int64_param(int64_t{1} << 32);
  EXPECT_EQ(FieldOfRefused(request), "steps");
  (*request.mutable_parameters())["steps"].set_uint64_param(std::numeric_limits<uint64_t>::max());
  EXPECT_EQ(FieldOfRefused(request), "steps");
  (*request.mutable_parameters())["steps"].set_double_param(4);
  EXPECT_EQ(FieldOfRefused(request), "steps");
  (*request.mutable_parameters())["steps"].clear_parameter_choice();
  EXPECT_EQ(FieldOfRefused(request), "steps");
  (*request.mutable_parameters())["steps"].set_uint64_param(4);
  EXPECT_EQ(InferCallFromProto(request)->generate.steps(), 4);
}

TEST(ConvertInferenceTest, AReferenceHasOneVersion) {
  EXPECT_EQ(*ModelReference("m", ""), "m");
  EXPECT_EQ(*ModelReference("m", "2"), "m@2");
  EXPECT_EQ(*ModelReference("m@stable", ""), "m@stable");
  EXPECT_THAT(std::string(ModelReference("m@1", "2").status().message()), HasSubstr("model_version"));
  EXPECT_FALSE(ModelReference("", "2").ok());
}

TEST(ConvertInferenceTest, MetadataNamesWhatTheModelTakes) {
  const auto text = [](const v1::Model& model) {
    inference::ModelMetadataResponse response;
    AddTensorMetadata(model, response);
    return response.DebugString();
  };
  v1::Model model;
  model.mutable_sample_shape()->Add(4);
  EXPECT_THAT(text(model), ::testing::Not(HasSubstr("guidance_scale")));
  v1::ConditioningTensor& tensor = *model.add_conditioning();
  tensor.set_name("text");
  tensor.set_dtype(v1::Tensor::DATA_TYPE_INT64);
  tensor.add_shape(77);
  model.mutable_decoded_shape()->Add(3);
  model.mutable_decoded_shape()->Add(64);
  inference::ModelMetadataResponse response;
  AddTensorMetadata(model, response);
  const auto shape_of = [](const auto& tensors, const std::string& name) {
    for (const auto& tensor : tensors) {
      if (tensor.name() == name) return std::vector<int64_t>(tensor.shape().begin(), tensor.shape().end());
    }
    return std::vector<int64_t>();
  };
  EXPECT_THAT(shape_of(response.inputs(), "initial_noise"), ElementsAre(-1, 4));
  EXPECT_THAT(shape_of(response.inputs(), "conditions.text"), ElementsAre(-1, 77));
  EXPECT_THAT(shape_of(response.inputs(), "negative_conditions.text"), ElementsAre(-1, 77));
  EXPECT_THAT(shape_of(response.inputs(), "guidance_scale"), ElementsAre(1));
  EXPECT_THAT(shape_of(response.inputs(), "class_labels"), ElementsAre());
  EXPECT_THAT(shape_of(response.outputs(), "samples"), ElementsAre(-1, 3, 64));
}

TEST(ConvertInferenceTest, ElementsOfBytesStandBehindTheirLengths) {
  EXPECT_EQ(WithLengths({"ab", ""}), std::string("\x02\0\0\0ab\0\0\0\0", 10));
}

}  // namespace
}  // namespace boss::server
