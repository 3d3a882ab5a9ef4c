// The velocity field of a flow: the one interface between networks and everything that uses them.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace boss {

// A tensor that a model is conditioned on, such as an embedding of a text.
struct ConditioningSpec {
  std::string name;
  at::ScalarType dtype = at::kFloat;
  std::vector<int64_t> shape;  // of one sample, without the batch dimension
};

// [B, ...] each, by name.
using ConditioningTensors = std::vector<std::pair<std::string, at::Tensor>>;

// What samples are conditioned on. The default is no condition.
struct Condition {
  at::Tensor class_labels;      // int64 [B] in [0, num_classes], num_classes meaning 'no label'; undefined: no labels at all
  double guidance_scale = 1.0;  // classifier-free guidance: v = v_negative + scale (v - v_negative); 1 turns it off
  ConditioningTensors tensors;  // of the model's ConditioningSpecs(); one that is not there is all zeros, which means 'no condition'
  // What guidance leads away from: undefined labels mean 'no label', a tensor that is not there is all zeros.
  at::Tensor negative_class_labels;
  ConditioningTensors negative_tensors;

  // The condition of the samples [begin, end).
  Condition Slice(int64_t begin, int64_t end) const;
  // On another device.
  Condition To(at::Device device) const;
  // Every tensor replaced by function(tensor).
  template <typename Function>
  Condition Map(Function function) const {
    Condition mapped = *this;
    for (at::Tensor* labels : {&mapped.class_labels, &mapped.negative_class_labels}) {
      if (labels->defined()) *labels = function(*labels);
    }
    for (ConditioningTensors* named : {&mapped.tensors, &mapped.negative_tensors}) {
      for (auto& [name, tensor] : *named) tensor = function(tensor);
    }
    return mapped;
  }
};

// The tensor of that name; an undefined one if there is none.
at::Tensor FindTensor(const ConditioningTensors& tensors, const std::string& name);

// One sample's 'no condition', [1, ...] on the CPU.
at::Tensor NoCondition(const ConditioningSpec& spec);

// A low-rank delta B A alpha / rank on a weight (Hu et al., ICLR 2022).
struct LoraOptions {
  int rank = 4;
  double alpha = 4.0;
};

// u_t(x): x is carried from noise (t = 0) to data (t = 1).
//
// Thread-safety: const methods may run at the same time; a published model is a shared_ptr<const VelocityModel>. The methods that change
// parameters belong to training, which works on a Clone().
// Errors: LibTorch's exceptions leave these methods; callers sit inside GuardTorch (core/base/torch_guard.h).
class VelocityModel {
 public:
  virtual ~VelocityModel() = default;

  // x_t: [B, ...] float32; t: [B] float32 in [0, 1], one time per sample; the result has x_t's shape. With class_labels undefined, a
  // class-conditional model takes 'no label'. Ignores guidance and the negative condition (see GuidedVelocity).
  virtual at::Tensor Velocity(const at::Tensor& x_t, const at::Tensor& t, const Condition& condition) const = 0;

  // One sample's shape without the batch dimension, e.g. {1, 28, 28}.
  virtual std::vector<int64_t> SampleShape() const = 0;
  // 0 for a model without labels.
  virtual int64_t NumClasses() const = 0;
  // The tensors that Velocity() takes besides labels.
  virtual std::vector<ConditioningSpec> ConditioningSpecs() const { return {}; }

  // Named parameters in the network's own order, trainable ones only. The tensors are the model's own, not copies.
  virtual std::vector<std::pair<std::string, at::Tensor>> Parameters() const = 0;
  // Parameters() and fixed buffers (such as a Fourier projection): all that a weight file holds.
  virtual std::vector<std::pair<std::string, at::Tensor>> State() const = 0;

  // The file that holds the model, code and weights, where no description builds it (torch_script_model.h); empty for all others.
  virtual std::string Archive() const { return {}; }

  // A deep copy: same weights, no shared storage.
  virtual std::unique_ptr<VelocityModel> Clone() const = 0;
  // A model that shares this one's weights, prepared ones too, and outlives it; null if the model cannot be shared. It is for an adapter of its own
  // (AttachLora, then PrepareForInference): evaluations without gradients compute the delta apart from the shared weight, so that MemoryBytes() of
  // it counts the adapter alone. From then on the weights of neither may change; To() another device, MergeLora() and Clone(), which merges, make
  // copies. \pre no adapter is attached.
  virtual std::unique_ptr<VelocityModel> ShareWeights() const { return nullptr; }
  // Moves all tensors.
  virtual void To(at::Device device) = 0;
  virtual at::Device device() const = 0;

  // Makes evaluations without gradients fast, in `dtype` (float32 or bfloat16; x_t and the result stay float32), by keeping copies of the
  // weights in the layout that the device computes with: about twice the memory. From then on the weights must not change, except by To(),
  // AttachLora() and MergeLora(), which undo it; a Clone() is not prepared. Models without a faster form ignore it.
  virtual void PrepareForInference(at::ScalarType dtype) {}
  // Of all tensors that the model keeps.
  virtual int64_t MemoryBytes() const;

  // Low-rank adaptation (see core/finetune/lora.h). After Attach, Parameters() lists the adapter's tensors only and everything else is frozen.
  // \error FAILED_PRECONDITION if one is attached already; UNIMPLEMENTED for a model without linear or convolution weights.
  virtual absl::Status AttachLora(const LoraOptions& options, uint64_t seed) = 0;
  // Adds the deltas to the weights, which become trainable again, and drops the adapter; without one it does nothing.
  virtual void MergeLora() = 0;
};

// The velocity with classifier-free guidance. With a scale other than 1 and a condition, evaluates one batch of double size.
at::Tensor GuidedVelocity(const VelocityModel& model, const at::Tensor& x_t, const at::Tensor& t, const Condition& condition);

// Velocity evaluations per sample of one GuidedVelocity call: 1 or 2.
int64_t EvaluationsPerCall(const Condition& condition);

}  // namespace boss
