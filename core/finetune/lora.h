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

// Attaches the adapter in `contents` to `model`, which keeps its own weights. \error DATA_LOSS naming what is missing, left over or has another shape, or
// metadata that is no adapter's; then no adapter is attached. FAILED_PRECONDITION if the model has one already.
absl::Status LoadAdapter(VelocityModel& model, const Safetensors& contents);

}  // namespace boss
