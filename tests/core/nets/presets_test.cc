#include "core/nets/presets.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <set>
#include <string>

#include "core/nets/factory.h"

namespace boss {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;

// No weights are drawn: a network of gigabytes is but shapes.
std::unique_ptr<VelocityModel> Shapes(const std::string& preset) {
  return *CreateModel(*PresetArchitecture(preset), std::nullopt);
}

int64_t Fixed(const VelocityModel& model) { return WeightCount(model.State()) - ParameterCount(model); }

TEST(PresetsTest, AllAreNetworks) {
  for (const std::string& name : PresetNames()) {
    const auto model = CreateModel(*PresetArchitecture(name), std::nullopt);
    ASSERT_TRUE(model.ok()) << name << ": " << model.status();
    EXPECT_GT(ParameterCount(**model), 10'000'000) << name;
  }
  EXPECT_THAT(PresetNames(),
              IsSupersetOf({"cifar10-ddpmpp", "ncsnpp-256", "sit-b-2-256", "sit-xl-2-256", "sit-xl-2-512"}));
}

TEST(PresetsTest, AnUnknownOneIsToldWhichThereAre) {
  const absl::Status status = PresetArchitecture("cifar10").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("\"cifar10\", expected one of cifar10-ddpmpp, ncsnpp-256, sit-s-8-256,"));
}

TEST(PresetsTest, RectifiedFlowCheckpointsHaveThePublishedSizes) {
  const auto cifar10 = Shapes("cifar10-ddpmpp");
  EXPECT_EQ(ParameterCount(*cifar10), 61'804'419);
  EXPECT_EQ(Fixed(*cifar10), 0);
  EXPECT_THAT(cifar10->SampleShape(), ElementsAre(3, 32, 32));
  const auto large = Shapes("ncsnpp-256");
  EXPECT_EQ(ParameterCount(*large), 65'574'421);
  EXPECT_EQ(Fixed(*large), 128);
  EXPECT_THAT(large->SampleShape(), ElementsAre(3, 256, 256));
}

TEST(PresetsTest, SitHasThePublishedSizesAndNames) {
  const auto model = Shapes("sit-xl-2-256");
  EXPECT_EQ(WeightCount(model->State()), 675'129'632);
  EXPECT_EQ(Fixed(*model), 256 * 1152);  // the position embedding
  EXPECT_EQ(model->NumClasses(), 1000);
  EXPECT_THAT(model->SampleShape(), ElementsAre(4, 32, 32));
  std::set<std::string> names;
  for (const auto& [name, tensor] : model->State()) names.insert(name);
  EXPECT_EQ(names.size(), 1u + 2 + 4 + 1 + 28 * 10 + 4);
  EXPECT_THAT(names,
              IsSupersetOf({"pos_embed", "x_embedder.proj.weight", "x_embedder.proj.bias", "t_embedder.mlp.0.weight",
                            "t_embedder.mlp.2.bias", "y_embedder.embedding_table.weight", "blocks.0.attn.qkv.weight",
                            "blocks.27.attn.proj.bias", "blocks.27.mlp.fc1.weight", "blocks.27.mlp.fc2.weight",
                            "blocks.27.adaLN_modulation.1.weight", "final_layer.linear.weight",
                            "final_layer.adaLN_modulation.1.bias"}));
  // In millions; the paper has 33, 130 and 458.
  const std::pair<const char*, int64_t> sizes[] = {{"sit-s-2-256", 33}, {"sit-b-2-256", 131}, {"sit-l-2-256", 458}};
  for (const auto& [name, millions] : sizes)
    EXPECT_EQ((WeightCount(Shapes(name)->State()) + 500'000) / 1'000'000, millions) << name;
  // Sigma is learned for 256 pixels alone.
  const auto rows = [](const VelocityModel& sit) {
    for (const auto& [name, tensor] : sit.State()) {
      if (name == "final_layer.linear.weight") return tensor.size(0);
    }
    return int64_t{0};
  };
  EXPECT_EQ(rows(*model), 2 * 2 * 8);
  EXPECT_EQ(rows(*Shapes("sit-xl-2-512")), 2 * 2 * 4);
}

}  // namespace
}  // namespace boss
