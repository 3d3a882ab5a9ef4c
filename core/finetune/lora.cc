#include "core/finetune/lora.h"

#include <ATen/ATen.h>


#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"

namespace boss {
namespace {

constexpr char kRank[] = "lora_rank", kAlpha[] = "lora_alpha";
constexpr int kMaxRank = 1024;

absl::StatusOr<LoraOptions> ReadOptions(const Safetensors& contents) {
  LoraOptions options;
  const auto rank = contents.metadata.find(kRank), alpha = contents.metadata.find(kAlpha);
  if (rank == contents.metadata.end() || alpha == contents.metadata.end() || !absl::SimpleAtoi(rank->second, &options.rank) ||
      !absl::SimpleAtod(alpha->second, &options.alpha) || options.rank < 1 || options.rank > kMaxRank) {
    return absl::DataLossError(absl::StrCat("adapter: expected metadata ", kRank, " in [1, ", kMaxRank, "] and ", kAlpha));
  }
  return options;
}

}  // namespace

Safetensors AdapterContents(const VelocityModel& model, const LoraOptions& options) {
  Safetensors contents;
  for (const auto& [name, tensor] : model.Parameters()) contents.tensors.emplace_back(name, tensor.detach().cpu());
  contents.metadata[kRank] = absl::StrCat(options.rank);
  contents.metadata[kAlpha] = absl::StrCat(options.alpha);
  return contents;
}

absl::Status LoadAdapter(VelocityModel& model, const Safetensors& contents) {
  BOSS_ASSIGN_OR_RETURN(const LoraOptions options, ReadOptions(contents));
  // Everything is checked against a copy, so that a failure leaves no half-loaded adapter behind.
  const std::unique_ptr<VelocityModel> probe = model.Clone();
  BOSS_RETURN_IF_ERROR(probe->AttachLora(options, /*seed=*/0));
  const auto expected = probe->Parameters();
  for (const auto& [name, tensor] : expected) {
    const at::Tensor found = contents.Find(name);
    if (!found.defined()) return absl::DataLossError(absl::StrCat("adapter: missing: ", name));
    if (found.sizes() != tensor.sizes() || !found.is_floating_point()) {
      return absl::DataLossError(absl::StrCat("adapter: ", name, " has another shape or dtype than the model needs"));
    }
  }
  if (expected.size() != contents.tensors.size()) {
    return absl::DataLossError(absl::StrCat("adapter: got ", contents.tensors.size(), " tensors, expected ", expected.size()));
  }
  BOSS_RETURN_IF_ERROR(model.AttachLora(options, /*seed=*/0));
  return GuardTorch("loading an adapter", [&]() -> absl::Status {
    for (const auto& [name, tensor] : model.Parameters()) tensor.detach().copy_(contents.Find(name));
    return absl::OkStatus();
  });
}

}  // namespace boss
