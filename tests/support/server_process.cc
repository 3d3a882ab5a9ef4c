#include "tests/support/server_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/inotify.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

extern char** environ;

namespace boss::testing {
namespace {

absl::StatusOr<pid_t> Spawn(const std::string& binary, const std::vector<std::string>& arguments,
                            const std::string& log) {
  std::vector<char*> argv = {const_cast<char*>(binary.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  const absl::Cleanup destroy = [&] { posix_spawn_file_actions_destroy(&actions); };
  if (!log.empty()) {
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  }
  pid_t pid = 0;
  const int error = posix_spawn(&pid, binary.c_str(), &actions, nullptr, argv.data(), environ);
  if (error != 0) return absl::InternalError(absl::StrCat("cannot start ", binary, ": error ", error));
  return pid;
}

// Until `path` exists, or the process has ended.
void WaitForFile(const std::string& path, int folder_watch, int process_fd) {
  while (!std::filesystem::exists(path)) {
    pollfd descriptors[] = {{.fd = folder_watch, .events = POLLIN}, {.fd = process_fd, .events = POLLIN}};
    if (poll(descriptors, 2, -1) < 0 && errno != EINTR) return;
    if (descriptors[1].revents != 0) return;
    char events[4096];
    if (descriptors[0].revents != 0 && read(folder_watch, events, sizeof events) < 0) return;
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<ServerProcess>> ServerProcess::Start(const std::string& binary,
                                                                    const std::string& folder,
                                                                    std::vector<std::string> arguments,
                                                                    ServerPorts ports, const std::string& log) {
  const bool drains = std::any_of(arguments.begin(), arguments.end(), [](const std::string& argument) {
    return absl::StartsWith(argument, "--drain-seconds");
  });
  if (!drains) arguments.push_back("--drain-seconds=0");
  const std::string port_file = folder + "/ports.json";
  std::filesystem::remove(port_file);
  arguments.push_back(absl::StrCat("--listen=127.0.0.1:", ports.grpc));
  arguments.push_back(absl::StrCat("--metrics-listen=127.0.0.1:", ports.metrics));
  arguments.push_back("--port-file=" + port_file);

  const int folder_watch = inotify_init1(IN_CLOEXEC);
  const absl::Cleanup close_watch = [&] { close(folder_watch); };
  inotify_add_watch(folder_watch, folder.c_str(), IN_MOVED_TO | IN_CREATE);
  absl::StatusOr<std::unique_ptr<ServerProcess>> launched = Launch(binary, arguments, log);
  if (!launched.ok()) return launched.status();
  std::unique_ptr<ServerProcess> process = *std::move(launched);
  const int process_fd = static_cast<int>(syscall(SYS_pidfd_open, process->pid(), 0));
  const absl::Cleanup close_process = [&] { close(process_fd); };
  WaitForFile(port_file, folder_watch, process_fd);
  std::ifstream file(port_file);
  if (!file) {
    const int exit_status = process->WaitForExit();
    const std::string message = absl::StrCat(binary, " ended with ", exit_status, " before it was ready");
    return exit_status < 0 ? absl::AbortedError(message) : absl::InternalError(message);
  }
  const nlohmann::json bound = nlohmann::json::parse(file);
  process->grpc_port_ = bound.at("grpc");
  process->metrics_port_ = bound.at("metrics");
  return process;
}

absl::StatusOr<std::unique_ptr<ServerProcess>> ServerProcess::Launch(const std::string& binary,
                                                                     const std::vector<std::string>& arguments,
                                                                     const std::string& log) {
  const absl::StatusOr<pid_t> pid = Spawn(binary, arguments, log);
  if (!pid.ok()) return pid.status();
  return std::unique_ptr<ServerProcess>(new ServerProcess(*pid));
}

ServerProcess::~ServerProcess() {
  if (pid_ == 0) return;
  Signal(SIGKILL);
  WaitForExit();
}

void ServerProcess::Signal(int signal_number) { kill(pid_, signal_number); }

int ServerProcess::WaitForExit() {
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = 0;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

std::optional<int> ServerProcess::WaitForExit(absl::Duration timeout) {
  const int process_fd = static_cast<int>(syscall(SYS_pidfd_open, pid_, 0));
  const absl::Cleanup close_process = [&] { close(process_fd); };
  const absl::Time deadline = absl::Now() + timeout;
  pollfd descriptor = {.fd = process_fd, .events = POLLIN};
  while (true) {
    const absl::Duration left = std::max(deadline - absl::Now(), absl::ZeroDuration());
    const int ready = poll(&descriptor, 1, static_cast<int>(absl::ToInt64Milliseconds(left)));
    if (ready > 0) return WaitForExit();
    if (ready == 0) return std::nullopt;
    if (errno != EINTR) return std::nullopt;
  }
}

}  // namespace boss::testing
