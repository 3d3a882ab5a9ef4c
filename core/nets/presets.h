// The networks of published checkpoints, by name.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace boss {

// In the order in which they are listed: the rectified-flow checkpoints' cifar10-ddpmpp and ncsnpp-256, then SiT's
// sit-{s,b,l,xl}-{8,4,2}-256 and sit-xl-2-512 on the latents of images of 256 or 512 pixels. Thread-safe, as below.
std::vector<std::string> PresetNames();

// What CreateModel() takes. \error INVALID_ARGUMENT listing the known names.
absl::StatusOr<std::string> PresetArchitecture(absl::string_view name);

}  // namespace boss
