// TorchScript modules on their way into the store.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"

namespace boss::server {

// Loads the modules and evaluates each on two samples of zeros: a model of that description (null: the model is no
// TorchScript module) and its decoder (null: it has none). Runs their code. \error INVALID_ARGUMENT saying what does
// not work; RESOURCE_EXHAUSTED.
absl::Status CheckArchives(const std::string& architecture_json, const std::shared_ptr<const std::string>& model,
                           const std::shared_ptr<const std::string>& decoder);

}  // namespace boss::server
