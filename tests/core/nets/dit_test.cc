#include "core/nets/dit.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <memory>
#include <numbers>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/nets/factory.h"
#include "nlohmann/json.hpp"

namespace boss {
namespace {

using Vector = std::vector<double>;

constexpr int64_t kSize = 6, kChannels = 3, kPatch = 2, kWidth = 8, kDepth = 2, kHeads = 2, kMlp = 20, kClasses = 3;

nlohmann::json Architecture() {
  return {{"model",
           {{"architecture", "dit"},
            {"input_size", kSize},
            {"channels", kChannels},
            {"patch_size", kPatch},
            {"hidden_size", kWidth},
            {"depth", kDepth},
            {"num_heads", kHeads},
            {"mlp_ratio", 2.5},
            {"num_classes", kClasses},
            {"learn_sigma", true}}}};
}

// All weights random, none small.
std::unique_ptr<VelocityModel> Randomised() {
  std::unique_ptr<VelocityModel> model = *CreateModel(Architecture().dump(), 3);
  const c10::NoGradGuard no_grad;
  at::manual_seed(5);
  for (auto& [name, tensor] : model->Parameters()) tensor.add_(at::randn_like(tensor), 0.3);
  return model;
}

at::Tensor Named(const VelocityModel& model, const std::string& name) {
  for (const auto& [known, tensor] : model.State()) {
    if (known == name) return tensor;
  }
  ADD_FAILURE() << name;
  return {};
}

// The network as its papers describe it: one sample, loops, doubles. pos_embed is computed, not read.
class Reference {
 public:
  explicit Reference(const VelocityModel& model) {
    for (const auto& [name, tensor] : model.State()) {
      const at::Tensor flat = tensor.detach().to(at::kDouble).flatten().contiguous();
      weights_[name] = Vector(flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel());
    }
  }

  // image, result: [channels][row][column], flat.
  Vector Velocity(const Vector& image, double t, int64_t label) const {
    const Vector condition = Condition(t, label);
    std::vector<Vector> tokens = Patchify(image);
    for (int64_t i = 0; i < kDepth; ++i) {
      const std::string block = absl::StrCat("blocks.", i, ".");
      const Vector m = Linear(block + "adaLN_modulation.1", condition);
      const std::vector<Vector> attended = Attention(block, Modulated(tokens, m, 0, 1));
      AddGated(tokens, attended, m, 2);
      std::vector<Vector> mlp = Modulated(tokens, m, 3, 4);
      for (Vector& token : mlp) {
        token = Linear(block + "mlp.fc1", token);
        EXPECT_EQ(token.size(), static_cast<size_t>(kMlp));
        for (double& x : token)
          x = 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
        token = Linear(block + "mlp.fc2", token);
      }
      AddGated(tokens, mlp, m, 5);
    }
    const Vector m = Linear("final_layer.adaLN_modulation.1", condition);
    return Unpatchify(Modulated(tokens, m, 0, 1));
  }

 private:
  Vector Linear(const std::string& name, const Vector& x) const {
    const Vector &w = weights_.at(name + ".weight"), &b = weights_.at(name + ".bias");
    Vector y = b;
    for (size_t o = 0; o < y.size(); ++o) {
      for (size_t i = 0; i < x.size(); ++i) y[o] += w[o * x.size() + i] * x[i];
    }
    return y;
  }
  static void Swish(Vector& x) {
    for (double& value : x) value /= 1 + std::exp(-value);
  }

  Vector Condition(double t, int64_t label) const {
    Vector embedding(256);
    for (int i = 0; i < 128; ++i) {
      const double phase = t * std::exp(-std::log(10000.0) * i / 128);
      embedding[i] = std::cos(phase);
      embedding[128 + i] = std::sin(phase);
    }
    Vector c = Linear("t_embedder.mlp.0", embedding);
    Swish(c);
    c = Linear("t_embedder.mlp.2", c);
    for (int64_t d = 0; d < kWidth; ++d) c[d] += weights_.at("y_embedder.embedding_table.weight")[label * kWidth + d];
    Swish(c);  // every modulation begins with it
    return c;
  }

  std::vector<Vector> Patchify(const Vector& image) const {
    const Vector &w = weights_.at("x_embedder.proj.weight"), &b = weights_.at("x_embedder.proj.bias");
    std::vector<Vector> tokens;
    for (int64_t row = 0; row < kSize / kPatch; ++row) {
      for (int64_t column = 0; column < kSize / kPatch; ++column) {
        Vector token = b;
        for (int64_t d = 0; d < kWidth; ++d) {
          for (int64_t c = 0; c < kChannels; ++c) {
            for (int64_t y = 0; y < kPatch; ++y) {
              for (int64_t x = 0; x < kPatch; ++x) {
                token[d] += w[((d * kChannels + c) * kPatch + y) * kPatch + x] *
                            image[(c * kSize + row * kPatch + y) * kSize + column * kPatch + x];
              }
            }
          }
          // sin, cos of the column; sin, cos of the row.
          const int64_t quarter = kWidth / 4, part = d / quarter, i = d % quarter;
          const double phase =
              static_cast<double>(part < 2 ? column : row) * std::pow(10000.0, -static_cast<double>(i) / quarter);
          token[d] += part % 2 == 0 ? std::sin(phase) : std::cos(phase);
        }
        tokens.push_back(token);
      }
    }
    return tokens;
  }

  static std::vector<Vector> Modulated(std::vector<Vector> tokens, const Vector& m, int64_t shift, int64_t scale) {
    for (Vector& token : tokens) {
      double mean = 0, variance = 0;
      for (const double x : token) mean += x / kWidth;
      for (const double x : token) variance += (x - mean) * (x - mean) / kWidth;
      for (int64_t d = 0; d < kWidth; ++d) {
        const double normalized = (token[d] - mean) / std::sqrt(variance + 1e-6);
        token[d] = normalized * (1 + m[scale * kWidth + d]) + m[shift * kWidth + d];
      }
    }
    return tokens;
  }

  static void AddGated(std::vector<Vector>& tokens, const std::vector<Vector>& added, const Vector& m, int64_t gate) {
    for (size_t token = 0; token < tokens.size(); ++token) {
      for (int64_t d = 0; d < kWidth; ++d) tokens[token][d] += m[gate * kWidth + d] * added[token][d];
    }
  }

  std::vector<Vector> Attention(const std::string& block, const std::vector<Vector>& tokens) const {
    std::vector<Vector> qkv, result;
    for (const Vector& token : tokens) qkv.push_back(Linear(block + "attn.qkv", token));
    const int64_t width = kWidth / kHeads;
    for (const Vector& query : qkv) {
      Vector attended(kWidth, 0.0);
      for (int64_t head = 0; head < kHeads; ++head) {
        Vector score;
        double sum = 0;
        for (const Vector& key : qkv) {
          double dot = 0;
          for (int64_t k = head * width; k < (head + 1) * width; ++k) dot += query[k] * key[kWidth + k];
          score.push_back(std::exp(dot / std::sqrt(static_cast<double>(width))));
          sum += score.back();
        }
        for (size_t token = 0; token < qkv.size(); ++token) {
          for (int64_t k = head * width; k < (head + 1) * width; ++k)
            attended[k] += score[token] / sum * qkv[token][2 * kWidth + k];
        }
      }
      result.push_back(Linear(block + "attn.proj", attended));
    }
    return result;
  }

  Vector Unpatchify(const std::vector<Vector>& tokens) const {
    Vector image(kChannels * kSize * kSize);
    const int64_t side = kSize / kPatch;
    for (int64_t token = 0; token < side * side; ++token) {
      const Vector patch = Linear("final_layer.linear", tokens[token]);
      for (int64_t y = 0; y < kPatch; ++y) {
        for (int64_t x = 0; x < kPatch; ++x) {
          for (int64_t c = 0; c < kChannels; ++c) {
            image[(c * kSize + token / side * kPatch + y) * kSize + token % side * kPatch + x] =
                patch[(y * kPatch + x) * 2 * kChannels + c];
          }
        }
      }
    }
    return image;
  }

  std::map<std::string, Vector> weights_;
};

at::Tensor Image(int64_t batch) { return at::randn({batch, kChannels, kSize, kSize}); }

Condition Labels(const std::vector<int64_t>& labels) {
  Condition condition;
  condition.class_labels = at::tensor(labels, at::kLong);
  return condition;
}

TEST(DitTest, IsTheNetworkOfThePapers) {
  const c10::NoGradGuard no_grad;
  const auto model = Randomised();
  const Reference reference(*model);
  const at::Tensor x = Image(3);
  const float times[] = {0.0f, 0.37f, 1.0f};
  const std::vector<int64_t> labels = {0, 2, kClasses};
  const at::Tensor got = model->Velocity(x, at::tensor({times[0], times[1], times[2]}), Labels(labels));
  for (int64_t i = 0; i < 3; ++i) {
    const at::Tensor image = x[i].to(at::kDouble).flatten().contiguous();
    const Vector expected = reference.Velocity(
        Vector(image.const_data_ptr<double>(), image.const_data_ptr<double>() + image.numel()), times[i], labels[i]);
    const at::Tensor expected_tensor = at::tensor(expected, at::kDouble).view({kChannels, kSize, kSize});
    const double error = ((got[i] - expected_tensor).norm() / expected_tensor.norm()).item<double>();
    EXPECT_GT(expected_tensor.norm().item<double>(), 1);
    EXPECT_LT(error, 1e-5) << i;
  }
}

TEST(DitTest, ANewNetworkIsNothingAtFirst) {
  const auto model = *CreateModel(Architecture().dump(), 1);
  EXPECT_EQ(model->Velocity(Image(2), at::tensor({0.2f, 0.9f}), Labels({0, 1})).abs().max().item<float>(), 0);
  EXPECT_GT(Named(*model, "blocks.0.attn.qkv.weight").abs().max().item<float>(), 0);
}

TEST(DitTest, TheLearnedSigmaIsDropped) {
  const c10::NoGradGuard no_grad;
  const auto model = Randomised();
  const at::Tensor x = Image(2), t = at::tensor({0.2f, 0.9f});
  const at::Tensor before = model->Velocity(x, t, {});
  ASSERT_EQ(before.sizes(), x.sizes());
  const at::Tensor rows = Named(*model, "final_layer.linear.weight").view({kPatch * kPatch, 2, kChannels, kWidth});
  rows.select(1, 1).add_(1);
  EXPECT_TRUE(at::equal(model->Velocity(x, t, {}), before));
  rows.select(1, 0).add_(1);
  EXPECT_FALSE(at::allclose(model->Velocity(x, t, {}), before));
}

TEST(DitTest, GradientsAreThoseOfFiniteDifferences) {
  const auto model = Randomised();
  const at::Tensor x = Image(2), t = at::tensor({0.2f, 0.9f}), weight = Image(2);
  const auto loss = [&] { return (model->Velocity(x, t, Labels({1, 3})) * weight).sum(); };
  loss().backward();
  const c10::NoGradGuard no_grad;
  for (const char* name : {"x_embedder.proj.weight", "t_embedder.mlp.0.weight", "y_embedder.embedding_table.weight",
                           "blocks.0.attn.qkv.weight", "blocks.1.mlp.fc1.weight", "blocks.0.adaLN_modulation.1.weight",
                           "final_layer.linear.bias"}) {
    at::Tensor parameter = Named(*model, name);
    const at::Tensor direction = at::randn_like(parameter);
    const double expected = (parameter.grad() * direction).sum().item<double>();
    constexpr double kStep = 2e-3;
    parameter.add_(direction, kStep);
    const double above = loss().item<double>();
    parameter.sub_(direction, 2 * kStep);
    const double below = loss().item<double>();
    parameter.add_(direction, kStep);
    EXPECT_NEAR((above - below) / (2 * kStep), expected, 0.02 * std::abs(expected) + 0.05) << name;
    EXPECT_GT(std::abs(expected), 0.1) << name;
  }
}

TEST(DitTest, WithoutASeedOnlyThePositionsHaveValues) {
  const auto shapes = *CreateModel(Architecture().dump(), std::nullopt),
             seeded = *CreateModel(Architecture().dump(), 1);
  const NamedTensors got = shapes->State(), expected = seeded->State();
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].first, expected[i].first);
    EXPECT_EQ(got[i].second.sizes(), expected[i].second.sizes());
  }
  EXPECT_TRUE(at::equal(Named(*shapes, "pos_embed"), Named(*seeded, "pos_embed")));
  EXPECT_EQ(Named(*shapes, "pos_embed").sizes(), (std::vector<int64_t>{1, 9, kWidth}));
  EXPECT_FALSE(Named(*shapes, "pos_embed").requires_grad());
}

TEST(DitTest, UnknownAndUnfitKeysAreNamed) {
  struct Case {
    const char* key;
    nlohmann::json value;
    const char* expected;
  };
  for (const Case& c : std::vector<Case>{{"input_size", 7, "model.input_size"},
                                         {"hidden_size", 9, "model.hidden_size"},
                                         {"num_heads", 3, "model.hidden_size"},
                                         {"hidden_size", "wide", "model.hidden_size"},
                                         {"mlp_ratio", 0, "model.mlp_ratio"},
                                         {"mlp_ratio", 1e9, "model.mlp_ratio"},
                                         {"depth", 0, "model.depth"},
                                         {"learn_sigma", 1, "model.learn_sigma"},
                                         {"qk_norm", true, "model.qk_norm"}}) {
    nlohmann::json json = Architecture();
    json["model"][c.key] = c.value;
    const absl::Status status = CreateModel(json.dump(), 0).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << json;
    EXPECT_TRUE(absl::StrContains(status.message(), c.expected)) << status;
  }
  for (const char* key : {"input_size", "hidden_size", "depth", "num_heads"}) {
    nlohmann::json json = Architecture();
    json["model"].erase(key);
    EXPECT_TRUE(absl::StrContains(CreateModel(json.dump(), 0).status().message(), key));
  }
  nlohmann::json json = Architecture();
  json["model"]["num_classes"] = 0;
  const auto unlabelled = CreateModel(json.dump(), 0);
  ASSERT_TRUE(unlabelled.ok()) << unlabelled.status();
  EXPECT_EQ((*unlabelled)->Velocity(Image(1), at::zeros({1}), {}).numel(), kChannels * kSize * kSize);
}

}  // namespace
}  // namespace boss
