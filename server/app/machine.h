// What this machine is and has.
#pragma once

#include <cstdint>
#include <string>

namespace boss::server {

// The processor's product name; empty if the system does not tell.
std::string ProcessorName();
// Of main memory; 0 if the system does not tell.
int64_t MemoryBytes();

}  // namespace boss::server
