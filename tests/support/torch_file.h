// Checkpoints as torch.save writes them, of any size: a zip of a pickle and one record a tensor.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "core/nets/factory.h"

namespace boss::testing {

// {optimizer, model, ema, step} as the reference implementation saves them: names in "model" carry the prefix "module."
// and "module.sigmas" is among them; "ema" lists `averages`, in the order of the network's trainable parameters.
// `adam`: with the optimizer's two moments of every average (copies of it), otherwise the optimizer is empty. Throws
// what LibTorch throws.
void WriteTorchCheckpoint(const std::string& path, const NamedTensors& model, const std::vector<at::Tensor>& averages,
                          bool adam);

// A state dict alone, as the public SiT checkpoints are.
void WriteStateDict(const std::string& path, const NamedTensors& weights);

}  // namespace boss::testing
