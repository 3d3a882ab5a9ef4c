// The reference vectors of tests/golden, loaded with the weights of the checkpoint beside them.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "core/flow/velocity_model.h"
#include "core/io/safetensors.h"
#include "nlohmann/json.hpp"

namespace boss::testing {

struct Golden {
  nlohmann::json config;  // NAME.json
  Safetensors tensors;    // NAME.golden.safetensors
  std::unique_ptr<VelocityModel> raw, ema;

  at::Tensor operator[](const std::string& key) const;  // fails the process if there is no such tensor
  int k_max() const { return config["bellman"]["k_max"]; }
  std::vector<int> Knots(int steps) const;
  double Cost(int steps) const;
};

// `name`: "ddpmpp_tiny" or "ncsnpp_tiny". Fails the process if anything is missing.
Golden LoadGolden(const std::string& name);

// || a - b || / || b ||, in float64.
double RelativeError(const at::Tensor& a, const at::Tensor& b);

}  // namespace boss::testing
