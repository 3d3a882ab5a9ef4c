// What all networks with a ParameterStore have in common.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/nets/parameter_store.h"

namespace boss {

// The map from t in [0, 1] to the time that a network was trained on: t_net = (t (1 - eps) + eps) scale.
struct TimeMap {
  double eps = 0;
  double scale = 1;
  at::Tensor Apply(const at::Tensor& t) const;
};

// Implements the parts of VelocityModel that concern weights. `Derived` is copyable and adds its layers, which hold indices into parameters_.
template <typename Derived>
class Network : public VelocityModel {
 public:
  std::vector<std::pair<std::string, at::Tensor>> Parameters() const override { return parameters_.Parameters(); }
  std::vector<std::pair<std::string, at::Tensor>> State() const override { return parameters_.State(); }
  std::unique_ptr<VelocityModel> Clone() const override {
    auto copy = std::make_unique<Derived>(static_cast<const Derived&>(*this));
    copy->parameters_ = parameters_.Clone();
    return copy;
  }
  std::unique_ptr<VelocityModel> ShareWeights() const override {
    auto view = std::make_unique<Derived>(static_cast<const Derived&>(*this));
    view->parameters_ = parameters_.Share();
    return view;
  }
  void To(at::Device device) override { parameters_.To(device); }
  at::Device device() const override { return parameters_.device(); }
  void PrepareForInference(at::ScalarType dtype) override { parameters_.Prepare(dtype); }
  int64_t MemoryBytes() const override { return parameters_.MemoryBytes(); }
  absl::Status AttachLora(const LoraOptions& options, uint64_t seed) override { return parameters_.AttachLora(options, seed); }
  void MergeLora() override { parameters_.MergeLora(); }

 protected:
  ParameterStore parameters_;
};

}  // namespace boss
