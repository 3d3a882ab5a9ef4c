#include "core/finetune/lora.h"

#include <ATen/ATen.h>

#include <cmath>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"

namespace boss {
namespace {

constexpr char kRank[] = "lora_rank", kAlpha[] = "lora_alpha";
constexpr char kSuffixA[] = ".lora_A";
constexpr int kMaxRank = 1 << 14;  // of a stack; jobs train far lower ones

std::string ShapeName(at::IntArrayRef shape) { return absl::StrCat("[", absl::StrJoin(shape, ", "), "]"); }

// What is wrong, of one kind: the first few, and how many there are.
class Faults {
 public:
  explicit Faults(const char* title) : title_(title) {}
  void Add(std::string fault) {
    if (++count_ <= kShown) shown_.push_back(std::move(fault));
  }
  void AppendTo(std::vector<std::string>& all) const {
    if (count_ == 0) return;
    all.push_back(absl::StrCat(title_, absl::StrJoin(shown_, ", "),
                               count_ > kShown ? absl::StrCat(", ... (", count_, " in all)") : ""));
  }

 private:
  static constexpr size_t kShown = 5;
  const char* const title_;
  std::vector<std::string> shown_;
  size_t count_ = 0;
};

}  // namespace

Safetensors AdapterContents(const VelocityModel& model, const LoraOptions& options) {
  Safetensors contents;
  for (const auto& [name, tensor] : model.Parameters()) contents.tensors.emplace_back(name, tensor.detach().cpu());
  contents.metadata[kRank] = absl::StrCat(options.rank);
  contents.metadata[kAlpha] = absl::StrCat(options.alpha);
  return contents;
}

bool IsAdapter(const Safetensors& contents) { return contents.metadata.contains(kRank); }

absl::StatusOr<LoraOptions> AdapterOptions(const Safetensors& contents) {
  LoraOptions options;
  const auto rank = contents.metadata.find(kRank), alpha = contents.metadata.find(kAlpha);
  if (rank == contents.metadata.end() || alpha == contents.metadata.end() || !absl::SimpleAtoi(rank->second, &options.rank) ||
      !absl::SimpleAtod(alpha->second, &options.alpha) || !std::isfinite(options.alpha) || options.rank < 1 || options.rank > kMaxRank) {
    return absl::DataLossError(absl::StrCat("adapter: expected metadata ", kRank, " in [1, ", kMaxRank, "] and ", kAlpha));
  }
  return options;
}

absl::Status CheckAdapter(const VelocityModel& model, const Safetensors& contents) {
  BOSS_ASSIGN_OR_RETURN(const LoraOptions options, AdapterOptions(contents));
  // An adapter of rank 1 has the names; a file's rank is not to say how much memory this takes.
  std::unique_ptr<VelocityModel> probe = model.ShareWeights();
  BOSS_RETURN_IF_ERROR(GuardTorch("checking an adapter", [&]() -> absl::Status {
    if (probe == nullptr) probe = model.Clone();
    return probe->AttachLora({.rank = 1, .alpha = 1}, /*seed=*/0);
  }));
  Faults missing("missing: "), left_over("left over: "), misshapen("");
  std::set<std::string> known;
  for (const auto& [name, tensor] : probe->Parameters()) {
    known.insert(name);
    std::vector<int64_t> shape = tensor.sizes().vec();
    shape[absl::EndsWith(name, kSuffixA) ? 0 : 1] = options.rank;
    const at::Tensor found = contents.Find(name);
    if (!found.defined()) {
      missing.Add(name);
    } else if (found.sizes() != at::IntArrayRef(shape)) {
      misshapen.Add(absl::StrCat(name, " has shape ", ShapeName(found.sizes()), ", expected ", ShapeName(shape)));
    } else if (!found.is_floating_point()) {
      misshapen.Add(absl::StrCat(name, " has dtype ", std::string(found.dtype().name()), ", expected a floating-point type"));
    }
  }
  for (const auto& [name, tensor] : contents.tensors) {
    if (!known.contains(name)) left_over.Add(name);
  }
  std::vector<std::string> faults;
  for (const Faults* kind : {&missing, &left_over, &misshapen}) kind->AppendTo(faults);
  return faults.empty() ? absl::OkStatus() : absl::DataLossError(absl::StrCat("adapter: ", absl::StrJoin(faults, "; ")));
}

absl::Status LoadAdapter(VelocityModel& model, const Safetensors& contents) {
  BOSS_ASSIGN_OR_RETURN(const LoraOptions options, AdapterOptions(contents));
  BOSS_RETURN_IF_ERROR(CheckAdapter(model, contents));
  return GuardTorch("loading an adapter", [&]() -> absl::Status {
    BOSS_RETURN_IF_ERROR(model.AttachLora(options, /*seed=*/0));
    for (const auto& [name, tensor] : model.Parameters()) tensor.detach().copy_(contents.Find(name));
    return absl::OkStatus();
  });
}

absl::StatusOr<Safetensors> StackAdapters(const Safetensors& lower, const Safetensors& upper) {
  BOSS_ASSIGN_OR_RETURN(const LoraOptions below, AdapterOptions(lower));
  BOSS_ASSIGN_OR_RETURN(const LoraOptions above, AdapterOptions(upper));
  return GuardTorch("stacking adapters", [&]() -> absl::StatusOr<Safetensors> {
    Safetensors stack;
    for (const auto& [name, tensor] : lower.tensors) {
      const at::Tensor other = upper.Find(name);
      if (!other.defined()) return absl::DataLossError(absl::StrCat("adapter: missing: ", name));
      if (absl::EndsWith(name, kSuffixA)) {
        stack.tensors.emplace_back(name, at::cat({tensor.to(at::kFloat), other.to(at::kFloat)}, 0));
      } else {
        stack.tensors.emplace_back(name, at::cat({tensor.to(at::kFloat) * (below.alpha / below.rank),
                                                  other.to(at::kFloat) * (above.alpha / above.rank)}, 1));
      }
    }
    const std::string rank = absl::StrCat(below.rank + above.rank);
    stack.metadata = {{kRank, rank}, {kAlpha, rank}};
    return stack;
  });
}

}  // namespace boss
