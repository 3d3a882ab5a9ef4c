#include "tests/soak/soak_server.h"

#include <signal.h>

#include <filesystem>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/support/idx_file.h"
#include "tests/support/process_use.h"
#include "tests/support/tiny_models.h"

namespace boss::testing {
namespace {

constexpr char kWideArchitecture[] = R"({"model": {"architecture": "mlp", "dim": 65536, "hidden": 1, "layers": 1}})";
constexpr absl::Duration kSettleTime = absl::Seconds(10);
constexpr absl::Duration kMaxShutdown = absl::Seconds(120);

}  // namespace

SoakServer::SoakServer(std::string binary, Ledger& ledger) : binary_(std::move(binary)), ledger_(ledger) {
  std::filesystem::create_directories(folder_ / "seeds");
  std::filesystem::create_directories(folder_ / "sets");
  WriteSeedModel(folder_ / "seeds", "vectors", kTinyVectorArchitecture);
  WriteSeedModel(folder_ / "seeds", "pictures", kTinyImageArchitecture);
  WriteSeedModel(folder_ / "seeds", "wide", kWideArchitecture);
  std::vector<uint8_t> points;
  for (int i = 0; i < 512; ++i) points.push_back(static_cast<uint8_t>(i * 89 % 251));
  WriteIdx(folder_ / "sets/points", {256, 1, 2}, points);
}

std::string SoakServer::address() const { return absl::StrCat("127.0.0.1:", ports_.grpc); }

absl::Status SoakServer::Start() {
  auto process = ServerProcess::Start(
      binary_, folder_.path(),
      {"--data=" + (folder_ / "data"), "--seed-models=" + (folder_ / "seeds"), "--dataset-folder=" + (folder_ / "sets"),
       "--threads=1", "--log-level=error", "--crash-backoff-seconds=0", "--min-free-disk-bytes=0",
       "--checkpoint-seconds=2", "--drain-seconds=1", "--grace-seconds=10", "--keep-versions=8"},
      ports_);
  if (!process.ok()) return process.status();
  process_ = *std::move(process);
  ports_ = {process_->grpc_port(), process_->metrics_port()};
  start_ = absl::Now();
  return absl::OkStatus();
}

void SoakServer::End(bool kill) {
  process_->Signal(kill ? SIGKILL : SIGTERM);
  const std::optional<int> status = process_->WaitForExit(kMaxShutdown);
  if (!status) {
    ledger_.AddFinding("the server does not end after SIGTERM");
  } else if (*status != (kill ? -SIGKILL : 0)) {
    ledger_.AddFinding(absl::StrCat("the server ended with ", *status));
  }
  process_.reset();
}

absl::Status SoakServer::Restart(bool kill) {
  NextEpoch(absl::ZeroDuration());
  End(kill);
  ledger_.CountEvent(kill ? "restarts after kill -9" : "restarts after SIGTERM");
  const absl::Status status = Start();
  NextEpoch(kSettleTime);
  return status;
}

void SoakServer::HangUp() {
  process_->Signal(SIGHUP);
  ledger_.CountEvent("SIGHUP");
}

void SoakServer::Stop() {
  NextEpoch(absl::ZeroDuration());
  End(/*kill=*/false);
}

void SoakServer::Measure() { ledger_.AddMemory(absl::Now() - start_, ResidentBytes(process_->pid())); }

void SoakServer::NextEpoch(absl::Duration settle_time) {
  absl::MutexLock lock(&mutex_);
  ++epoch_;
  settled_ = absl::Now() + settle_time;
}

int64_t SoakServer::Epoch() const {
  absl::MutexLock lock(&mutex_);
  return absl::Now() < settled_ ? -1 : epoch_;
}

}  // namespace boss::testing
