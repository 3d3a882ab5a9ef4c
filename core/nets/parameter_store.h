// The weights of a network, by name and in order, with optional low-rank deltas.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "core/flow/velocity_model.h"

namespace boss {

// Layers refer to a weight by its index, so that copying a store (Clone) is all it takes to copy a network. Not thread-safe while changed.
//
// Share() makes a view: a store of the same tensors, which carries an adapter of its own. Where no gradients are recorded, layers add the
// adapter's delta to what the shared weight gives (Apart), so that a view needs memory for its A and B alone.
class ParameterStore {
 public:
  enum class Kind {
    kParameter,        // trained
    kAdaptable,        // trained, and a linear or convolution weight that a low-rank delta fits
    kBuffer,           // fixed
  };

  // Returns the index. \pre `name` is new.
  int Add(std::string name, at::Tensor value, Kind kind);

  // The weight to compute with: value + B A alpha / rank where an adapter is attached, made anew each time.
  at::Tensor Weight(int index) const;

  // A weight W' = value + scale b a of which layers compute the two parts one after the other.
  struct Delta {
    at::Tensor a, b;  // [rank, everything but the first dimension], [first dimension, rank]
    double scale = 0;
  };
  // Whether this is a weight whose delta is to be added apart: in a view with an adapter, while no gradients are recorded.
  bool HasDelta(int index) const;
  // Value and delta in float32, and in what the layers on images and tokens compute with: the prepared value and dtype where UsesPrepared(),
  // `a` of a convolution's weight laid out by PrepareConvolutionWeight; otherwise in float32, `a` in the weight's dimensions. \pre
  // HasDelta(index).
  const at::Tensor& Value(int index) const { return entries_[index].value; }
  Delta FloatDelta(int index) const;
  const at::Tensor& ComputeValue(int index) const { return UsesPrepared() ? Prepared(index) : Value(index); }
  Delta ComputeDelta(int index) const;

  // Lays copies of the weights out for evaluations without gradients, in float32 or bfloat16: convolutions in channels-last
  // order, on the CPU packed for oneDNN. From then on the weights must not change, except through To(), AttachLora() and
  // MergeLora(), which drop the copies, as Clone() does in the clone. A view keeps to what it shares: there this lays the adapter out, in
  // the dtype that the shared weights were prepared in, and does nothing if they were not.
  void Prepare(at::ScalarType dtype);
  // Whether layers compute with the prepared weights: there are some, and no gradients are recorded.
  bool UsesPrepared() const;
  // \pre UsesPrepared().
  at::ScalarType prepared_dtype() const { return prepared_dtype_; }
  const at::Tensor& Prepared(int index) const { return entries_[index].prepared; }
  // The whole weight for layers that add no delta apart: Prepared() where UsesPrepared(), otherwise Weight(). For a weight of two or fewer
  // dimensions.
  at::Tensor Compute(int index) const;

  // Of the weights, deltas and prepared weights; of a view, of what it does not share.
  int64_t MemoryBytes() const;

  std::vector<std::pair<std::string, at::Tensor>> Parameters() const;
  std::vector<std::pair<std::string, at::Tensor>> State() const;
  // Of a view: a store of its own, with the delta merged.
  ParameterStore Clone() const;
  // A view. The weights of neither may change from then on, except by what makes new ones. \pre no adapter is attached.
  ParameterStore Share() const;
  void To(at::Device device);
  at::Device device() const;

  // A [rank, everything but the first dimension] is drawn from N(0, 1 / columns), B [first dimension, rank] is zero, so that nothing changes at first.
  absl::Status AttachLora(const LoraOptions& options, uint64_t seed);
  // A view becomes a store of its own.
  void MergeLora();

 private:
  struct Entry {
    std::string name;
    at::Tensor value;
    Kind kind;
    at::Tensor lora_a, lora_b;  // undefined without an adapter
    at::Tensor prepared;        // undefined unless prepared
    at::Tensor prepared_a, prepared_b;  // of the adapter of a prepared view
  };
  bool HasLora() const;
  void DropPrepared();
  void PrepareDeltas();

  std::vector<Entry> entries_;
  double lora_scale_ = 0;
  bool is_view_ = false;
  bool is_prepared_ = false;
  at::ScalarType prepared_dtype_ = at::kFloat;
};

}  // namespace boss
