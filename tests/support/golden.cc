#include "tests/support/golden.h"

#include <ATen/ATen.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "core/io/torch_checkpoint.h"
#include "core/nets/factory.h"

namespace boss::testing {
namespace {

// A broken reference is no test result: the process ends with what was wrong.
[[noreturn]] void Fail(const std::string& message) {
  std::fprintf(stderr, "golden: %s\n", message.c_str());
  std::exit(2);
}

template <typename T>
T ValueOrFail(absl::StatusOr<T> result) {
  if (!result.ok()) Fail(result.status().ToString());
  return *std::move(result);
}

std::unique_ptr<VelocityModel> Load(const nlohmann::json& config, const TorchCheckpoint& checkpoint, bool raw) {
  const nlohmann::json architecture = {{"model", config["model"]}, {"time", config["time"]}};
  std::unique_ptr<VelocityModel> model = ValueOrFail(CreateModel(architecture.dump(), 0));
  std::vector<std::string> names;
  for (const auto& [name, tensor] : model->Parameters()) names.push_back(name);
  const absl::Status status = LoadWeights(*model, ValueOrFail(CheckpointWeights(checkpoint, names, raw)));
  if (!status.ok()) Fail(status.ToString());
  return model;
}

}  // namespace

at::Tensor Golden::operator[](const std::string& key) const {
  at::Tensor tensor = tensors.Find(key);
  if (!tensor.defined()) Fail("no tensor " + key);
  return tensor;
}

std::vector<int> Golden::Knots(int steps) const { return config["bellman"]["schedules"][std::to_string(steps)]["knots"]; }

double Golden::Cost(int steps) const { return config["bellman"]["schedules"][std::to_string(steps)]["cost"]; }

Golden LoadGolden(const std::string& name) {
  const std::string stem = std::string(BOSS_SOURCE_DIR) + "/tests/golden/" + name;
  Golden golden;
  std::ifstream file(stem + ".json");
  golden.config = nlohmann::json::parse(file, nullptr, false);
  if (golden.config.is_discarded()) Fail("cannot read " + stem + ".json");
  golden.tensors = ValueOrFail(ReadSafetensors(stem + ".golden.safetensors"));
  const TorchCheckpoint checkpoint = ValueOrFail(ReadTorchCheckpoint(stem + ".pth"));
  golden.raw = Load(golden.config, checkpoint, /*raw=*/true);
  golden.ema = Load(golden.config, checkpoint, /*raw=*/false);
  return golden;
}

double RelativeError(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor reference = b.to(at::kDouble);
  return ((a.detach().to(at::kDouble) - reference).norm() / reference.norm()).item<double>();
}

}  // namespace boss::testing
