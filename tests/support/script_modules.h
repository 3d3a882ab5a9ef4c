// TorchScript archives made on the spot.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace boss::testing {

using ScriptTensors = std::vector<std::pair<std::string, at::Tensor>>;

// A module with these attributes and this code, e.g. "def forward(self, x, t):\n  return x * self.w\n".
std::shared_ptr<const std::string> ScriptArchive(const std::string& code, const ScriptTensors& parameters = {},
                                                 const ScriptTensors& buffers = {});

// A velocity of vectors [2] with random weights: a multilayer perceptron over x and t.
inline constexpr char kScriptVectorArchitecture[] =
    R"({"model": {"architecture": "torchscript", "sample_shape": [2]}})";
std::shared_ptr<const std::string> ScriptVectorArchive();

// From latents [2] to grey images [1, 4, 4]: every pixel the sum of both.
std::shared_ptr<const std::string> ScriptDecoderArchive();

}  // namespace boss::testing
