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

// A [rank, columns] in the dimensions of the weight that it is for: of a convolution's, that of a convolution to `rank` channels.
at::Tensor LikeWeight(const at::Tensor& a, const at::Tensor& weight) {
  if (weight.dim() != 4) return a;
  return a.view({a.size(0), weight.size(1), weight.size(2), weight.size(3)});
}

at::Tensor Moved(const at::Tensor& tensor, at::Device device) {
  if (!tensor.defined()) return tensor;
  return tensor.detach().to(device).set_requires_grad(tensor.requires_grad());
}

// Of the elements, since oneDNN's opaque tensors have no storage to ask.
int64_t BytesOf(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.numel() * static_cast<int64_t>(tensor.element_size()) : 0;
}

}  // namespace

int ParameterStore::Add(std::string name, at::Tensor value, Kind kind) {
  value.set_requires_grad(kind != Kind::kBuffer);
  entries_.push_back({std::move(name), std::move(value), kind, {}, {}, {}, {}, {}});
  return static_cast<int>(entries_.size()) - 1;
}

at::Tensor ParameterStore::Weight(int index) const {
  const Entry& entry = entries_[index];
  if (!entry.lora_a.defined()) return entry.value;
  return entry.value + lora_scale_ * at::matmul(entry.lora_b, entry.lora_a).view_as(entry.value);
}

bool ParameterStore::HasDelta(int index) const {
  return is_view_ && entries_[index].lora_a.defined() && !c10::GradMode::is_enabled();
}

ParameterStore::Delta ParameterStore::FloatDelta(int index) const {
  const Entry& entry = entries_[index];
  return {entry.lora_a, entry.lora_b, lora_scale_};
}

ParameterStore::Delta ParameterStore::ComputeDelta(int index) const {
  const Entry& entry = entries_[index];
  if (UsesPrepared()) return {entry.prepared_a, entry.prepared_b, lora_scale_};
  return {LikeWeight(entry.lora_a, entry.value), entry.lora_b, lora_scale_};
}

at::Tensor ParameterStore::Compute(int index) const {
  if (!UsesPrepared()) return Weight(index);
  return HasDelta(index) ? Weight(index).to(prepared_dtype_) : Prepared(index);
}

void ParameterStore::PrepareDeltas() {
  for (Entry& entry : entries_) {
    if (!entry.lora_a.defined()) continue;
    const at::Tensor a = LikeWeight(entry.lora_a, entry.value);
    entry.prepared_a = a.dim() == 4 ? PrepareConvolutionWeight(a, prepared_dtype_) : a.to(prepared_dtype_);
    entry.prepared_b = entry.lora_b.to(prepared_dtype_);
  }
}

void ParameterStore::Prepare(at::ScalarType dtype) {
  const c10::InferenceMode inference_mode;
  if (is_view_) {
    is_prepared_ = entries_.front().prepared.defined();
    if (is_prepared_) PrepareDeltas();
    return;
  }
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
    bytes += BytesOf(entry.lora_a) + BytesOf(entry.lora_b);
    if (!is_view_) bytes += BytesOf(entry.value) + BytesOf(entry.prepared);
    if (!entry.prepared_a.is_same(entry.lora_a)) bytes += BytesOf(entry.prepared_a);
    if (!entry.prepared_b.is_same(entry.lora_b)) bytes += BytesOf(entry.prepared_b);
  }
  return bytes;
}

void ParameterStore::DropPrepared() {
  for (Entry& entry : entries_) {
    entry.prepared.reset();
    entry.prepared_a.reset();
    entry.prepared_b.reset();
  }
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
  copy.is_view_ = false;
  if (is_view_) copy.MergeLora();
  return copy;
}

ParameterStore ParameterStore::Share() const {
  ParameterStore view = *this;
  view.is_view_ = true;
  // Whether gradients are recorded belongs to each.
  for (Entry& entry : view.entries_) entry.value = entry.value.detach().set_requires_grad(entry.value.requires_grad());
  return view;
}

void ParameterStore::To(at::Device device) {
  const at::Device here = this->device();
  const bool is_here = device.type() == here.type() && (!device.has_index() || !here.has_index() || device.index() == here.index());
  if (is_view_ && is_here) return;  // what is shared stays shared
  is_view_ = false;
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
  if (is_view_) {
    is_prepared_ = false;  // until the adapter is laid out, too
  } else {
    DropPrepared();
  }
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
  if (is_view_) {
    *this = Clone();
    return;
  }
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
