#include "server/app/config.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace boss::server {
namespace {

constexpr char kName[] = "bossd";
constexpr char kDescription[] =
    "bossd serves flow-matching models with few steps: sampling, training and distillation over gRPC.";

// NAME=PATH, as the flag's check has made sure.
std::pair<std::string, std::string> SplitFeatureNetwork(const std::string& text) {
  const size_t equals = text.find('=');
  return {text.substr(0, equals), text.substr(equals + 1)};
}

std::string CheckFeatureNetwork(const std::string& text) {
  const size_t equals = text.find('=');
  const bool is_pair = equals != std::string::npos && equals > 0 && equals + 1 < text.size();
  return is_pair ? "" : "must be NAME=PATH, got " + text;
}

std::string CheckSeconds(const std::string& text) {
  double seconds = 0;
  const bool is_duration = absl::SimpleAtod(text, &seconds) && seconds >= 0;
  return is_duration ? "" : "must be seconds, at least 0, or inf, got " + text;
}

// A duration in seconds; "inf" is one without end.
CLI::Option* AddSeconds(CLI::App& app, const std::string& flag, absl::Duration& value, const std::string& description) {
  return app
      .add_option_function<double>(
          flag, [&value](double seconds) { value = absl::Seconds(seconds); }, description)
      ->check(CheckSeconds)
      ->type_name("SECONDS")
      ->default_str(absl::StrCat(absl::ToDoubleSeconds(value)));
}

std::string CheckDevice(const std::string& text) {
  const absl::Status status = ParseDeviceChoice(text).status();
  return status.ok() ? "" : std::string(status.message());
}

void AddDeviceFlags(CLI::App& app, ServerConfig& config) {
  app.add_option_function<std::string>(
         "--device", [&config](const std::string& text) { config.device = *ParseDeviceChoice(text); },
         "auto (CUDA if it is there), cpu, cuda (every card), or cards such as cuda:0,cuda:1")
      ->check(CheckDevice)
      ->default_str("auto")
      ->group("Device");
  app.add_option("--precision", config.precision,
                 "float32, tf32 (products with rounded factors; CUDA only) or bfloat16, of the networks in sampling")
      ->transform(CLI::CheckedTransformer(std::map<std::string, Precision>{
          {"float32", Precision::kFloat32}, {"tf32", Precision::kTf32}, {"bfloat16", Precision::kBfloat16}}))
      ->default_str("float32")
      ->group("Device");
  app.add_option("--threads", config.threads, "Threads inside one operator of the CPU; 0 for one a core")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str()
      ->group("Device");
  app.add_option("--max-batch", config.max_batch, "Samples that go through the network together")
      ->check(CLI::Range(1, 65536))
      ->default_str("32 on the CPU, 64 on CUDA")
      ->group("Device");
  app.add_option("--max-model-memory-bytes", config.max_model_memory_bytes,
                 "Memory of loaded models on each device; idle ones are unloaded for new ones; 0: no limit")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group("Device");
  app.add_option("--max-host-memory-bytes", config.max_host_memory_bytes,
                 "Memory of this process beyond which work that needs large tensors on the CPU is refused")
      ->check(CLI::NonNegativeNumber)
      ->default_str("85% of the container's memory, or of the machine's")
      ->group("Device");
  app.add_option("--training-share", config.training_share,
                 "Share of device time that jobs are sure of while sampling waits")
      ->check(CLI::Range(0.01, 1.0))
      ->capture_default_str()
      ->group("Device");
}

void AddSecurityFlags(CLI::App& app, ServerConfig& config) {
  app.add_option("--tls-certificate", config.tls_certificate,
                 "PEM file of the server's certificate and its chain; turns TLS on")
      ->group("Security");
  app.add_option("--tls-key", config.tls_key, "PEM file of its private key")->group("Security");
  app.add_option("--tls-client-ca", config.tls_client_ca,
                 "PEM file of CAs; clients need a certificate of theirs (mutual TLS)")
      ->group("Security");
  app.add_option("--access-file", config.access_file,
                 "JSON file of the tokens and certificates of callers, and what they may do (docs/security.md)")
      ->group("Security");
  AddSeconds(app, "--credentials-reload-seconds", config.credentials_reload,
             "How often these files are looked at for changes; 0: only at SIGHUP")
      ->group("Security");
  app.add_option("--reflection", config.reflection,
                 "auto (on without --access-file), on or off: whether anybody may list the services and their messages")
      ->transform(CLI::CheckedTransformer(std::map<std::string, Reflection>{
          {"auto", Reflection::kAuto}, {"on", Reflection::kOn}, {"off", Reflection::kOff}}))
      ->default_str("auto")
      ->group("Security");
  app.add_flag("--insecure", config.insecure,
               "Listen on any address even where callers are not told apart or tokens travel in the clear")
      ->group("Security");
}

void AddConnectionFlags(CLI::App& app, ServerConfig& config) {
  app.add_option("--max-streams-per-connection", config.max_streams_per_connection,
                 "Calls that are open at once on one connection; more wait in the client")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str()
      ->group("Connections");
  app.add_option("--max-metadata-bytes", config.max_metadata_bytes,
                 "Bytes of a call's metadata; more is RESOURCE_EXHAUSTED")
      ->check(CLI::Range(1 << 10, 1 << 20))
      ->capture_default_str()
      ->group("Connections");
  AddSeconds(app, "--max-connection-idle-seconds", config.max_connection_idle,
             "Time without a call after which a connection is closed; inf: never")
      ->group("Connections");
  AddSeconds(app, "--max-connection-age-seconds", config.max_connection_age,
             "Age at which a connection takes no new calls, so that clients connect again; inf: never")
      ->group("Connections");
  AddSeconds(app, "--keepalive-seconds", config.keepalive,
             "Silence after which a client is pinged; one that does not answer is disconnected; inf: never")
      ->group("Connections");
  AddSeconds(app, "--min-ping-seconds", config.min_ping_interval,
             "Time between a client's pings; one that pings more often is disconnected")
      ->group("Connections");
}

void AddJobFlags(CLI::App& app, ServerConfig& config) {
  app.add_option("--max-queued-jobs", config.max_queued_jobs, "Jobs that have not finished; more is RESOURCE_EXHAUSTED")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str()
      ->group("Jobs");
  AddSeconds(app, "--job-retention-seconds", config.job_retention,
             "How long a finished job is kept, unless it asks for less; inf: until it is deleted")
      ->group("Jobs");
  AddSeconds(app, "--job-data-retention-seconds", config.job_data_retention,
             "How long the training states of a failed job are kept")
      ->group("Jobs");
  AddSeconds(app, "--checkpoint-seconds", config.checkpoint_period,
             "Time between two saved training states, besides those that the job asks for")
      ->group("Jobs");
  AddSeconds(app, "--crash-backoff-seconds", config.crash_backoff,
             "Wait before a job runs again after the server ended under it; doubled each time in a row")
      ->group("Jobs");
  app.add_option("--max-job-data-bytes", config.max_job_data_bytes,
                 "Disk for one job's training pairs, or the trajectories that its multistep schedules are fitted to")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group("Jobs");
  app.add_option("--min-free-disk-bytes", config.min_free_disk_bytes,
                 "Low-water mark: with less free disk, jobs wait and imports are refused")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group("Jobs");
}

// For CLI11, "--flag=" with nothing behind it takes the next argument; here it means the empty text.
std::vector<std::string> Arguments(int argc, const char* const* argv) {
  std::vector<std::string> arguments;
  for (int i = 1; i < argc; ++i) {
    std::string argument = argv[i];
    const bool is_empty =
        argument.size() > 3 && argument.substr(0, 2) == "--" && argument.find('=') == argument.size() - 1;
    if (is_empty) argument.pop_back();
    arguments.push_back(std::move(argument));
    if (is_empty) arguments.emplace_back();
  }
  return arguments;
}

// Throws CLI::ParseError.
ServerConfig Parse(CLI::App& app, int argc, const char* const* argv) {
  ServerConfig config;
  std::vector<std::string> feature_networks;

  app.set_version_flag("--version", BOSS_VERSION);
  app.set_config("--config", "",
                 "TOML file with the flags' long names as keys, e.g. max-batch = 32; flags go before it");
  app.get_formatter()->column_width(40);

  app.add_option("--listen", config.listen, "HOST:PORT of gRPC; port 0 takes a free one")
      ->capture_default_str()
      ->group("Addresses");
  app.add_option("--metrics-listen", config.metrics_listen, "HOST:PORT of HTTP GET /metrics; \"\" for none")
      ->capture_default_str()
      ->group("Addresses");
  app.add_option("--port-file", config.port_file, "JSON file with the bound ports, written when the server is ready")
      ->group("Addresses");

  AddSecurityFlags(app, config);

  app.add_option("--data", config.data_folder, "Folder of models, jobs and training states")
      ->capture_default_str()
      ->group("Data");
  app.add_option("--seed-models", config.seed_models_folder,
                 "Folder whose sub-folders are imported as models that the store lacks")
      ->group("Data");
  app.add_flag(
         "--allow-torchscript", config.allow_torchscript,
         "Take TorchScript modules from clients and load them: they run code of their authors' with all rights of "
         "this process")
      ->group("Data");
  app.add_option("--keep-versions", config.keep_versions,
                 "Newest versions of each model to keep, beside those used, aliased or built upon; 0 for all")
      ->check(CLI::Range(0, 1 << 30))
      ->capture_default_str()
      ->group("Data");
  app.add_option("--max-store-bytes", config.max_store_bytes,
                 "Bytes of all model versions; more is RESOURCE_EXHAUSTED; 0 for no limit")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group("Data");
  app.add_option("--dataset-folder", config.dataset_folders,
                 "Folder that jobs may read data sets from; may be repeated")
      ->group("Data");
  app.add_option("--features", feature_networks,
                 "NAME=PATH of a TorchScript feature network for Frechet distances; may be repeated")
      ->check(CheckFeatureNetwork)
      ->group("Data");

  AddDeviceFlags(app, config);

  app.add_option("--max-samples-per-request", config.max_samples_per_request, "Samples of one Generate call")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str()
      ->group("Limits");
  app.add_option("--max-pixels-per-request", config.max_pixels_per_request,
                 "Height x width of all samples of one Generate call together")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group("Limits");
  AddSeconds(app, "--max-request-seconds", config.max_request_time,
             "Time of one request for samples; more is DEADLINE_EXCEEDED; inf: as long as its client waits")
      ->group("Limits");
  app.add_option("--max-queued-samples", config.max_queued_samples,
                 "Samples of all calls on one device that have not finished; more is RESOURCE_EXHAUSTED")
      ->check(CLI::Range(1, 1 << 30))
      ->capture_default_str()
      ->group("Limits");
  app.add_option("--max-message-bytes", config.max_message_bytes,
                 "Bytes of one received message, and of the samples in one ModelInfer response")
      ->check(CLI::Range(1 << 16, 1 << 30))
      ->capture_default_str()
      ->group("Limits");
  app.add_option("--max-import-bytes", config.max_import_bytes, "Bytes of one uploaded weight file")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group("Limits");

  AddConnectionFlags(app, config);
  AddJobFlags(app, config);
  AddSeconds(app, "--drain-seconds", config.drain,
             "Time after SIGTERM in which health is NOT_SERVING and new calls are still served; none after SIGINT")
      ->group("Running");
  AddSeconds(app, "--grace-seconds", config.grace, "Time for open streams after that; a second SIGTERM ends both")
      ->group("Running");
  app.add_option("--log-format", config.log_format, "text or json")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, LogFormat>{{"text", LogFormat::kText}, {"json", LogFormat::kJson}}))
      ->default_str("text")
      ->group("Running");
  app.add_option("--log-level", config.log_level, "trace, debug, info, warn or error; SIGHUP reads it again")
      ->transform(CLI::CheckedTransformer(std::map<std::string, LogLevel>{{"trace", LogLevel::kTrace},
                                                                          {"debug", LogLevel::kDebug},
                                                                          {"info", LogLevel::kInfo},
                                                                          {"warn", LogLevel::kWarn},
                                                                          {"error", LogLevel::kError}}))
      ->default_str("info")
      ->group("Running");

  std::vector<std::string> arguments = Arguments(argc, argv);
  std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants them
  app.parse(std::move(arguments));
  for (const std::string& text : feature_networks) config.feature_networks.insert(SplitFeatureNetwork(text));
  // A request that can never be accepted is better refused as too large than as one too many.
  config.max_samples_per_request = std::min(config.max_samples_per_request, config.max_queued_samples);
  return config;
}

}  // namespace

std::variant<ServerConfig, int> ParseConfig(int argc, const char* const* argv) {
  CLI::App app(kDescription, kName);
  try {
    return Parse(app, argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error);
  }
}

absl::StatusOr<ServerConfig> ReadConfigAgain(int argc, const char* const* argv) {
  CLI::App app(kDescription, kName);
  try {
    return Parse(app, argc, argv);
  } catch (const CLI::ParseError& error) {
    return absl::InvalidArgumentError(error.what());
  }
}

}  // namespace boss::server
