#include "core/nets/architecture.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/parse_json.h"
#include "core/base/status_macros.h"

namespace boss {
namespace {

// Far more than any; parsed JSON needs many times the memory of its text.
constexpr size_t kMaxArchitectureBytes = size_t{1} << 20;

absl::StatusOr<TimeMap> ReadTimeMap(const JsonObject& json) {
  TimeMap map;
  if (!json.Has("time")) return map;
  BOSS_ASSIGN_OR_RETURN(const JsonObject time, json.Object("time"));
  BOSS_ASSIGN_OR_RETURN(map.eps, time.NumberOr("eps", map.eps));
  BOSS_ASSIGN_OR_RETURN(map.scale, time.NumberOr("scale", map.scale));
  BOSS_RETURN_IF_ERROR(time.CheckAllRead());
  if (!(map.eps >= 0 && map.eps < 1)) return absl::InvalidArgumentError("time.eps: expected a number in [0, 1)");
  if (!(map.scale > 0)) return absl::InvalidArgumentError("time.scale: expected a positive number");
  return map;
}

}  // namespace

absl::StatusOr<Architecture> Architecture::Parse(std::string_view json) {
  if (json.size() > kMaxArchitectureBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("architecture: got ", json.size(), " bytes, expected at most ", kMaxArchitectureBytes));
  }
  absl::StatusOr<nlohmann::json> parsed = ParseJson({json.data(), json.size()});
  if (!parsed.ok())
    return absl::InvalidArgumentError(
        absl::StrCat("architecture: got ", parsed.status().message(), ", expected an object"));
  BOSS_ASSIGN_OR_RETURN(const JsonObject root, JsonObject::Create(*std::move(parsed), "architecture"));
  BOSS_ASSIGN_OR_RETURN(JsonObject model, root.Object("model"));
  BOSS_ASSIGN_OR_RETURN(const TimeMap time_map, ReadTimeMap(root));
  std::optional<JsonObject> decoder;
  if (root.Has("decoder")) {
    BOSS_ASSIGN_OR_RETURN(decoder, root.Object("decoder"));
  }
  BOSS_RETURN_IF_ERROR(root.CheckAllRead());
  return Architecture{std::move(model), time_map, std::move(decoder)};
}

bool IsTorchScript(std::string_view architecture_json) {
  const absl::StatusOr<Architecture> parsed = Architecture::Parse(architecture_json);
  if (!parsed.ok() || !parsed->model.Has("architecture")) return false;
  const absl::StatusOr<std::string> name = parsed->model.String("architecture", 63);
  return name.ok() && *name == "torchscript";
}

bool HasDecoder(std::string_view architecture_json) {
  const absl::StatusOr<Architecture> parsed = Architecture::Parse(architecture_json);
  return parsed.ok() && parsed->decoder.has_value();
}

}  // namespace boss
