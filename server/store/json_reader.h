// Reading our own JSON files: a missing or mistyped key is DATA_LOSS that names it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "nlohmann/json.hpp"

namespace boss::server {

using Json = nlohmann::json;

// \error DATA_LOSS if `text` is no JSON object.
absl::StatusOr<Json> ParseJsonObject(absl::string_view what, absl::string_view text);

// Collects the first error, so that a struct is read without a check a line: read everything, then look at status().
// Keeps a reference to `object`.
class JsonReader {
 public:
  // `what` leads the messages.
  JsonReader(const Json& object, std::string what) : object_(object), what_(std::move(what)) {
    if (!object_.is_object()) Fail(absl::StrCat(what_, ": got ", object_.type_name(), ", expected an object"));
  }

  // Leaves `value` as it is if the key is missing.
  template <typename T>
  void Optional(const char* key, T& value) {
    if (!status_.ok()) return;
    const auto found = object_.find(key);
    if (found == object_.end() || found->is_null()) return;
    if (!IntegersFit(*found, value))
      return Fail(absl::StrCat(what_, ".", key, ": expected an integer that is not too large"));
    try {
      found->get_to(value);
    } catch (const Json::exception& error) {
      Fail(absl::StrCat(what_, ".", key, ": ", error.what()));
    }
  }

  template <typename T>
  void Optional(const char* key, std::optional<T>& value) {
    if (!Has(key)) return;
    T present{};
    Optional(key, present);
    value = std::move(present);
  }

  template <typename T>
  void Required(const char* key, T& value) {
    if (!Has(key)) return Fail(absl::StrCat(what_, ".", key, ": missing"));
    Optional(key, value);
  }

  // Nanoseconds since 1970; missing leaves `value` as it is.
  void Time(const char* key, absl::Time& value) {
    if (!Has(key)) return;
    int64_t nanoseconds = 0;
    Optional(key, nanoseconds);
    value = absl::FromUnixNanos(nanoseconds);
  }

  // A name that `parse` maps to an optional value.
  template <typename T, typename Parse>
  void Name(const char* key, T& value, Parse parse) {
    std::string name;
    Required(key, name);
    if (!status_.ok()) return;
    const std::optional<T> parsed = parse(name);
    if (!parsed) return Fail(absl::StrCat(what_, ".", key, ": unknown value \"", name, "\""));
    value = *parsed;
  }

  // The object under `key`, read by `read` (a function of a const Json& that returns StatusOr<T>).
  template <typename T, typename Read>
  void Object(const char* key, T& value, Read read) {
    if (!Has(key)) return Fail(absl::StrCat(what_, ".", key, ": missing"));
    Accept(read(object_.at(key)), value);
  }
  template <typename T, typename Read>
  void OptionalObject(const char* key, std::optional<T>& value, Read read) {
    if (!Has(key)) return;
    T present{};
    Object(key, present, read);
    value = std::move(present);
  }
  template <typename T, typename Read>
  void Objects(const char* key, std::vector<T>& values, Read read) {
    if (!Has(key)) return;
    if (!object_.at(key).is_array()) return Fail(absl::StrCat(what_, ".", key, ": expected an array"));
    for (const Json& item : object_.at(key)) {
      T value{};
      Accept(read(item), value);
      values.push_back(std::move(value));
    }
  }

  bool Has(const char* key) const {
    if (!object_.is_object()) return false;
    const auto found = object_.find(key);
    return found != object_.end() && !found->is_null();
  }
  void Fail(std::string message) {
    if (status_.ok()) status_ = absl::DataLossError(std::move(message));
  }
  const absl::Status& status() const { return status_; }

 private:
  // nlohmann makes integers of other numbers and of booleans, and cuts them off to fit, or worse: a double that is too
  // large has no defined value. What is no number at all is left to it.
  template <typename T>
  static bool IntegersFit(const Json& json, const T&) {
    if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
      if (json.is_number_unsigned()) return std::in_range<T>(json.get<uint64_t>());
      if (json.is_number_integer()) return std::in_range<T>(json.get<int64_t>());
      return !json.is_number() && !json.is_boolean();
    }
    return true;
  }
  template <typename T>
  static bool IntegersFit(const Json& json, const std::vector<T>&) {
    return AllFit<T>(json);
  }
  template <typename T, typename Less>
  static bool IntegersFit(const Json& json, const std::map<std::string, T, Less>&) {
    return AllFit<T>(json);
  }
  template <typename T>
  static bool AllFit(const Json& json) {
    return !json.is_structured() ||
           std::all_of(json.begin(), json.end(), [](const Json& item) { return IntegersFit(item, T{}); });
  }

  template <typename T>
  void Accept(absl::StatusOr<T> read, T& value) {
    if (read.ok()) {
      value = *std::move(read);
    } else if (status_.ok()) {
      status_ = std::move(read).status();
    }
  }

  const Json& object_;
  const std::string what_;
  absl::Status status_;
};

// Writes what JsonReader::Time reads; infinite times are left out.
inline void PutTime(Json& json, const char* key, absl::Time time) {
  if (time != absl::InfiniteFuture() && time != absl::InfinitePast()) json[key] = absl::ToUnixNanos(time);
}

// Writes what JsonReader::Optional reads.
template <typename T>
void PutOptional(Json& json, const char* key, const std::optional<T>& value) {
  if (value) json[key] = *value;
}

// Compact text; bytes that are no UTF-8 are replaced.
inline std::string DumpJson(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace boss::server
