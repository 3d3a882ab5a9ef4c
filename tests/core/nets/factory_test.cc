#include "core/nets/factory.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "nlohmann/json.hpp"

namespace boss {
namespace {

nlohmann::json SmallNcsnpp() {
  return {{"model",
           {{"architecture", "ncsnpp"}, {"image_size", 8}, {"channels", 1}, {"nf", 8}, {"ch_mult", {1, 2}}, {"num_res_blocks", 1},
            {"attn_resolutions", {4}}}},
          {"time", {{"eps", 0.001}, {"scale", 999}}}};
}

TEST(CreateModelTest, RefusesWhatItDoesNotKnowAndNamesTheKey) {
  struct Case {
    const char* key;
    nlohmann::json value;
    const char* expected;
  };
  for (const Case& c : std::vector<Case>{{"architecture", "unet", "model.architecture"},
                                         {"nf", "eight", "model.nf"},
                                         {"nf", 0, "model.nf"},
                                         {"nf", 72, "GroupNorm"},
                                         {"ch_mult", nlohmann::json::array(), "model.ch_mult"},
                                         {"image_size", 9, "model.image_size"},
                                         {"patch_size", 3, "model.image_size"},
                                         {"resblock_type", "ddpm", "model.resblock_type"},
                                         {"embedding_type", "learned", "model.embedding_type"},
                                         {"progressive", "residual", "model.progressive"},
                                         {"progressive_input", "residual", "model.progressive_input"},
                                         {"progressive_combine", "cat", "model.progressive_combine"},
                                         {"nonlinearity", "relu", "model.nonlinearity"},
                                         {"fir_kernel", {1, 2, 1}, "model.fir_kernel"},
                                         {"conditional", false, "model.conditional"},
                                         {"dropout", 1.5, "model.dropout"},
                                         {"colour", "blue", "model.colour"}}) {
    nlohmann::json json = SmallNcsnpp();
    json["model"][c.key] = c.value;
    const auto model = CreateModel(json.dump(), 0);
    EXPECT_EQ(model.status().code(), absl::StatusCode::kInvalidArgument) << json;
    EXPECT_TRUE(absl::StrContains(model.status().message(), c.expected)) << model.status();
  }
  nlohmann::json json = SmallNcsnpp();
  json["model"].erase("channels");
  EXPECT_TRUE(absl::StrContains(CreateModel(json.dump(), 0).status().message(), "model.channels"));
}

TEST(CreateModelTest, RefusesTextThatIsNoArchitecture) {
  for (const char* text : {"", "{", "[]", "3", "{}", R"({"model": 3})", R"({"model": {}, "extra": 1})", R"({"model":{}, "time":{"scale":-1}})"}) {
    EXPECT_EQ(CreateModel(text, 0).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(CreateModelTest, TextIsBoundedAndErrorsAreShort) {
  const std::string deep = R"({"model":)" + std::string(100'000, '[') + std::string(100'000, ']') + "}";
  EXPECT_EQ(CreateModel(deep, 0).status().code(), absl::StatusCode::kInvalidArgument);
  const std::string spaces(2 << 20, ' ');
  EXPECT_EQ(CreateModel(SmallNcsnpp().dump() + spaces, 0).status().code(), absl::StatusCode::kInvalidArgument);

  nlohmann::json json = SmallNcsnpp();
  json["model"]["nf"] = std::string(100'000, 'x');
  const absl::Status status = CreateModel(json.dump(), 0).status();
  EXPECT_TRUE(absl::StrContains(status.message(), "model.nf")) << status.message().size();
  EXPECT_LT(status.message().size(), 500u);
}

TEST(CreateModelTest, NoMoreWeightsThanAllowedAreDrawn) {
  for (const std::string& json : {SmallNcsnpp().dump(), std::string(R"({"model":{"architecture":"mlp","num_classes":3}})")}) {
    const auto model = CreateModel(json, 0);
    ASSERT_TRUE(model.ok()) << model.status();
    EXPECT_TRUE(CreateModel(json, 0, WeightCount((*model)->State())).ok());
    EXPECT_EQ(CreateModel(json, 0, 100).status().code(), absl::StatusCode::kInvalidArgument);
  }
  // Hundreds of gigabytes, and a product of dimensions beyond that of any machine.
  for (const char* json : {R"({"model":{"architecture":"mlp","hidden":65536,"layers":64}})",
                           R"({"model":{"architecture":"mlp","hidden":65536,"dim":1048576,"num_classes":1000000}})"}) {
    const absl::Status status = CreateModel(json, 0, 1'000'000).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_TRUE(absl::StrContains(status.message(), "more than 1000000 weights")) << status;
  }
}

TEST(CreateModelTest, PublishedConfigurationsHaveThePublishedSizes) {
  const nlohmann::json cifar10 = {{"model",
                                   {{"architecture", "ncsnpp"}, {"image_size", 32}, {"channels", 3}, {"nf", 128}, {"ch_mult", {1, 2, 2, 2}},
                                    {"num_res_blocks", 4}, {"attn_resolutions", {16}}}}};
  auto model = CreateModel(cifar10.dump(), 0);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(ParameterCount(**model), 61'804'419);

  const nlohmann::json large = {{"model",
                                 {{"architecture", "ncsnpp"}, {"image_size", 256}, {"channels", 3}, {"nf", 128},
                                  {"ch_mult", {1, 1, 2, 2, 2, 2, 2}}, {"num_res_blocks", 2}, {"attn_resolutions", {16}}, {"fir", true},
                                  {"embedding_type", "fourier"}, {"progressive", "output_skip"}, {"progressive_input", "input_skip"},
                                  {"scale_by_sigma", true}, {"centered", false}}}};
  model = CreateModel(large.dump(), 0);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(ParameterCount(**model), 65'574'421);
  EXPECT_EQ((*model)->State().size(), (*model)->Parameters().size() + 1);  // the fixed projection
}

TEST(CreateModelTest, TheSeedDecidesTheWeights) {
  const std::string json = SmallNcsnpp().dump();
  const auto a = CreateModel(json, 1), b = CreateModel(json, 1), c = CreateModel(json, 2);
  ASSERT_TRUE(a.ok() && b.ok() && c.ok());
  const auto first = [](const auto& model) { return (*model)->Parameters().front().second; };
  EXPECT_TRUE(at::equal(first(a), first(b)));
  EXPECT_FALSE(at::equal(first(a), first(c)));
}

class LoadWeightsTest : public ::testing::Test {
 protected:
  LoadWeightsTest() : model_(*CreateModel(SmallNcsnpp().dump(), 1)), other_(*CreateModel(SmallNcsnpp().dump(), 2)) {
    for (const auto& [name, tensor] : other_->State()) weights_.emplace_back(name, tensor.detach().clone());
    before_ = model_->State().front().second.detach().clone();
  }
  void ExpectRefused(const std::string& expected) {
    const absl::Status status = LoadWeights(*model_, weights_);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_TRUE(absl::StrContains(status.message(), expected)) << status;
    EXPECT_TRUE(at::equal(model_->State().front().second, before_)) << "weights changed";
  }
  std::unique_ptr<VelocityModel> model_, other_;
  NamedTensors weights_;
  at::Tensor before_;
};

TEST_F(LoadWeightsTest, CopiesByName) {
  std::swap(weights_.front(), weights_.back());
  ASSERT_TRUE(LoadWeights(*model_, weights_).ok());
  for (size_t i = 0; i < model_->State().size(); ++i) EXPECT_TRUE(at::equal(model_->State()[i].second, other_->State()[i].second));
}

TEST_F(LoadWeightsTest, NamesWhatIsMissing) {
  const std::string name = weights_.back().first;
  weights_.pop_back();
  ExpectRefused("missing: " + name);
}

TEST_F(LoadWeightsTest, NamesWhatIsLeftOver) {
  weights_.emplace_back("extra.weight", at::zeros({1}));
  ExpectRefused("left over: extra.weight");
}

TEST_F(LoadWeightsTest, NamesAShapeThatDiffers) {
  weights_.back().second = at::zeros({3, 1});
  ExpectRefused(weights_.back().first + " has shape [3, 1]");
}

TEST_F(LoadWeightsTest, RefusesIntegers) {
  weights_.back().second = weights_.back().second.to(at::kLong);
  ExpectRefused("dtype");
}

}  // namespace
}  // namespace boss
