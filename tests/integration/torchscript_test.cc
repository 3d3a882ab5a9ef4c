// A model that comes with its own code, and a decoder, over the wire.
#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "tests/integration/bossd_fixture.h"
#include "tests/support/script_modules.h"

namespace boss::testing {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kDescription[] = R"({
  "model": {"architecture": "torchscript", "sample_shape": [2], "conditioning": [{"name": "shift", "shape": [2]}]},
  "decoder": {"decoded_shape": [1, 4, 4]}})";

class TorchScriptTest : public BossdTest {
 protected:
  TorchScriptTest()
      : module_(
            *ScriptArchive("def forward(self, x, t, shift):\n  return shift * self.one\n", {{"one", at::ones({1})}})),
        decoder_(*ScriptDecoderArchive()) {}

  grpc::Status Import() {
    grpc::ClientContext context;
    v1::ImportModelResponse response;
    const auto stream = models_->ImportModel(&context, &response);
    v1::ImportModelRequest request;
    v1::ImportStart& start = *request.mutable_start();
    start.set_model("net");
    start.set_format(v1::ImportStart::TORCHSCRIPT);
    start.set_architecture_json(kDescription);
    start.set_total_bytes(static_cast<int64_t>(module_.size() + decoder_.size()));
    start.set_decoder_bytes(static_cast<int64_t>(decoder_.size()));
    stream->Write(request);
    request.mutable_chunk()->set_data(module_ + decoder_);
    stream->Write(request);
    stream->WritesDone();
    return stream->Finish();
  }
  grpc::Status Load() {
    grpc::ClientContext context;
    v1::LoadModelRequest request;
    request.set_model("net");
    v1::ModelVersion version;
    return models_->LoadModel(&context, request, &version);
  }
  v1::Model Get() {
    grpc::ClientContext context;
    v1::GetModelRequest request;
    request.set_model("net");
    v1::Model model;
    const grpc::Status status = models_->GetModel(&context, request, &model);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return model;
  }
  std::string Export(v1::ExportModelRequest::Part part) {
    grpc::ClientContext context;
    v1::ExportModelRequest request;
    request.set_model("net");
    request.set_part(part);
    const auto stream = models_->ExportModel(&context, request);
    std::string bytes;
    for (v1::ExportModelResponse response; stream->Read(&response);) bytes += response.chunk().data();
    EXPECT_TRUE(stream->Finish().ok());
    return bytes;
  }
  // One sample of the model, whose velocity is `shift` everywhere.
  v1::Sample Shifted(float shift, v1::OutputFormat format) {
    v1::GenerateRequest request = Request("net", 1, 2);
    v1::Tensor& noise = *request.mutable_initial_noise();
    noise.set_dtype(v1::Tensor::DATA_TYPE_FLOAT32);
    noise.add_shape(1);
    noise.add_shape(2);
    noise.set_data(std::string(8, '\0'));
    v1::Tensor& condition = (*request.mutable_conditions())["shift"];
    condition = noise;
    const std::vector<float> values(2, shift);
    condition.set_data(values.data(), 8);
    request.set_output_format(format);
    const Generated generated = Generate(request);
    EXPECT_TRUE(generated.status.ok()) << generated.status.error_message();
    return generated.samples[0];
  }
  static float First(const v1::Sample& sample) {
    float value = 0;
    std::memcpy(&value, sample.data().data(), sizeof(value));
    return value;
  }

  const std::string module_, decoder_;
};

TEST_F(TorchScriptTest, IsServedWithItsConditionAndItsDecoder) {
  Start({"--allow-torchscript"});
  const grpc::Status imported = Import();
  ASSERT_TRUE(imported.ok()) << imported.error_message();
  grpc::ClientContext context;
  v1::Capabilities capabilities;
  ASSERT_TRUE(models_->GetCapabilities(&context, {}, &capabilities).ok());
  EXPECT_THAT(capabilities.architectures(), Contains("torchscript"));
  const v1::Model model = Get();
  EXPECT_EQ(model.architecture(), "torchscript");
  EXPECT_THAT(model.sample_shape(), ElementsAre(2));
  EXPECT_THAT(model.decoded_shape(), ElementsAre(1, 4, 4));
  ASSERT_EQ(model.conditioning_size(), 1);
  EXPECT_EQ(model.conditioning(0).name(), "shift");

  const v1::Sample latent = Shifted(0.25F, v1::OUTPUT_FORMAT_LATENTS);
  EXPECT_EQ(latent.format(), v1::OUTPUT_FORMAT_LATENTS);
  EXPECT_THAT(latent.shape(), ElementsAre(2));
  EXPECT_FLOAT_EQ(First(latent), 0.25F);
  const v1::Sample pixels = Shifted(0.25F, v1::OUTPUT_FORMAT_FLOAT32);
  EXPECT_THAT(pixels.shape(), ElementsAre(1, 4, 4));
  EXPECT_FLOAT_EQ(First(pixels), 0.5F);
  EXPECT_EQ(Shifted(0, v1::OUTPUT_FORMAT_UNSPECIFIED).format(), v1::OUTPUT_FORMAT_PNG);
  EXPECT_EQ(Get().parameter_count(), 1);  // known once it is loaded

  EXPECT_EQ(Export(v1::ExportModelRequest::WEIGHTS), module_);
  EXPECT_EQ(Export(v1::ExportModelRequest::DECODER), decoder_);
}

TEST_F(TorchScriptTest, NothingOfItRunsWithoutTheOperatorsLeave) {
  Start({"--allow-torchscript"});
  ASSERT_TRUE(Import().ok());
  Stop();
  Start();
  const grpc::Status refused = Import();
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(FieldOfError(refused), "start.format");
  EXPECT_THAT(refused.error_message(), HasSubstr("--allow-torchscript"));
  EXPECT_EQ(Load().error_code(), grpc::StatusCode::PERMISSION_DENIED);
  const Generated generated = Generate(Request("net", 1, 2));
  EXPECT_EQ(generated.status.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  // It is there all the same.
  EXPECT_THAT(Get().sample_shape(), ElementsAre(2));
  EXPECT_EQ(Export(v1::ExportModelRequest::WEIGHTS), module_);
}

}  // namespace
}  // namespace boss::testing
