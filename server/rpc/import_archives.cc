#include "server/rpc/import_archives.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"
#include "core/nets/decoder.h"
#include "core/nets/factory.h"
#include "core/nets/torch_script_model.h"

namespace boss::server {
namespace {

constexpr int64_t kTried = 2;
constexpr float kTriedTime = 0.5F;

// Whatever is wrong with what was uploaded is the caller's mistake.
absl::Status AsArgument(const absl::Status& status) {
  if (status.ok() || absl::IsResourceExhausted(status)) return status;
  return absl::InvalidArgumentError(status.message());
}

absl::Status Check(const std::string& architecture_json, const std::shared_ptr<const std::string>& model,
                   const std::shared_ptr<const std::string>& decoder) {
  const c10::NoGradGuard no_grad;
  std::vector<int64_t> shape;
  if (model != nullptr) {
    BOSS_ASSIGN_OR_RETURN(const std::unique_ptr<VelocityModel> network, LoadTorchScriptModel(architecture_json, model));
    shape = network->SampleShape();
    shape.insert(shape.begin(), kTried);
    network->Velocity(at::zeros(shape), at::full({kTried}, kTriedTime), {});
  } else if (decoder != nullptr) {
    BOSS_ASSIGN_OR_RETURN(const std::unique_ptr<VelocityModel> network,
                          CreateModel(architecture_json, /*seed=*/std::nullopt));
    shape = network->SampleShape();
    shape.insert(shape.begin(), kTried);
  }
  if (decoder == nullptr) return absl::OkStatus();
  BOSS_ASSIGN_OR_RETURN(const DecoderConfig config, DecoderConfig::FromArchitecture(architecture_json));
  const absl::StatusOr<std::unique_ptr<Decoder>> loaded = Decoder::Load(config, decoder);
  if (!loaded.ok()) return absl::Status(loaded.status().code(), absl::StrCat("decoder: ", loaded.status().message()));
  (*loaded)->Decode(at::zeros(shape));
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckArchives(const std::string& architecture_json, const std::shared_ptr<const std::string>& model,
                           const std::shared_ptr<const std::string>& decoder) {
  return AsArgument(GuardTorch("trying the module", [&] { return Check(architecture_json, model, decoder); }));
}

}  // namespace boss::server
