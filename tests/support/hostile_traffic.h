// What hostile clients do to a server's ports. Every function does one thing once and returns.
#pragma once

#include <cstdint>
#include <map>
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

// Calls of `path` on one connection, each with a message of `bytes` that never gets its last one, as fast as the server
// takes them. They stay open while this lives.
class UnfinishedMessages {
 public:
  UnfinishedMessages(int port, const std::string& path, int calls, int64_t bytes);
  // What the server has taken.
  int64_t sent() const { return sent_; }

 private:
  // What may be sent of it now, and what is left.
  struct Call {
    int64_t window = 0, left = 0;
  };
  // False if nothing comes any more.
  bool ReadFrame();
  void TakeSettings(const std::string& payload);
  // As much as the windows allow. False if the server takes nothing more.
  bool SendAll();

  RawConnection connection_;
  std::map<uint32_t, Call> calls_;  // by stream
  int64_t window_ = 65535, initial_window_ = 65535;
  int64_t sent_ = 0;
};

}  // namespace boss::testing
