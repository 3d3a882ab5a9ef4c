// The server's log on standard error: one line an event, which is a message and named values, as text or as JSON.
//
//   2026-03-01T12:00:00.000000Z info  model loaded version=images@2 seconds=0.25 request_id=7f1c
//   {"time":"2026-03-01T12:00:00.000000Z","level":"info","message":"model loaded","version":"images@2",...}
//
// The only folder that includes spdlog. What clients send may be a value: control characters, line breaks and all that
// is not ASCII are escaped, so that no value makes up a line or a field.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/log/call_id.h"

namespace boss::server {

enum class LogFormat { kText, kJson };
enum class LogLevel { kTrace, kDebug, kInfo, kWarn, kError, kOff };

// "trace", "debug", "info", "warn", "error", "off".
std::optional<LogLevel> ParseLogLevel(absl::string_view name);

// What a field holds: text, a number, a truth; a duration counts as its seconds, a status as its text.
class LogValue {
 public:
  template <typename T>
  requires std::is_arithmetic_v<T> LogValue(T value) {  // NOLINT: a field is written {"key", value}
    if constexpr (std::is_same_v<T, bool>) {
      value_ = value;
    } else if constexpr (std::is_floating_point_v<T>) {
      value_ = static_cast<double>(value);
    } else if constexpr (std::is_signed_v<T>) {
      value_ = static_cast<int64_t>(value);
    } else {
      value_ = static_cast<uint64_t>(value);
    }
  }
  LogValue(const char* text) : value_(std::string(text)) {}        // NOLINT
  LogValue(std::string text) : value_(std::move(text)) {}          // NOLINT
  LogValue(std::string_view text) : value_(std::string(text)) {}   // NOLINT
  LogValue(absl::string_view text) : value_(std::string(text)) {}  // NOLINT
  LogValue(absl::Duration duration);                               // NOLINT: to the microsecond
  LogValue(const absl::Status& status);                            // NOLINT

  using Variant = std::variant<bool, int64_t, uint64_t, double, std::string>;
  const Variant& get() const { return value_; }

 private:
  Variant value_;
};

struct LogField {
  const char* key;  // lower case with underscores; "time", "level" and "message" are taken
  LogValue value;
};

// Whether such an event is written: worth asking where its values cost something.
bool LogEnabled(LogLevel level);

// `message`: a phrase without values. Fields of empty text are left out. The ids of `call` that are known become the
// fields request_id, trace_id and span_id. Thread-safe.
void Log(LogLevel level, absl::string_view message, std::initializer_list<LogField> fields = {},
         const CallId& call = {});

inline void LogDebug(absl::string_view message, std::initializer_list<LogField> fields = {}, const CallId& call = {}) {
  Log(LogLevel::kDebug, message, fields, call);
}
inline void LogInfo(absl::string_view message, std::initializer_list<LogField> fields = {}, const CallId& call = {}) {
  Log(LogLevel::kInfo, message, fields, call);
}
inline void LogWarn(absl::string_view message, std::initializer_list<LogField> fields = {}, const CallId& call = {}) {
  Log(LogLevel::kWarn, message, fields, call);
}
inline void LogError(absl::string_view message, std::initializer_list<LogField> fields = {}, const CallId& call = {}) {
  Log(LogLevel::kError, message, fields, call);
}

// Of the process: once, before there are threads that log. Until then events go to standard output as text.
void SetUpLog(LogFormat format, LogLevel level);
// Thread-safe.
void SetLogLevel(LogLevel level);

// What stands behind the time and the level of an event's line.
std::string FormatLogText(absl::string_view message, std::initializer_list<LogField> fields, const CallId& call);
// The fields of an event's JSON object, without the braces.
std::string FormatLogJson(absl::string_view message, std::initializer_list<LogField> fields, const CallId& call);

}  // namespace boss::server
