// bossctl: see client/cli/bossctl.h.
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "client/cli/bossctl.h"

namespace {

// SIGINT and SIGTERM cancel the client's calls; a second one, or one without a client, ends the process at once.
// Signals are blocked in every thread and taken by one, because cancelling a call is nothing that a signal handler may
// do.
class Interrupter {
 public:
  Interrupter() {
    sigemptyset(&signals_);
    for (const int signal : {SIGINT, SIGTERM, SIGUSR1}) sigaddset(&signals_, signal);
    pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
    thread_ = std::thread([this] { Loop(); });
  }
  ~Interrupter() {
    pthread_kill(thread_.native_handle(), SIGUSR1);
    thread_.join();
  }

  void SetClient(boss::client::Client* client) {
    absl::MutexLock lock(&mutex_);
    client_ = client;
  }

 private:
  void Loop() {
    int signal = 0;
    while (sigwait(&signals_, &signal) == 0 && signal != SIGUSR1) {
      absl::MutexLock lock(&mutex_);
      if (client_ == nullptr || client_->cancelled()) _exit(boss::client::kExitInterrupted);
      client_->Cancel();
    }
  }

  sigset_t signals_;
  absl::Mutex mutex_;
  boss::client::Client* client_ ABSL_GUARDED_BY(mutex_) = nullptr;
  std::thread thread_;
};

int TerminalWidth() {
  winsize size = {};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 100;
}

}  // namespace

int main(int argc, char** argv) {
  Interrupter interrupter;
  const boss::client::Console console{std::cout, std::cerr, isatty(STDERR_FILENO) == 1, TerminalWidth()};
  return boss::client::RunBossctl(std::vector<std::string>(argv + 1, argv + argc), console,
                                  [&](boss::client::Client* client) { interrupter.SetClient(client); });
}
