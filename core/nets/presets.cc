#include "core/nets/presets.h"

#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"

namespace boss {
namespace {

using Json = nlohmann::json;
using Presets = std::vector<std::pair<std::string, Json>>;

constexpr int64_t kImageNetClasses = 1000;
constexpr int64_t kLatentChannels = 4, kPixelsPerLatent = 8;

// The time that the rectified-flow networks were trained on.
Json RectifiedFlow(Json model) { return {{"model", std::move(model)}, {"time", {{"eps", 1e-3}, {"scale", 999}}}}; }

struct SitSize {
  const char* name;
  int64_t hidden_size, depth, num_heads;
};
constexpr SitSize kSitSizes[] = {{"s", 384, 12, 6}, {"b", 768, 12, 12}, {"l", 1024, 24, 16}, {"xl", 1152, 28, 16}};

std::pair<std::string, Json> Sit(const SitSize& size, int64_t patch_size, int64_t pixels) {
  // Only those for 256 pixels were trained with a learned sigma.
  return {absl::StrCat("sit-", size.name, "-", patch_size, "-", pixels),
          {{"model",
            {{"architecture", "dit"},
             {"input_size", pixels / kPixelsPerLatent},
             {"channels", kLatentChannels},
             {"patch_size", patch_size},
             {"hidden_size", size.hidden_size},
             {"depth", size.depth},
             {"num_heads", size.num_heads},
             {"num_classes", kImageNetClasses},
             {"learn_sigma", pixels == 256}}}}};
}

Presets MakePresets() {
  Presets presets;
  presets.emplace_back("cifar10-ddpmpp", RectifiedFlow({{"architecture", "ncsnpp"},
                                                        {"image_size", 32},
                                                        {"channels", 3},
                                                        {"nf", 128},
                                                        {"ch_mult", {1, 2, 2, 2}},
                                                        {"num_res_blocks", 4},
                                                        {"attn_resolutions", {16}},
                                                        {"embedding_type", "positional"},
                                                        {"fir", false},
                                                        {"progressive", "none"},
                                                        {"progressive_input", "none"},
                                                        {"scale_by_sigma", false},
                                                        {"centered", true}}));
  presets.emplace_back("ncsnpp-256", RectifiedFlow({{"architecture", "ncsnpp"},
                                                    {"image_size", 256},
                                                    {"channels", 3},
                                                    {"nf", 128},
                                                    {"ch_mult", {1, 1, 2, 2, 2, 2, 2}},
                                                    {"num_res_blocks", 2},
                                                    {"attn_resolutions", {16}},
                                                    {"embedding_type", "fourier"},
                                                    {"fourier_scale", 16},
                                                    {"fir", true},
                                                    {"progressive", "output_skip"},
                                                    {"progressive_input", "input_skip"},
                                                    {"scale_by_sigma", true},
                                                    {"centered", false}}));
  for (const SitSize& size : kSitSizes) {
    for (const int64_t patch_size : {8, 4, 2}) presets.push_back(Sit(size, patch_size, 256));
  }
  presets.push_back(Sit(kSitSizes[3], 2, 512));
  return presets;
}

const Presets& AllPresets() {
  static const Presets* const kPresets = new Presets(MakePresets());
  return *kPresets;
}

}  // namespace

std::vector<std::string> PresetNames() {
  std::vector<std::string> names;
  for (const auto& [name, architecture] : AllPresets()) names.push_back(name);
  return names;
}

absl::StatusOr<std::string> PresetArchitecture(absl::string_view name) {
  for (const auto& [known, architecture] : AllPresets()) {
    if (known == name) return architecture.dump();
  }
  return absl::InvalidArgumentError(absl::StrCat("there is no preset \"", name.substr(0, 64), "\", expected one of ",
                                                 absl::StrJoin(PresetNames(), ", ")));
}

}  // namespace boss
