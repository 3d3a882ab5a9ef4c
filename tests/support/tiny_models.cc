#include "tests/support/tiny_models.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include "core/io/atomic_file.h"
#include "core/io/safetensors.h"
#include "core/nets/factory.h"

namespace boss::testing {
namespace {

void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "tiny model: %s\n", status.ToString().c_str());
  std::abort();
}

}  // namespace

const char kTinyImageArchitecture[] = R"({
  "model": {"architecture": "ncsnpp", "image_size": 8, "channels": 1, "nf": 16, "ch_mult": [1],
            "num_res_blocks": 1, "attn_resolutions": [],
            "resblock_type": "biggan", "embedding_type": "positional", "fir": false,
            "progressive": "none", "progressive_input": "none",
            "progressive_combine": "sum", "skip_rescale": true, "resamp_with_conv": true,
            "scale_by_sigma": false, "centered": true,
            "nonlinearity": "swish", "conditional": true, "attention_type": "ddpm", "dropout": 0.0, "num_classes": 3},
  "time": {"eps": 0.001, "scale": 999}})";

std::unique_ptr<VelocityModel> TinyModel(const std::string& architecture_json, uint64_t seed) {
  auto model = CreateModel(architecture_json, seed);
  Check(model.status());
  at::Generator generator = at::detail::createCPUGenerator(seed);
  for (const auto& [name, tensor] : (*model)->Parameters()) {
    at::Tensor values = tensor.detach();
    values.add_(at::randn(values.sizes(), generator), 0.05);
  }
  return *std::move(model);
}

server::VersionKey PublishTinyModel(server::ModelStore& store, const std::string& name,
                                    const std::string& architecture_json, uint64_t seed) {
  server::Manifest manifest;
  manifest.architecture_json = architecture_json;
  const auto key = store.Publish(name, std::move(manifest), TinyModel(architecture_json, seed)->State());
  Check(key.status());
  return *key;
}

void WriteSeedModel(const std::string& parent, const std::string& name, const std::string& architecture_json,
                    uint64_t seed) {
  const std::string folder = parent + "/" + name;
  std::filesystem::create_directories(folder);
  server::Manifest manifest;
  manifest.architecture_json = architecture_json;
  Check(WriteFileAtomically(folder + "/manifest.json", server::ManifestToJson(manifest)));
  Check(WriteSafetensors(folder + "/model.safetensors", {.tensors = TinyModel(architecture_json, seed)->State()}));
}

server::StoredScheduleSet TinyScheduleSet(int k_max, double guidance_scale) {
  server::StoredScheduleSet stored;
  stored.set.k_max = k_max;
  stored.set.num_samples = 4;
  stored.set.guidance_scale = guidance_scale;
  stored.set.cost_matrix.assign((k_max + 1) * (k_max + 1), 0.0);
  for (int steps = 1; steps <= k_max; ++steps) {
    Schedule schedule;
    std::vector<double> times;
    for (int i = 0; i < steps; ++i) {
      schedule.knots.push_back(i);
      times.push_back(static_cast<double>(i) / k_max);
    }
    schedule.knots.push_back(k_max);
    times.push_back(1.0);
    schedule.time_grid = *TimeGrid::Create(times);
    stored.set.schedules.push_back(std::move(schedule));
  }
  return stored;
}

server::StoredScheduleSet TinyMultistepSet(int k_max, int max_steps, double guidance_scale) {
  server::StoredScheduleSet stored = TinyScheduleSet(k_max, guidance_scale);
  stored.set.solver = SolverKind::kMultistep;
  stored.set.cost_matrix.clear();
  stored.set.schedules.resize(static_cast<size_t>(max_steps));
  for (Schedule& schedule : stored.set.schedules) {
    schedule.solver = SolverKind::kMultistep;
    for (int step = 0; step < schedule.time_grid.steps(); ++step) {
      StepCoefficients coefficients{step % 2 == 0 ? 1.0 : 0.9, {schedule.time_grid.StepSize(step)}};
      if (step >= 1) coefficients.velocities.push_back(-0.25);
      if (step >= 2 && step != 3) coefficients.velocities.push_back(0.125);
      schedule.coefficients.push_back(std::move(coefficients));
    }
    schedule.fit_error = 0.25;
    schedule.held_out_error = 1.0 / 3;
  }
  return stored;
}

}  // namespace boss::testing
