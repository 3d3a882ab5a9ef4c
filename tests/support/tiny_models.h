// Networks small enough to be built and run in a blink, as models that a server can import.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/flow/velocity_model.h"
#include "server/store/model_store.h"

namespace boss::testing {

// Vectors [2], 3 labels.
inline constexpr char kTinyVectorArchitecture[] =
    R"({"model": {"architecture": "mlp", "dim": 2, "hidden": 16, "layers": 2, "num_classes": 3}})";
// The same, and conditioned on an embedding [3].
inline constexpr char kTinyConditionedArchitecture[] =
    R"({"model": {"architecture": "mlp", "dim": 2, "hidden": 16, "layers": 2, "num_classes": 3,
                  "conditioning": [{"name": "embedding", "shape": [3]}]}})";
// Grey images [1, 8, 8], 3 labels.
extern const char kTinyImageArchitecture[];

// Random weights, none of them zero, so that every part of the network shows in its output.
std::unique_ptr<VelocityModel> TinyModel(const std::string& architecture_json, uint64_t seed);

// Publishes it as the next version of `name`. Fails the process if that fails.
server::VersionKey PublishTinyModel(server::ModelStore& store, const std::string& name,
                                    const std::string& architecture_json, uint64_t seed = 1);

// The folder <parent>/<name> of a model as bossd's --seed-models takes it. Fails the process if that fails.
void WriteSeedModel(const std::string& parent, const std::string& name, const std::string& architecture_json,
                    uint64_t seed = 1);

// Every schedule up to k_max: of k steps, k - 1 short ones and a long one to the end.
server::StoredScheduleSet TinyScheduleSet(int k_max, double guidance_scale = 1.0);
// Those of up to `max_steps` steps for multistep, with coefficients of every order and of no other meaning.
server::StoredScheduleSet TinyMultistepSet(int k_max, int max_steps, double guidance_scale = 1.0);

}  // namespace boss::testing
