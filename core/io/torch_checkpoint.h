// Weights that torch.save wrote: the reference implementation's {optimizer, model, ema, step}, the {model, ema, opt,
// args} of DiT's and SiT's training programs, or a state dict alone.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "core/io/file_system.h"

namespace boss {

struct TorchCheckpoint {
  std::vector<std::pair<std::string, at::Tensor>> model;  // in file order, "module." removed from the names
  // The averaged weights, in one of two forms or none: shadow parameters in the order of the network's trainable ones,
  // or by name.
  std::vector<at::Tensor> ema;
  std::vector<std::pair<std::string, at::Tensor>> named_ema;
  int64_t step = 0;
};

// Reads torch's zip format with a restricted unpickler: dictionaries, lists, tuples, numbers, strings and tensors.
// Every other global is refused by name; no code in a file is ever run. Sizes, offsets and strides are checked against
// the records, and all tensors, copied, need no more memory than the file has bytes. Thread-safe. \error DATA_LOSS for
// a corrupt or truncated file, INVALID_ARGUMENT naming a global or opcode that is not allowed, or a record that is
// compressed; NOT_FOUND if there is no file.
absl::StatusOr<TorchCheckpoint> ReadTorchCheckpoint(const std::string& path,
                                                    const FileSystem& files = PosixFileSystem());
absl::StatusOr<TorchCheckpoint> ParseTorchCheckpoint(std::string_view bytes);
// The tensors are views of `bytes`, which live as long as any of them; only what is not aligned is copied.
absl::StatusOr<TorchCheckpoint> ParseTorchCheckpoint(std::shared_ptr<const std::string> bytes);

// The weights by name: EMA where the checkpoint has them (`raw` false), by name or matched by order to the tensors of
// `model` that `parameter_names` lists; everything else from `model`. Names that a velocity network does not use (the
// buffer "sigmas") are dropped. \error DATA_LOSS if the counts or shapes differ.
absl::StatusOr<std::vector<std::pair<std::string, at::Tensor>>> CheckpointWeights(
    const TorchCheckpoint& checkpoint, const std::vector<std::string>& parameter_names, bool raw);

}  // namespace boss
