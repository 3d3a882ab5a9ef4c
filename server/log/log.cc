#include "server/log/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace boss::server {
namespace {

constexpr std::array<std::pair<const char*, spdlog::level::level_enum>, 6> kLevels = {{
    {"trace", spdlog::level::trace},
    {"debug", spdlog::level::debug},
    {"info", spdlog::level::info},
    {"warn", spdlog::level::warn},
    {"error", spdlog::level::err},
    {"off", spdlog::level::off},
}};

// Of the process, as its standard error is.
std::atomic<bool> log_json = false;

spdlog::level::level_enum ToSpdlog(LogLevel level) { return kLevels[static_cast<size_t>(level)].second; }

// Pure ASCII without control characters. What is not UTF-8 becomes U+FFFD.
std::string Dump(const nlohmann::ordered_json& json) {
  return json.dump(-1, ' ', /*ensure_ascii=*/true, nlohmann::json::error_handler_t::replace);
}

nlohmann::ordered_json ToJson(const LogValue& value) {
  return std::visit([](const auto& held) { return nlohmann::ordered_json(held); }, value.get());
}

// Whether a reader of "key=value" takes it as one value.
bool IsPlain(absl::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return absl::ascii_isgraph(c) && c != '"' && c != '=' && c != '\\'; });
}

bool IsEmpty(const LogValue& value) {
  const auto* const text = std::get_if<std::string>(&value.get());
  return text != nullptr && text->empty();
}

std::string ToText(const LogValue& value) {
  const auto* const text = std::get_if<std::string>(&value.get());
  return text != nullptr && IsPlain(*text) ? *text : Dump(ToJson(value));
}

// Calls `add` with each id that is known.
template <typename Add>
void ForEachId(const CallId& call, Add add) {
  if (!call.request_id.empty()) add("request_id", call.request_id);
  if (!call.trace_id.empty()) add("trace_id", call.trace_id);
  if (!call.span_id.empty()) add("span_id", call.span_id);
}

}  // namespace

LogValue::LogValue(absl::Duration duration) : value_(std::round(absl::ToDoubleMicroseconds(duration)) / 1e6) {}

LogValue::LogValue(const absl::Status& status) : value_(status.ToString(absl::StatusToStringMode::kWithNoExtraData)) {}

std::optional<LogLevel> ParseLogLevel(absl::string_view name) {
  for (size_t i = 0; i < kLevels.size(); ++i) {
    if (name == kLevels[i].first) return static_cast<LogLevel>(i);
  }
  return std::nullopt;
}

std::string FormatLogText(absl::string_view message, std::initializer_list<LogField> fields, const CallId& call) {
  std::string line(message);
  for (const LogField& field : fields) {
    if (!IsEmpty(field.value)) absl::StrAppend(&line, " ", field.key, "=", ToText(field.value));
  }
  ForEachId(call, [&](const char* key, const std::string& id) { absl::StrAppend(&line, " ", key, "=", ToText(id)); });
  return line;
}

std::string FormatLogJson(absl::string_view message, std::initializer_list<LogField> fields, const CallId& call) {
  nlohmann::ordered_json object = {{"message", std::string(message)}};
  for (const LogField& field : fields) {
    if (!IsEmpty(field.value)) object[field.key] = ToJson(field.value);
  }
  ForEachId(call, [&](const char* key, const std::string& id) { object[key] = id; });
  const std::string text = Dump(object);
  return text.substr(1, text.size() - 2);
}

bool LogEnabled(LogLevel level) { return spdlog::default_logger_raw()->should_log(ToSpdlog(level)); }

void Log(LogLevel level, absl::string_view message, std::initializer_list<LogField> fields, const CallId& call) {
  if (!LogEnabled(level)) return;
  const std::string text = log_json ? FormatLogJson(message, fields, call) : FormatLogText(message, fields, call);
  spdlog::default_logger_raw()->log(ToSpdlog(level), spdlog::string_view_t(text.data(), text.size()));
}

void SetUpLog(LogFormat format, LogLevel level) {
  auto logger = std::make_shared<spdlog::logger>("bossd", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  log_json = format == LogFormat::kJson;
  logger->set_pattern(
      log_json ? R"({"time":"%Y-%m-%dT%H:%M:%S.%fZ","level":"%l",%v})" : "%Y-%m-%dT%H:%M:%S.%fZ %-5l %v",
      spdlog::pattern_time_type::utc);
  logger->set_level(ToSpdlog(level));
  logger->flush_on(spdlog::level::trace);
  spdlog::set_default_logger(std::move(logger));
}

void SetLogLevel(LogLevel level) { spdlog::default_logger_raw()->set_level(ToSpdlog(level)); }

}  // namespace boss::server
