// The text that describes a model, in its parts.
#pragma once

#include <optional>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/nets/json_object.h"
#include "core/nets/network.h"

namespace boss {

// {"model": {"architecture": ..., ...}, "time": {"eps": .., "scale": ..}, "decoder": {...}}: the last two are optional.
struct Architecture {
  JsonObject model;
  TimeMap time_map;
  std::optional<JsonObject> decoder;  // see decoder.h

  // \error INVALID_ARGUMENT naming the key.
  static absl::StatusOr<Architecture> Parse(std::string_view json);
};

// Whether the text describes a TorchScript module, which comes as an archive. False for what is no description at all.
bool IsTorchScript(std::string_view architecture_json);
// Whether the text describes a decoder beside the model.
bool HasDecoder(std::string_view architecture_json);

}  // namespace boss
