// The second network of a model in latent space: from its samples to pixels.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "core/nets/json_object.h"

namespace torch::jit {
struct Module;
}

namespace boss {

// "decoder": {"scale": 0.18215, "shift": 0, "decoded_shape": [3, 256, 256]} in a model's description: the network is given latents / scale + shift
// and returns [B, decoded_shape...].
struct DecoderConfig {
  double scale = 1, shift = 0;
  std::vector<int64_t> decoded_shape;

  // \error INVALID_ARGUMENT naming the key.
  static absl::StatusOr<DecoderConfig> FromJson(const JsonObject& json);
  // Of a model's whole description. \error NOT_FOUND if it has no decoder.
  static absl::StatusOr<DecoderConfig> FromArchitecture(std::string_view architecture_json);
  friend bool operator==(const DecoderConfig&, const DecoderConfig&) = default;
};

// A TorchScript module; core/nets/torch_script_archive.h says what that means. const methods may run at the same time.
class Decoder {
 public:
  // \error as LoadTorchScript.
  static absl::StatusOr<std::unique_ptr<Decoder>> Load(DecoderConfig config, const std::shared_ptr<const std::string>& archive);
  ~Decoder();

  // latents: [B, ...] float32 on the decoder's device. \return [B, decoded_shape...] float32. Throws what CallTorchScript throws.
  at::Tensor Decode(const at::Tensor& latents) const;
  const std::vector<int64_t>& decoded_shape() const { return config_.decoded_shape; }

  void To(at::Device device);
  at::Device device() const { return device_; }
  int64_t MemoryBytes() const;  // of its weights

 private:
  Decoder(DecoderConfig config, std::unique_ptr<torch::jit::Module> module);

  const DecoderConfig config_;
  const std::unique_ptr<torch::jit::Module> module_;
  at::Device device_ = at::kCPU;
};

}  // namespace boss
