#include "server/engine/resolve_request.h"

#include <gmock/gmock.h>

#include <limits>

#include "tests/server/engine/resolve_request_fixture.h"

namespace boss::server {
namespace {

using ::testing::HasSubstr;
using testing::ResolveRequestTest;

TEST_F(ResolveRequestTest, EachWrongFieldIsNamed) {
  SampleRequest request = Request();
  request.model = "";
  ExpectFieldError(request, "model", "required");
  request = Request();
  request.num_samples = 101;
  ExpectFieldError(request, "num_samples", "[1, 100], got 101");
  request.num_samples = 0;
  ExpectFieldError(request, "num_samples", "got 0");
  limits_.max_pixels_per_request = 8;  // four samples of two values
  request.num_samples = 4;
  EXPECT_TRUE(Resolve(request).ok());
  request.num_samples = 5;
  ExpectFieldError(request, "num_samples", "at most 4 for samples of 2 pixels each");
  request = Request();
  request.steps = -1;
  ExpectFieldError(request, "steps", "got -1");
  request.steps = 51;
  ExpectFieldError(request, "steps", "[1, 50]");
  request = Request();
  request.guidance_scale = std::numeric_limits<double>::quiet_NaN();
  ExpectFieldError(request, "guidance_scale", "finite");
  request.guidance_scale = 2;
  ExpectFieldError(request, "guidance_scale", "no labels");
  request = Request();
  request.rtol = 0;
  ExpectFieldError(request, "rtol", "above 0");
  request = Request();
  request.atol = -1;
  ExpectFieldError(request, "atol", "above 0");
  request = Request();
  request.preview_interval = -1;
  ExpectFieldError(request, "preview_interval", "got -1");
  request = Request();
  request.priority = 101;
  ExpectFieldError(request, "priority", "got 101");
}

TEST_F(ResolveRequestTest, LabelsMustFitTheModelAndTheSamples) {
  SampleRequest request = Request(3);
  request.class_labels = {3};
  ExpectFieldError(request, "class_labels", "[0, 3), or -1 for no label, got 3");
  request.class_labels = {-2};
  ExpectFieldError(request, "class_labels", "got -2");
  request.class_labels = {0, 1};
  ExpectFieldError(request, "class_labels", "none, 1 or 3");
  request.class_labels = {2};
  auto resolved = Resolve(request);
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_TRUE(resolved->condition.class_labels.equal(at::tensor(std::vector<int64_t>{2, 2, 2})));
  request.class_labels = {0, -1, 1};
  resolved = Resolve(request);
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_TRUE(resolved->condition.class_labels.equal(at::tensor(std::vector<int64_t>{0, 3, 1})));
}

TEST_F(ResolveRequestTest, NegativeLabelsAreForGuidance) {
  SampleRequest request = Request(2);
  request.negative_class_labels = {1};
  ExpectFieldError(request, "negative_class_labels", "guidance_scale is 1");
  request.guidance_scale = 2;
  ExpectFieldError(request, "guidance_scale", "no labels");
  request.class_labels = {0};
  request.negative_class_labels = {3};
  ExpectFieldError(request, "negative_class_labels", "[0, 3)");
  request.negative_class_labels = {1, -1};
  const auto resolved = Resolve(request);
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_TRUE(resolved->condition.negative_class_labels.equal(at::tensor(std::vector<int64_t>{1, 3})));
}

TEST_F(ResolveRequestTest, ConditionsMustFitTheModelAndTheSamples) {
  SampleRequest request = Request(3);
  request.conditions["embedding"] = at::ones({3, 3});
  ExpectFieldError(request, "conditions", "the model takes none, got \"embedding\"");

  const VersionKey conditioned =
      boss::testing::PublishTinyModel(*store_, "conditioned", boss::testing::kTinyConditionedArchitecture);
  const auto expect_error = [&](const std::string& part) {
    const auto resolved = Resolve(request, conditioned);
    EXPECT_TRUE(absl::IsInvalidArgument(resolved.status())) << resolved.status();
    EXPECT_EQ(FieldOf(resolved.status()), "conditions");
    EXPECT_THAT(std::string(resolved.status().message()), HasSubstr(part));
  };
  request.conditions = {{"text", at::ones({3, 3})}};
  expect_error("the model takes embedding, got \"text\"");
  request.conditions = {{"embedding", at::ones({2, 3})}};
  expect_error("[3, 3], or 1 in place of num_samples, got [2, 3]");
  request.conditions = {{"embedding", at::ones({1, 4})}};
  expect_error("[1, 3], got [1, 4]");
  request.conditions = {{"embedding", at::ones({3, 3}, at::kLong)}};
  expect_error("of type Float, got Long");
  request.conditions = {{"embedding", at::full({3, 3}, std::numeric_limits<float>::infinity())}};
  expect_error("finite");
  limits_.max_condition_bytes = 35;
  request.conditions = {{"embedding", at::ones({3, 3})}};
  expect_error("at most 35 bytes together, got 36");
  limits_.max_condition_bytes = 72;
  request.negative_conditions = {{"embedding", at::ones({1, 3})}};
  EXPECT_EQ(FieldOf(Resolve(request, conditioned).status()), "negative_conditions");

  request.guidance_scale = 2;
  request.conditions = {{"embedding", at::ones({1, 3}, at::kDouble) * 2}};
  const auto resolved = Resolve(request, conditioned);
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_TRUE(at::equal(FindTensor(resolved->condition.tensors, "embedding"), at::full({3, 3}, 2.0F)));
  EXPECT_TRUE(at::equal(FindTensor(resolved->condition.negative_tensors, "embedding"), at::ones({3, 3})));
  EXPECT_EQ(resolved->accepted.nfe, 8);
}

TEST_F(ResolveRequestTest, NoiseMustHaveTheSamplesShape) {
  SampleRequest request = Request(2);
  request.initial_noise = {1, 2, 3, 4};
  request.initial_noise_shape = {2, 1, 2};
  ExpectFieldError(request, "initial_noise", "must have the shape [2, 2], got [2, 1, 2]");
  request.initial_noise_shape = {2, 2};
  request.initial_noise.pop_back();
  ExpectFieldError(request, "initial_noise", "with 3 values");
  request.initial_noise.push_back(std::numeric_limits<float>::infinity());
  ExpectFieldError(request, "initial_noise", "finite");
}

TEST_F(ResolveRequestTest, FormatsMustSuitTheSamples) {
  SampleRequest request = Request();
  request.format = SampleFormat::kPng;
  ExpectFieldError(request, "output_format", "the model's are [2]");
  request.format = SampleFormat::kUint8;
  ExpectFieldError(request, "output_format", "the model's are [2]");
  EXPECT_EQ(Resolve(Request())->format, SampleFormat::kFloat32);
  const VersionKey images = boss::testing::PublishTinyModel(*store_, "images", boss::testing::kTinyImageArchitecture);
  EXPECT_EQ(Resolve(Request(), images)->format, SampleFormat::kPng);
}

}  // namespace
}  // namespace boss::server
