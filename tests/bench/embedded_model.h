// The model that comes with the server, for benchmarks.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "core/flow/velocity_model.h"

namespace boss {

// Where it lies in the source tree, with its classifier beside it.
std::string EmbeddedModelFolder();

// Not prepared for inference. \error NOT_FOUND or as ReadSafetensors and CreateModel if the folder is not whole.
absl::StatusOr<std::unique_ptr<VelocityModel>> LoadEmbeddedModel();

}  // namespace boss
