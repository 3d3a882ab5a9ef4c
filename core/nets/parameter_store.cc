#include "core/nets/parameter_store.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>

#include <cmath>

#include "core/nets/prepared_convolution.h"

namespace boss {
namespace {

at::Tensor DeepCopy(const at::Tensor& tensor) {
  if (!tensor.defined()) return tensor;
  return tensor.detach().clone().set_requires_grad(tensor.requires_grad());
}

at::Tensor Moved(const at::Tensor& tensor, at::Device device) {
  if (!tensor.defined()) return tensor;
  return tensor.detach().to(device).set_requires_grad(tensor.requires_grad());
}

}  // namespace

int ParameterStore::Add(std::string name, at::Tensor value, Kind kind) {
  value.set_requires_grad(kind != Kind::kBuffer);
  entries_.push_back({std::move(name), std::move(value), kind, {}, {}, {}});
  return static_cast<int>(entries_.size()) - 1;
}

at::Tensor ParameterStore::Weight(int index) const {
  const Entry& entry = entries_[index];
  if (!entry.lora_a.defined()) return entry.value;
  return entry.value + lora_scale_ * at::matmul(entry.lora_b, entry.lora_a).view_as(entry.value);
}

void ParameterStore::Prepare(at::ScalarType dtype) {
  const c10::InferenceMode inference_mode;
  for (size_t i = 0; i < entries_.size(); ++i) {
    const at::Tensor weight = Weight(static_cast<int>(i)).detach();
    entries_[i].prepared = weight.dim() == 4 ? PrepareConvolutionWeight(weight, dtype) : weight.to(dtype);
  }
  is_prepared_ = true;
  prepared_dtype_ = dtype;
}

bool ParameterStore::UsesPrepared() const { return is_prepared_ && !c10::GradMode::is_enabled(); }

int64_t ParameterStore::MemoryBytes() const {
  int64_t bytes = 0;
  for (const Entry& entry : entries_) {
    for (const at::Tensor& tensor : {entry.value, entry.lora_a, entry.lora_b, entry.prepared}) {
      // Of the elements, since oneDNN's opaque tensors have no storage to ask.
      if (tensor.defined()) bytes += tensor.numel() * static_cast<int64_t>(tensor.element_size());
    }
  }
  return bytes;
}

void ParameterStore::DropPrepared() {
  for (Entry& entry : entries_) entry.prepared.reset();
  is_prepared_ = false;
}

std::vector<std::pair<std::string, at::Tensor>> ParameterStore::Parameters() const {
  std::vector<std::pair<std::string, at::Tensor>> parameters;
  const bool lora = HasLora();
  for (const Entry& entry : entries_) {
    if (lora) {
      if (!entry.lora_a.defined()) continue;
      parameters.emplace_back(entry.name + ".lora_A", entry.lora_a);
      parameters.emplace_back(entry.name + ".lora_B", entry.lora_b);
    } else if (entry.kind != Kind::kBuffer) {
      parameters.emplace_back(entry.name, entry.value);
    }
  }
  return parameters;
}

std::vector<std::pair<std::string, at::Tensor>> ParameterStore::State() const {
  std::vector<std::pair<std::string, at::Tensor>> state;
  for (const Entry& entry : entries_) state.emplace_back(entry.name, entry.value);
  return state;
}

ParameterStore ParameterStore::Clone() const {
  ParameterStore copy = *this;
  copy.DropPrepared();
  for (Entry& entry : copy.entries_) {
    entry.value = DeepCopy(entry.value);
    entry.lora_a = DeepCopy(entry.lora_a);
    entry.lora_b = DeepCopy(entry.lora_b);
  }
  return copy;
}

void ParameterStore::To(at::Device device) {
  DropPrepared();
  for (Entry& entry : entries_) {
    entry.value = Moved(entry.value, device);
    entry.lora_a = Moved(entry.lora_a, device);
    entry.lora_b = Moved(entry.lora_b, device);
  }
}

at::Device ParameterStore::device() const { return entries_.front().value.device(); }

bool ParameterStore::HasLora() const {
  for (const Entry& entry : entries_) {
    if (entry.lora_a.defined()) return true;
  }
  return false;
}

absl::Status ParameterStore::AttachLora(const LoraOptions& options, uint64_t seed) {
  if (HasLora()) return absl::FailedPreconditionError("a LoRA adapter is attached already");
  if (options.rank < 1) return absl::InvalidArgumentError("lora.rank: expected at least 1");
  DropPrepared();
  lora_scale_ = options.alpha / options.rank;
  at::Generator generator = at::detail::createCPUGenerator(seed);
  bool any = false;
  for (Entry& entry : entries_) {
    entry.value.set_requires_grad(false);
    if (entry.kind != Kind::kAdaptable) continue;
    const int64_t rows = entry.value.size(0), columns = entry.value.numel() / rows;
    const at::Device device = entry.value.device();
    entry.lora_a = at::randn({options.rank, columns}, generator).div_(std::sqrt(static_cast<double>(columns))).to(device);
    entry.lora_b = at::zeros({rows, options.rank}, entry.value.options());
    entry.lora_a.set_requires_grad(true);
    entry.lora_b.set_requires_grad(true);
    any = true;
  }
  return any ? absl::OkStatus() : absl::UnimplementedError("the model has no linear or convolution weight for a LoRA adapter");
}

void ParameterStore::MergeLora() {
  if (!HasLora()) return;
  DropPrepared();
  for (int i = 0; i < static_cast<int>(entries_.size()); ++i) {
    Entry& entry = entries_[i];
    entry.value = Weight(i).detach();
    entry.value.set_requires_grad(entry.kind != Kind::kBuffer);
    entry.lora_a.reset();
    entry.lora_b.reset();
  }
}

}  // namespace boss
