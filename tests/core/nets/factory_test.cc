#include "core/nets/factory.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
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

TEST(CreateModelTest, TheSeedDecidesTheWeights) {
  const std::string json = SmallNcsnpp().dump();
  const auto a = CreateModel(json, 1), b = CreateModel(json, 1), c = CreateModel(json, 2);
  ASSERT_TRUE(a.ok() && b.ok() && c.ok());
  const auto first = [](const auto& model) { return (*model)->Parameters().front().second; };
  EXPECT_TRUE(at::equal(first(a), first(b)));
  EXPECT_FALSE(at::equal(first(a), first(c)));
}

TEST(CreateModelTest, ConditioningIsDescribed) {
  const auto model = CreateModel(
      R"({"model":{"architecture":"mlp","conditioning":[{"name":"a","shape":[3]},{"name":"b","shape":[1],"dtype":"float32"}]}})", 0);
  ASSERT_TRUE(model.ok()) << model.status();
  const auto specs = (*model)->ConditioningSpecs();
  ASSERT_EQ(specs.size(), 2u);
  EXPECT_EQ(specs[0].name, "a");
  EXPECT_EQ(specs[0].shape, (std::vector<int64_t>{3}));
  Condition condition;
  condition.tensors = {{"b", at::ones({2, 1})}};
  const at::Tensor x = at::ones({2, 2}), t = at::zeros({2});
  EXPECT_FALSE(at::equal((*model)->Velocity(x, t, condition), (*model)->Velocity(x, t, {})));
  condition.tensors = {{"b", at::zeros({2, 1})}, {"a", at::zeros({2, 3})}};
  EXPECT_TRUE(at::equal((*model)->Velocity(x, t, condition), (*model)->Velocity(x, t, {})));
  for (const char* conditioning : {R"([{"name":"a","shape":[2,3]}])", R"([{"name":"a","shape":[2],"dtype":"int64"}])", R"([{"name":"a"}])",
                                   R"([{"name":"a","shape":[0]}])", R"([{"name":"","shape":[1]}])", R"({"name":"a","shape":[1]})"}) {
    const std::string json = std::string(R"({"model":{"architecture":"mlp","conditioning":)") + conditioning + "}}";
    EXPECT_EQ(CreateModel(json, 0).status().code(), absl::StatusCode::kInvalidArgument) << json;
  }
  EXPECT_EQ(CreateModel(R"({"model":{"architecture":"mlp"},"decoder":{"scale":1}})", 0).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(CreateModel(R"({"model":{"architecture":"mlp"},"decoder":{"decoded_shape":[3,8,8]}})", 0).ok());
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

TEST_F(LoadWeightsTest, HundredsOfNamesAreCountedAndAFewShown) {
  NamedTensors others;
  for (int i = 0; i < 500; ++i) others.emplace_back(absl::StrCat("foreign.", i), at::zeros({1}));
  const absl::Status status = CheckWeights(*model_, others);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  const std::string total = absl::StrCat(", ... (", model_->State().size(), " in all)");
  EXPECT_TRUE(absl::StrContains(status.message(), absl::StrCat("missing: ", model_->State().front().first))) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), total)) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), "left over: foreign.0, foreign.1, ")) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), ", ... (500 in all)")) << status;
  EXPECT_LT(status.message().size(), 500u);
}

TEST_F(LoadWeightsTest, AllKindsOfFaultsAreTold) {
  const std::string misshapen = weights_[1].first;
  weights_[1].second = at::zeros({3, 1});
  weights_.erase(weights_.begin());
  weights_.emplace_back("extra", at::zeros({1}));
  for (const std::string& part : {"missing: " + other_->State().front().first, std::string("left over: extra"), misshapen + " has shape [3, 1]"})
    ExpectRefused(part);
}

TEST_F(LoadWeightsTest, ANetworkWithoutASeedTakesThem) {
  const auto empty = CreateModel(SmallNcsnpp().dump(), std::nullopt);
  ASSERT_TRUE(empty.ok()) << empty.status();
  ASSERT_TRUE(LoadWeights(**empty, weights_).ok());
  for (size_t i = 0; i < weights_.size(); ++i)
    EXPECT_TRUE(at::equal((*empty)->State()[i].second, other_->State()[i].second));
}

TEST_F(LoadWeightsTest, RefusesIntegers) {
  weights_.back().second = weights_.back().second.to(at::kLong);
  ExpectRefused("dtype");
}

}  // namespace
}  // namespace boss
