#include "server/app/run.h"

#include <signal.h>

#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>
#include <utility>
#include <variant>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "core/io/atomic_file.h"
#include "server/app/config.h"
#include "server/app/grpc_log.h"
#include "server/app/signals.h"
#include "server/log/log.h"

namespace boss::server {
namespace {

// For scripts that start a server on free ports and wait until it is ready.
absl::Status WritePortFile(const std::string& path, const Server& server) {
  const nlohmann::ordered_json ports = {{"grpc", server.port()}, {"metrics", server.metrics_port()}};
  return WriteFileAtomically(path, ports.dump() + "\n");
}

// Does what the process's signals ask for (docs/lifecycle.md), on a thread of its own.
class Supervisor {
 public:
  Supervisor(int argc, const char* const* argv, const ServerConfig& config, ProcessSignals& signals)
      : argc_(argc), argv_(argv), log_level_(config.log_level), signals_(signals), thread_([this] { Loop(); }) {}
  ~Supervisor() {
    signals_.Stop();
    thread_.join();
  }
  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;

  // The first SIGTERM or SIGINT.
  const absl::Notification& stop() const { return stop_; }
  // \pre stop() has been notified.
  int stop_signal() const { return stop_signal_; }

  // Null: there is none, or none any more. What was to be read again while there was none is read now.
  void SetServer(Server* server) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    server_ = server;
    if (server_ != nullptr && std::exchange(reload_, false)) server_->ReloadCredentials();
  }

 private:
  void Loop() {
    while (const std::optional<int> signal = signals_.Wait()) {
      if (*signal == SIGHUP) {
        Reload();
      } else if (!stop_.HasBeenNotified()) {
        stop_signal_ = *signal;
        LogInfo("asked to stop", {{"signal", *signal}});
        stop_.Notify();
      } else {
        absl::MutexLock lock(&mutex_);
        if (server_ != nullptr) server_->Hurry();
      }
    }
  }

  void Reload() ABSL_LOCKS_EXCLUDED(mutex_) {
    const absl::StatusOr<ServerConfig> config = ReadConfigAgain(argc_, argv_);
    if (!config.ok()) {
      LogError("cannot read the configuration again", {{"error", config.status()}});
    } else if (config->log_level != log_level_) {
      log_level_ = config->log_level;
      SetLogLevel(log_level_);
      LogInfo("the log level has changed");
    }
    absl::MutexLock lock(&mutex_);
    reload_ = server_ == nullptr;
    if (server_ != nullptr) server_->ReloadCredentials();
  }

  const int argc_;
  const char* const* const argv_;
  LogLevel log_level_;
  ProcessSignals& signals_;
  absl::Notification stop_;
  int stop_signal_ = 0;  // before stop_
  absl::Mutex mutex_;
  Server* server_ ABSL_GUARDED_BY(mutex_) = nullptr;
  bool reload_ ABSL_GUARDED_BY(mutex_) = false;  // SIGHUP has come before the server
  std::thread thread_;
};

int Serve(const ServerConfig& config, const ServerDisk& disk, Supervisor& supervisor) {
  absl::StatusOr<std::unique_ptr<Server>> server = Server::Start(config, disk, &supervisor.stop());
  if (absl::IsCancelled(server.status())) {
    LogInfo("stopped before it was ready");
    return EXIT_SUCCESS;
  }
  absl::Status status = server.status();
  if (status.ok() && !config.port_file.empty()) status = WritePortFile(config.port_file, **server);
  if (!status.ok()) {
    LogError("cannot start", {{"error", status}});
    return EXIT_FAILURE;
  }
  LogInfo("ready", {{"version", BOSS_VERSION},
                    {"grpc_port", (*server)->port()},
                    {"metrics_port", (*server)->metrics_port()},
                    {"data", config.data_folder}});
  supervisor.SetServer(server->get());
  supervisor.stop().WaitForNotification();
  // Nobody who sends requests is told of a server that a person stops at a terminal.
  if (supervisor.stop_signal() == SIGTERM) (*server)->Drain();
  (*server)->Shutdown();
  supervisor.SetServer(nullptr);
  return EXIT_SUCCESS;
}

}  // namespace

int RunServer(int argc, const char* const* argv, const ServerDisk& disk) {
  ProcessSignals signals;
  const auto parsed = ParseConfig(argc, argv);
  if (const int* exit_status = std::get_if<int>(&parsed)) return *exit_status;
  const auto& config = std::get<ServerConfig>(parsed);
  SetUpLog(config.log_format, config.log_level);
  RouteGrpcLog();
  Supervisor supervisor(argc, argv, config, signals);
  return Serve(config, disk, supervisor);
}

}  // namespace boss::server
