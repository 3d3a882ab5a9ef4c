// Reading a JSON object key by key with errors that name the key.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace boss {

// Remembers which keys were read, so that an unknown one is an error too. Not thread-safe.
class JsonObject {
 public:
  // `path` leads the error messages. \error INVALID_ARGUMENT if `json` is no object.
  static absl::StatusOr<JsonObject> Create(nlohmann::json json, std::string path);

  bool Has(const std::string& key) const { return json_.contains(key); }
  // \error INVALID_ARGUMENT if the key is missing, of another type, or outside [minimum, maximum].
  absl::StatusOr<int64_t> Integer(const std::string& key, int64_t minimum, int64_t maximum) const;
  absl::StatusOr<int64_t> IntegerOr(const std::string& key, int64_t fallback, int64_t minimum, int64_t maximum) const;
  absl::StatusOr<double> NumberOr(const std::string& key, double fallback) const;
  absl::StatusOr<bool> BooleanOr(const std::string& key, bool fallback) const;
  absl::StatusOr<std::vector<int64_t>> Integers(const std::string& key, int64_t minimum, int64_t maximum) const;
  // The value must be one of `allowed`; a missing key means the first of them.
  absl::StatusOr<std::string> ChoiceOr(const std::string& key, const std::vector<std::string>& allowed) const;
  // Of 1 to max_size bytes.
  absl::StatusOr<std::string> String(const std::string& key, size_t max_size) const;
  // An array of at most max_size strings of 1 to 63 bytes.
  absl::StatusOr<std::vector<std::string>> Strings(const std::string& key, size_t max_size) const;
  absl::StatusOr<JsonObject> Object(const std::string& key) const;
  // An array of at most max_size objects.
  absl::StatusOr<std::vector<JsonObject>> Objects(const std::string& key, size_t max_size) const;
  // Whether the key is there and an array.
  bool HasArray(const std::string& key) const { return Has(key) && json_.at(key).is_array(); }
  // Of all keys, in alphabetical order. Reads none.
  std::vector<std::string> Keys() const;

  // \error INVALID_ARGUMENT naming a key that nothing has read.
  absl::Status CheckAllRead() const;

 private:
  JsonObject(nlohmann::json json, std::string path) : json_(std::move(json)), path_(std::move(path)) {}
  absl::Status Error(const std::string& key, absl::string_view expected) const;
  absl::Status Read(const std::string& key) const;

  nlohmann::json json_;
  std::string path_;
  mutable std::vector<std::string> read_;
};

}  // namespace boss
