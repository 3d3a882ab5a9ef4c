// The commands of `bossctl schedules` that move schedules between tools and compare them.
#pragma once

#include <string>

#include "client/cli/context.h"

namespace boss::client {

// The reference as that of one version: a bare NAME becomes NAME@latest.
std::string OneVersion(const std::string& reference);

// import, export and delete.
void AddExchangeCommands(CLI::App& schedules, Context& context);
void AddCompareCommand(CLI::App& schedules, Context& context);

}  // namespace boss::client
