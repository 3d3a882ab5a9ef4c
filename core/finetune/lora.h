// Files of low-rank adapters.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/flow/velocity_model.h"
#include "core/io/safetensors.h"

namespace boss {

// The adapter attached to `model` (its Parameters()), with "lora_rank" and "lora_alpha" in the metadata.
Safetensors AdapterContents(const VelocityModel& model, const LoraOptions& options);

// Whether the metadata says that the file is an adapter.
bool IsAdapter(const Safetensors& contents);
// What the metadata says of it. \error DATA_LOSS if it is not an adapter's.
absl::StatusOr<LoraOptions> AdapterOptions(const Safetensors& contents);

// Whether `contents` is an adapter for `model`, whose own weights may be undefined. \error DATA_LOSS naming what is missing, left over or has another
// shape (got, expected): the first few of each kind, and how many there are; UNIMPLEMENTED for a model that takes no adapter.
absl::Status CheckAdapter(const VelocityModel& model, const Safetensors& contents);

// Attaches the adapter in `contents` to `model`, which keeps its own weights. \error as CheckAdapter; then no adapter is attached.
// FAILED_PRECONDITION if the model has one already.
absl::Status LoadAdapter(VelocityModel& model, const Safetensors& contents);

// One adapter with the delta of `lower` plus that of `upper`, its rank the sum of theirs: for an adapter that was trained on a version that is one
// itself. Both are adapters of one architecture (CheckAdapter).
absl::StatusOr<Safetensors> StackAdapters(const Safetensors& lower, const Safetensors& upper);

}  // namespace boss
