// The command line as a function, so that tests run it without a process.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "client/cli/context.h"

namespace boss::client {

// Runs one command; `arguments` are without the program's name. `on_client` gets the client once there is one, to
// cancel it on a signal, and nullptr before it goes. Returns an ExitCode.
int RunBossctl(const std::vector<std::string>& arguments, Console console, std::function<void(Client*)> on_client);

}  // namespace boss::client
