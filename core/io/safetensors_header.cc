#include "core/io/safetensors_header.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/io/printable.h"

namespace boss {
namespace {

constexpr size_t kMaxDimensions = 64;

// Takes the parser's events one by one: nothing is built that the format does not allow, so a hostile header costs no
// more than its bytes.
class HeaderReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  bool null() override { return Unexpected("null"); }
  bool boolean(bool) override { return Unexpected("a boolean"); }
  bool number_integer(number_integer_t value) override { return Unexpected(absl::StrCat("the number ", value)); }
  bool number_float(number_float_t, const string_t& text) override {
    return Unexpected(absl::StrCat("the number ", Printable(text)));
  }
  bool binary(binary_t&) override { return Unexpected("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ == Place::kShape) {
      if (entry_.shape.size() == kMaxDimensions) return Fail(absl::StrCat("more than ", kMaxDimensions, " dimensions"));
      if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
        return Fail(absl::StrCat("dimension ", value, " is too large"));
      entry_.shape.push_back(static_cast<int64_t>(value));
      return true;
    }
    if (place_ == Place::kOffsets) {
      if (num_offsets_ == 2) return Fail("got more than two data_offsets, expected two");
      (num_offsets_++ == 0 ? entry_.begin : entry_.end) = value;
      return true;
    }
    return Unexpected(absl::StrCat("the number ", value));
  }

  bool string(string_t& value) override {
    if (place_ == Place::kMetadata) {
      header_.metadata.emplace(key_, std::move(value));
      return true;
    }
    if (place_ == Place::kEntry && key_ == "dtype") {
      entry_.dtype = std::move(value);
      return true;
    }
    return Unexpected("a string");
  }

  bool start_object(std::size_t) override {
    if (place_ == Place::kOutside) {
      place_ = Place::kTop;
      return true;
    }
    if (place_ != Place::kTop) return Unexpected("an object");
    inner_keys_.clear();
    if (key_ == "__metadata__") {
      place_ = Place::kMetadata;
    } else {
      place_ = Place::kEntry;
      entry_ = SafetensorsEntry{.name = key_};
      num_offsets_ = 0;
    }
    return true;
  }

  bool key(string_t& value) override {
    auto& keys = place_ == Place::kTop ? top_keys_ : inner_keys_;
    if (!keys.insert(value).second) return Fail(absl::StrCat("the key \"", Printable(value), "\" occurs twice"));
    if (place_ == Place::kEntry && value != "dtype" && value != "shape" && value != "data_offsets") {
      return Fail(absl::StrCat("got the key \"", Printable(value), "\", expected dtype, shape or data_offsets"));
    }
    key_ = std::move(value);
    return true;
  }

  bool end_object() override {
    if (place_ == Place::kEntry) {
      if (inner_keys_.size() != 3) return Fail("dtype, shape or data_offsets is missing");
      if (num_offsets_ != 2) return Fail(absl::StrCat("got ", num_offsets_, " data_offsets, expected two"));
      header_.entries.push_back(std::move(entry_));
    }
    place_ = place_ == Place::kTop ? Place::kOutside : Place::kTop;
    return true;
  }

  bool start_array(std::size_t) override {
    if (place_ != Place::kEntry || key_ == "dtype") return Unexpected("an array");
    place_ = key_ == "shape" ? Place::kShape : Place::kOffsets;
    return true;
  }

  bool end_array() override {
    place_ = Place::kEntry;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    status_ = absl::DataLossError(
        absl::StrCat("safetensors header is no JSON at byte ", position, ": ", Printable(error.what())));
    return false;
  }

  absl::StatusOr<SafetensorsHeader> Finish() && {
    if (!status_.ok()) return std::move(status_);
    return std::move(header_);
  }

 private:
  enum class Place { kOutside, kTop, kMetadata, kEntry, kShape, kOffsets };

  bool Fail(const std::string& what) {
    std::string where;
    if (place_ == Place::kMetadata) {
      where = "__metadata__";
    } else if (place_ != Place::kOutside && place_ != Place::kTop) {
      where = Printable(entry_.name);
    }
    status_ = absl::DataLossError(where.empty() ? absl::StrCat("safetensors header: ", what)
                                                : absl::StrCat("safetensors header, \"", where, "\": ", what));
    return false;
  }

  bool Unexpected(const std::string& got) {
    switch (place_) {
      case Place::kOutside:
        return Fail(absl::StrCat("got ", got, ", expected an object"));
      case Place::kTop:
        return Fail(absl::StrCat("got ", got, " for \"", Printable(key_), "\", expected an object"));
      case Place::kMetadata:
        return Fail(absl::StrCat("got ", got, " for \"", Printable(key_), "\", expected a string"));
      case Place::kEntry:
        return Fail(absl::StrCat("got ", got, " for ", key_, ", expected ", key_ == "dtype" ? "a string" : "an array"));
      case Place::kShape:
        return Fail(absl::StrCat("got ", got, " in shape, expected an unsigned integer"));
      case Place::kOffsets:
        return Fail(absl::StrCat("got ", got, " in data_offsets, expected an unsigned integer"));
    }
    return Fail(absl::StrCat("unexpected ", got));
  }

  Place place_ = Place::kOutside;
  std::string key_;
  absl::flat_hash_set<std::string> top_keys_, inner_keys_;
  SafetensorsEntry entry_;
  int num_offsets_ = 0;
  SafetensorsHeader header_;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(std::string_view json) {
  // The parser would take a zero byte for the end and the rest for nothing.
  if (json.find('\0') != std::string_view::npos)
    return absl::DataLossError("safetensors header is no JSON: it has a zero byte");
  HeaderReader reader;
  nlohmann::json::sax_parse(json.begin(), json.end(), &reader);
  return std::move(reader).Finish();
}

}  // namespace boss
