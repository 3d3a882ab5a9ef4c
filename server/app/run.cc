#include "server/app/run.h"

#include <spdlog/spdlog.h>

#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>
#include <variant>

#include "core/io/atomic_file.h"
#include "server/app/config.h"
#include "server/app/logging.h"
#include "server/app/termination.h"

namespace boss::server {
namespace {

// For scripts that start a server on free ports and wait until it is ready.
absl::Status WritePortFile(const std::string& path, const Server& server) {
  const nlohmann::ordered_json ports = {{"grpc", server.port()}, {"metrics", server.metrics_port()}};
  return WriteFileAtomically(path, ports.dump() + "\n");
}

int Serve(const ServerConfig& config, const ServerDisk& disk, TerminationSignals& signals) {
  absl::StatusOr<std::unique_ptr<Server>> server = Server::Start(config, disk);
  absl::Status status = server.status();
  if (status.ok() && !config.port_file.empty()) status = WritePortFile(config.port_file, **server);
  if (!status.ok()) {
    spdlog::critical("cannot start: {}", status.ToString());
    return EXIT_FAILURE;
  }
  spdlog::info("ready version={} grpc_port={} metrics_port={} data={}", BOSS_VERSION, (*server)->port(),
               (*server)->metrics_port(), config.data_folder);
  signals.Wait();
  std::thread second_signal([&] {
    if (signals.Wait()) (*server)->Hurry();
  });
  (*server)->Shutdown();
  signals.Stop();
  second_signal.join();
  return EXIT_SUCCESS;
}

}  // namespace

int RunServer(int argc, const char* const* argv, const ServerDisk& disk) {
  TerminationSignals signals;
  const auto config = ParseConfig(argc, argv);
  if (const int* exit_status = std::get_if<int>(&config)) return *exit_status;
  const auto& server_config = std::get<ServerConfig>(config);
  SetUpLogging(server_config.log_format, server_config.log_level);
  return Serve(server_config, disk, signals);
}

}  // namespace boss::server
