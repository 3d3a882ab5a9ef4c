// What the operator decides about a server: flags and a configuration file.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/device/devices.h"
#include "server/log/log.h"

namespace boss::server {

enum class Reflection {
  kAuto,  // on without an access file, off with one
  kOn,
  kOff,
};

struct ServerConfig {
  std::string listen = "127.0.0.1:50051";         // of gRPC; port 0 takes a free one
  std::string metrics_listen = "127.0.0.1:9464";  // of HTTP GET /metrics; empty: none
  // PEM and JSON files, see docs/security.md; empty: none.
  std::string tls_certificate, tls_key, tls_client_ca, access_file;
  absl::Duration credentials_reload = absl::Seconds(10);  // how often they are looked at; 0: only when asked
  Reflection reflection = Reflection::kAuto;
  bool insecure = false;  // any address without credentials
  std::string data_folder = "boss-data";
  std::string seed_models_folder;  // each folder in it is a model to import if the store lacks it; empty: none
  std::string port_file;           // written when the server is ready; empty: none
  std::vector<std::string> dataset_folders;             // that jobs may read from
  std::map<std::string, std::string> feature_networks;  // TorchScript files by name
  DeviceChoice device;                                  // that the server computes on
  Precision precision = Precision::kFloat32;            // of the networks
  int threads = 0;                                      // of LibTorch inside one operator; 0: one a core
  std::optional<int64_t> max_batch;                     // rows of the network's batch; none: 32 on the CPU, 64 on CUDA
  int64_t max_model_memory_bytes = 0;                   // of models in one device's memory; 0: no limit
  int64_t max_host_memory_bytes = 0;                    // of this process; 0: 85% of the container's, or the machine's
  int64_t max_samples_per_request = 4096;
  int64_t max_pixels_per_request = 64 << 20;               // of all its samples
  absl::Duration max_request_time = absl::Hours(1);        // of one request for samples; infinite: no limit
  int max_streams_per_connection = 256;                    // calls that are open at once
  int max_metadata_bytes = 16 << 10;                       // of a call's request headers
  absl::Duration max_connection_idle = absl::Minutes(30);  // without a call, before it is closed; infinite: never
  absl::Duration max_connection_age = absl::InfiniteDuration();  // after which it takes no new calls; infinite: never
  absl::Duration keepalive = absl::Minutes(1);             // of silence, before a peer is asked whether it is there
  absl::Duration min_ping_interval = absl::Seconds(10);    // between a client's pings
  int64_t max_queued_samples = 16384;                      // of one device
  int max_queued_jobs = 64;                                // jobs that have not finished
  absl::Duration job_retention = absl::Hours(24 * 30);     // how long finished jobs are kept; infinite: until DeleteJob
  absl::Duration job_data_retention = absl::Hours(24 * 7);  // how long training states of failed jobs are kept
  absl::Duration checkpoint_period = absl::Seconds(60);     // between training states
  absl::Duration crash_backoff = absl::Seconds(1);          // before a job runs again after a crash
  int64_t max_job_data_bytes = int64_t{16} << 30;           // of one job's pairs on the disk
  int64_t min_free_disk_bytes = int64_t{1} << 30;           // below it no job is started and nothing imported
  int64_t max_message_bytes = 64 << 20;
  int64_t max_import_bytes = int64_t{4} << 30;
  bool allow_torchscript = false;  // whether modules that run code of their authors' are taken from clients and loaded
  int keep_versions = 0;           // newest of each model that are kept, beside those that something holds; 0: all
  int64_t max_store_bytes = 0;     // of all model versions; 0: no limit
  double training_share = 0.1;     // of device time while sampling waits
  absl::Duration drain = absl::Seconds(5);   // after SIGTERM, in which new calls are served
  absl::Duration grace = absl::Seconds(30);  // for open streams after that
  LogFormat log_format = LogFormat::kText;
  LogLevel log_level = LogLevel::kInfo;
};

// The configuration, or the exit status of a program that has said all there is to say (--help, --version, a wrong
// flag).
std::variant<ServerConfig, int> ParseConfig(int argc, const char* const* argv);

// The same of a server that runs, with the configuration file as it is now. \error INVALID_ARGUMENT for a wrong flag or
// key.
absl::StatusOr<ServerConfig> ReadConfigAgain(int argc, const char* const* argv);

}  // namespace boss::server
