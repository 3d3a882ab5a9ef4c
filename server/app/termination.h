// SIGTERM and SIGINT as something to wait for, instead of code that runs inside a signal handler.
#pragma once

namespace boss::server {

// Create it before any thread, which inherits that the signals are blocked; they then arrive at a file descriptor
// alone.
class TerminationSignals {
 public:
  TerminationSignals();
  ~TerminationSignals();
  TerminationSignals(const TerminationSignals&) = delete;
  TerminationSignals& operator=(const TerminationSignals&) = delete;

  // Blocks until a signal arrives; false if Stop() was called before. From one thread at a time.
  bool Wait();
  // Makes this and every further Wait() return. Thread-safe.
  void Stop();

 private:
  int signal_fd_ = -1;
  int stop_fd_ = -1;
};

}  // namespace boss::server
