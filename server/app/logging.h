// Structured logs on standard error: one line an event, "key=value" in text, or one JSON object.
#pragma once

#include <string>

#include "server/app/config.h"

namespace boss::server {

// Sets up the process's logger. `level` as ServerConfig::log_level.
void SetUpLogging(LogFormat format, const std::string& level);

}  // namespace boss::server
