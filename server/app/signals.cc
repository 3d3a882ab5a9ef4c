#include "server/app/signals.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cstdint>

namespace boss::server {

ProcessSignals::ProcessSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, signal);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal_fd_ = signalfd(-1, &signals, SFD_CLOEXEC);
  stop_fd_ = eventfd(0, EFD_CLOEXEC);
}

ProcessSignals::~ProcessSignals() {
  close(signal_fd_);
  close(stop_fd_);
}

std::optional<int> ProcessSignals::Wait() {
  pollfd descriptors[] = {{.fd = stop_fd_, .events = POLLIN}, {.fd = signal_fd_, .events = POLLIN}};
  while (poll(descriptors, 2, -1) < 0 && errno == EINTR) {
  }
  if (descriptors[0].revents != 0) return std::nullopt;
  signalfd_siginfo received;
  if (read(signal_fd_, &received, sizeof received) != sizeof received) return std::nullopt;
  return static_cast<int>(received.ssi_signo);
}

void ProcessSignals::Stop() {
  const uint64_t one = 1;
  // An eventfd takes 2^64 - 2 of these before it would block.
  [[maybe_unused]] const ssize_t written = write(stop_fd_, &one, sizeof one);
}

}  // namespace boss::server
