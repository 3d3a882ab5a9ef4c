// Mixed traffic against a real server that is reloaded, ended and killed under it: see docs/reliability.md.
//
//   soak --minutes 30 [--seed S]      ends with a table, and with 1 if a job was lost or a request failed that should
//   not
#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "tests/soak/job_clients.h"
#include "tests/soak/ledger.h"
#include "tests/soak/soak_server.h"
#include "tests/soak/traffic.h"

namespace boss::testing {
namespace {

constexpr absl::Duration kMeasurePeriod = absl::Seconds(1);
constexpr absl::Duration kLongestLife = absl::Minutes(5);  // of a process but the first
constexpr int kFewestLives = 3;

// The first process has half of the time, so that its memory tells of growth rather than of warming up; those after it
// share the rest. Of each: half of its time, SIGHUP, the other half, and its end: SIGTERM, every third time SIGKILL.
// \error if a process does not start.
absl::Status Supervise(SoakServer& server, absl::Duration duration, uint64_t seed) {
  std::mt19937_64 random(seed);
  const int lives = std::max(kFewestLives, 1 + static_cast<int>(duration / 2 / kLongestLife));
  const auto first_kill = static_cast<int>(random() % 3);
  const auto measure = [&](absl::Duration time) {
    for (const absl::Time end = absl::Now() + time; absl::Now() < end;) {
      absl::SleepFor(std::min(kMeasurePeriod, end - absl::Now()));
      server.Measure();
    }
  };
  for (int life = 0; life < lives; ++life) {
    if (life > 0) {
      if (absl::Status status = server.Restart(/*kill=*/life % 3 == first_kill); !status.ok()) return status;
    }
    const absl::Duration time = life == 0 ? duration / 2 : duration / 2 / (lives - 1);
    measure(time / 2);
    server.HangUp();
    measure(time / 2);
  }
  return absl::OkStatus();
}

int Run(const std::string& binary, absl::Duration duration, uint64_t seed) {
  Ledger ledger;
  SoakServer server(binary, ledger);
  if (const absl::Status status = server.Start(); !status.ok()) {
    absl::FPrintF(stderr, "%s\n", status.ToString());
    return EXIT_FAILURE;
  }
  absl::Notification stop;
  const SoakRun run = {server, ledger, stop};
  JobClients jobs(run);
  std::vector<std::thread> clients;
  const auto add = [&](auto client) {
    clients.emplace_back([client, client_seed = seed * 100 + clients.size()] { client(client_seed); });
  };
  for (int i = 0; i < 2; ++i) add([&](uint64_t client_seed) { RunGoodClient(run, client_seed); });
  add([&](uint64_t client_seed) { RunSlowReader(run, client_seed); });
  add([&](uint64_t client_seed) { RunImpatientClient(run, client_seed); });
  add([&](uint64_t client_seed) { RunHostileClient(run, client_seed); });
  add([&](uint64_t client_seed) { RunModelClient(run, client_seed); });
  add([&](uint64_t client_seed) { jobs.RunSubmitter(client_seed); });
  add([&](uint64_t client_seed) { jobs.RunWatcher(client_seed); });
  const absl::Status status = Supervise(server, duration, seed);
  stop.Notify();
  for (std::thread& client : clients) client.join();
  if (status.ok()) {
    jobs.Finish();
    server.Stop();
  } else {
    ledger.AddFinding("the server does not start: " + status.ToString());
  }
  absl::FPrintF(stdout, "%s, seed %d\n", absl::FormatDuration(duration), seed);
  ledger.Print(stdout);
  return ledger.is_clean() ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace
}  // namespace boss::testing

int main(int argc, char** argv) {
  CLI::App app("Mixed traffic against a server that is restarted under it");
  double minutes = 30;
  uint64_t seed = 1;
  std::string binary = BOSSD_BINARY;
  app.add_option("--minutes", minutes, "How long")->check(CLI::PositiveNumber);
  app.add_option("--seed", seed, "Of everything random");
  app.add_option("--binary", binary, "The bossd to run")->check(CLI::ExistingFile);
  CLI11_PARSE(app, argc, argv);
  return boss::testing::Run(binary, absl::Minutes(minutes), seed);
}
