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
class ParameterStore {
 public:
  enum class Kind {
    kParameter,        // trained
    kAdaptable,        // trained, and a linear or convolution weight that a low-rank delta fits
    kBuffer,           // fixed
  };

  // Returns the index. \pre `name` is new.
  int Add(std::string name, at::Tensor value, Kind kind);

  // The weight to compute with: value + B A alpha / rank where an adapter is attached.
  at::Tensor Weight(int index) const;

  // Lays copies of the weights out for evaluations without gradients, in float32 or bfloat16: convolutions in channels-last
  // order, on the CPU packed for oneDNN. From then on the weights must not change, except through To(), AttachLora() and
  // MergeLora(), which drop the copies, as Clone() does in the clone.
  void Prepare(at::ScalarType dtype);
  // Whether layers compute with the prepared weights: there are some, and no gradients are recorded.
  bool UsesPrepared() const;
  // \pre UsesPrepared().
  at::ScalarType prepared_dtype() const { return prepared_dtype_; }
  const at::Tensor& Prepared(int index) const { return entries_[index].prepared; }
  // Prepared() where UsesPrepared(), otherwise Weight().
  at::Tensor Compute(int index) const { return UsesPrepared() ? Prepared(index) : Weight(index); }

  // Of the weights, deltas and prepared weights.
  int64_t MemoryBytes() const;

  std::vector<std::pair<std::string, at::Tensor>> Parameters() const;
  std::vector<std::pair<std::string, at::Tensor>> State() const;
  ParameterStore Clone() const;
  void To(at::Device device);
  at::Device device() const;

  // A [rank, everything but the first dimension] is drawn from N(0, 1 / columns), B [first dimension, rank] is zero, so that nothing changes at first.
  absl::Status AttachLora(const LoraOptions& options, uint64_t seed);
  void MergeLora();

 private:
  struct Entry {
    std::string name;
    at::Tensor value;
    Kind kind;
    at::Tensor lora_a, lora_b;  // undefined without an adapter
    at::Tensor prepared;        // undefined unless prepared
  };
  bool HasLora() const;
  void DropPrepared();

  std::vector<Entry> entries_;
  double lora_scale_ = 0;
  bool is_prepared_ = false;
  at::ScalarType prepared_dtype_ = at::kFloat;
};

}  // namespace boss
