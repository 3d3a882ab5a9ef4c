// What hostile clients do to a server's ports. Every function does one thing once and returns.
#pragma once

#include <string>
#include <vector>

#include "tests/support/raw_connection.h"

namespace boss::testing {

// Requests that are none, or none that the metrics port serves; each is answered with an error.
std::vector<std::string> MalformedHttpRequests();

// `count` connections that have sent `bytes` and say nothing more.
std::vector<RawConnection> HoldConnections(int port, int count, const std::string& bytes);

// Bytes that are no HTTP/2, parts of its preface among them.
std::vector<std::string> Http2Garbage();
// 20,000 empty SETTINGS frames or PING frames, whose answers nobody reads.
void FloodWithSettings(int port);
void FloodWithPings(int port);
// 2,000 calls of `path` that are reset as soon as they are begun. (gRPC 1.51 keeps each until it is done with it: more
// of them than it can end hold memory meanwhile.)
void FloodWithResets(int port, const std::string& path);
// A call whose header fields never end: 16 MiB of CONTINUATION frames.
void SendEndlessHeaders(int port, const std::string& path);
// A call with a message that announces 4 GiB and sends one megabyte of it.
void SendEndlessMessage(int port, const std::string& path);

}  // namespace boss::testing
