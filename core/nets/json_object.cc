#include "core/nets/json_object.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/status_macros.h"

namespace boss {

absl::StatusOr<JsonObject> JsonObject::Create(nlohmann::json json, std::string path) {
  if (!json.is_object()) return absl::InvalidArgumentError(absl::StrCat(path, ": got ", json.type_name(), ", expected an object"));
  return JsonObject(std::move(json), std::move(path));
}

absl::Status JsonObject::Error(const std::string& key, absl::string_view expected) const {
  std::string got = "nothing";
  if (json_.contains(key)) {
    got = json_.at(key).dump(-1, ' ', /*ensure_ascii=*/true, nlohmann::json::error_handler_t::replace);
    // A message travels in the headers of a call.
    constexpr size_t kMaxLength = 200;
    if (got.size() > kMaxLength) got = got.substr(0, kMaxLength) + "...";
  }
  return absl::InvalidArgumentError(absl::StrCat(path_, ".", key, ": got ", got, ", expected ", expected));
}

absl::Status JsonObject::Read(const std::string& key) const {
  read_.push_back(key);
  return json_.contains(key) ? absl::OkStatus() : Error(key, "a value");
}

absl::StatusOr<int64_t> JsonObject::Integer(const std::string& key, int64_t minimum, int64_t maximum) const {
  BOSS_RETURN_IF_ERROR(Read(key));
  const nlohmann::json& value = json_.at(key);
  const std::string expected = absl::StrCat("an integer in [", minimum, ", ", maximum, "]");
  if (!value.is_number_integer()) return Error(key, expected);
  const int64_t integer = value.get<int64_t>();
  if (integer < minimum || integer > maximum) return Error(key, expected);
  return integer;
}

absl::StatusOr<int64_t> JsonObject::IntegerOr(const std::string& key, int64_t fallback, int64_t minimum, int64_t maximum) const {
  if (!json_.contains(key)) return fallback;
  return Integer(key, minimum, maximum);
}

absl::StatusOr<double> JsonObject::NumberOr(const std::string& key, double fallback) const {
  if (!json_.contains(key)) return fallback;
  BOSS_RETURN_IF_ERROR(Read(key));
  if (!json_.at(key).is_number()) return Error(key, "a number");
  return json_.at(key).get<double>();
}

absl::StatusOr<bool> JsonObject::BooleanOr(const std::string& key, bool fallback) const {
  if (!json_.contains(key)) return fallback;
  BOSS_RETURN_IF_ERROR(Read(key));
  if (!json_.at(key).is_boolean()) return Error(key, "true or false");
  return json_.at(key).get<bool>();
}

absl::StatusOr<std::vector<int64_t>> JsonObject::Integers(const std::string& key, int64_t minimum, int64_t maximum) const {
  BOSS_RETURN_IF_ERROR(Read(key));
  const std::string expected = absl::StrCat("an array of integers in [", minimum, ", ", maximum, "]");
  if (!json_.at(key).is_array() || json_.at(key).size() > 64) return Error(key, expected);
  std::vector<int64_t> integers;
  for (const nlohmann::json& value : json_.at(key)) {
    if (!value.is_number_integer() || value.get<int64_t>() < minimum || value.get<int64_t>() > maximum) return Error(key, expected);
    integers.push_back(value.get<int64_t>());
  }
  return integers;
}

absl::StatusOr<std::string> JsonObject::ChoiceOr(const std::string& key, const std::vector<std::string>& allowed) const {
  if (!json_.contains(key)) return allowed.front();
  BOSS_RETURN_IF_ERROR(Read(key));
  const nlohmann::json& value = json_.at(key);
  if (!value.is_string() || std::find(allowed.begin(), allowed.end(), value.get<std::string>()) == allowed.end()) {
    return Error(key, absl::StrCat("one of ", absl::StrJoin(allowed, ", ")));
  }
  return value.get<std::string>();
}

absl::StatusOr<std::string> JsonObject::String(const std::string& key, size_t max_size) const {
  BOSS_RETURN_IF_ERROR(Read(key));
  const nlohmann::json& value = json_.at(key);
  const bool fits = value.is_string() && !value.get_ref<const std::string&>().empty() && value.get_ref<const std::string&>().size() <= max_size;
  if (!fits) return Error(key, absl::StrCat("a text of 1 to ", max_size, " bytes"));
  return value.get<std::string>();
}

absl::StatusOr<std::vector<std::string>> JsonObject::Strings(const std::string& key, size_t max_size) const {
  BOSS_RETURN_IF_ERROR(Read(key));
  constexpr size_t kMaxLength = 63;
  const nlohmann::json& array = json_.at(key);
  const auto fits = [](const nlohmann::json& value) {
    return value.is_string() && !value.get_ref<const std::string&>().empty() && value.get_ref<const std::string&>().size() <= kMaxLength;
  };
  if (!array.is_array() || array.size() > max_size || !std::all_of(array.begin(), array.end(), fits)) {
    return Error(key, absl::StrCat("an array of at most ", max_size, " texts of 1 to ", kMaxLength, " bytes"));
  }
  return array.get<std::vector<std::string>>();
}

absl::StatusOr<std::vector<JsonObject>> JsonObject::Objects(const std::string& key, size_t max_size) const {
  BOSS_RETURN_IF_ERROR(Read(key));
  const nlohmann::json& array = json_.at(key);
  if (!array.is_array() || array.size() > max_size) return Error(key, absl::StrCat("an array of at most ", max_size, " objects"));
  std::vector<JsonObject> objects;
  for (size_t i = 0; i < array.size(); ++i) {
    BOSS_ASSIGN_OR_RETURN(JsonObject object, Create(array[i], absl::StrCat(path_, ".", key, "[", i, "]")));
    objects.push_back(std::move(object));
  }
  return objects;
}

std::vector<std::string> JsonObject::Keys() const {
  std::vector<std::string> keys;
  for (const auto& [key, value] : json_.items()) keys.push_back(key);
  return keys;
}

absl::StatusOr<JsonObject> JsonObject::Object(const std::string& key) const {
  BOSS_RETURN_IF_ERROR(Read(key));
  return Create(json_.at(key), absl::StrCat(path_, ".", key));
}

absl::Status JsonObject::CheckAllRead() const {
  for (const auto& [key, value] : json_.items()) {
    if (std::find(read_.begin(), read_.end(), key) == read_.end()) return Error(key, "no such key");
  }
  return absl::OkStatus();
}

}  // namespace boss
