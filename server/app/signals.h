// The signals that a server acts on as something to wait for, instead of code that runs inside a signal handler.
#pragma once

#include <optional>

namespace boss::server {

// SIGTERM, SIGINT and SIGHUP. Create it before any thread, which inherits that the signals are blocked; they then
// arrive at a file descriptor alone.
class ProcessSignals {
 public:
  ProcessSignals();
  ~ProcessSignals();
  ProcessSignals(const ProcessSignals&) = delete;
  ProcessSignals& operator=(const ProcessSignals&) = delete;

  // Blocks until a signal arrives, and says which; nothing if Stop() was called before. From one thread at a time.
  std::optional<int> Wait();
  // Makes this and every further Wait() return. Thread-safe.
  void Stop();

 private:
  int signal_fd_ = -1;
  int stop_fd_ = -1;
};

}  // namespace boss::server
