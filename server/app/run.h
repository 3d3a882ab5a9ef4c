// bossd as a function.
#pragma once

#include "server/app/server.h"

namespace boss::server {

// Reads the flags, serves until SIGTERM or SIGINT, and returns the exit status. To be called once, on the main thread, before there is any other.
int RunServer(int argc, const char* const* argv, const ServerDisk& disk = {});

}  // namespace boss::server
