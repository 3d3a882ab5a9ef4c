#include "core/nets/decoder.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/jit/api/module.h>

#include <cmath>
#include <functional>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/nets/architecture.h"
#include "core/nets/torch_script_archive.h"

namespace boss {
namespace {

constexpr size_t kMaxDimensions = 8;
constexpr int64_t kMaxElements = int64_t{1} << 28;

}  // namespace

absl::StatusOr<DecoderConfig> DecoderConfig::FromJson(const JsonObject& json) {
  DecoderConfig config;
  BOSS_ASSIGN_OR_RETURN(config.scale, json.NumberOr("scale", config.scale));
  BOSS_ASSIGN_OR_RETURN(config.shift, json.NumberOr("shift", config.shift));
  BOSS_ASSIGN_OR_RETURN(config.decoded_shape, json.Integers("decoded_shape", 1, kMaxElements));
  BOSS_RETURN_IF_ERROR(json.CheckAllRead());
  if (config.scale == 0 || !std::isfinite(config.scale) || !std::isfinite(config.shift))
    return absl::InvalidArgumentError("decoder: expected a finite shift and a finite scale other than 0");
  const double elements =
      std::accumulate(config.decoded_shape.begin(), config.decoded_shape.end(), 1.0, std::multiplies<>());
  if (config.decoded_shape.empty() || config.decoded_shape.size() > kMaxDimensions ||
      elements > static_cast<double>(kMaxElements))
    return absl::InvalidArgumentError(absl::StrCat("decoder.decoded_shape: expected 1 to ", kMaxDimensions,
                                                   " sizes and up to ", kMaxElements, " elements"));
  return config;
}

absl::StatusOr<DecoderConfig> DecoderConfig::FromArchitecture(std::string_view architecture_json) {
  BOSS_ASSIGN_OR_RETURN(const Architecture architecture, Architecture::Parse(architecture_json));
  if (!architecture.decoder) return absl::NotFoundError("the model has no decoder");
  return FromJson(*architecture.decoder);
}

Decoder::Decoder(DecoderConfig config, std::unique_ptr<torch::jit::Module> module)
    : config_(std::move(config)), module_(std::move(module)) {}
Decoder::~Decoder() = default;

absl::StatusOr<std::unique_ptr<Decoder>> Decoder::Load(DecoderConfig config,
                                                       const std::shared_ptr<const std::string>& archive) {
  BOSS_ASSIGN_OR_RETURN(std::unique_ptr<torch::jit::Module> module, LoadTorchScript(archive));
  for (const at::Tensor& parameter : module->parameters()) parameter.set_requires_grad(false);
  return std::unique_ptr<Decoder>(new Decoder(std::move(config), std::move(module)));
}

at::Tensor Decoder::Decode(const at::Tensor& latents) const {
  std::vector<int64_t> shape = config_.decoded_shape;
  shape.insert(shape.begin(), latents.size(0));
  return CallTorchScript(*module_, {latents / config_.scale + config_.shift}, {}, shape);
}

void Decoder::To(at::Device device) {
  const c10::InferenceMode no_inference_mode(false);
  const c10::NoGradGuard no_grad;
  module_->to(device);
  device_ = device;
}

int64_t Decoder::MemoryBytes() const {
  int64_t bytes = 0;
  for (const at::Tensor& tensor : module_->parameters()) bytes += static_cast<int64_t>(tensor.nbytes());
  for (const at::Tensor& tensor : module_->buffers()) bytes += static_cast<int64_t>(tensor.nbytes());
  return bytes;
}

}  // namespace boss
