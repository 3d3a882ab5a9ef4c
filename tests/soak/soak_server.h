// The server of a soak run: ended and started again under its clients, always at the same ports.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "tests/soak/ledger.h"
#include "tests/support/server_process.h"
#include "tests/support/temp_folder.h"

namespace boss::testing {

// Start, Restart, HangUp, Stop and Measure by one thread; the rest is thread-safe.
class SoakServer {
 public:
  // With models "vectors" (2 numbers, 3 labels), "pictures" (8 x 8, 3 labels) and "wide" (65536 numbers).
  SoakServer(std::string binary, Ledger& ledger);

  absl::Status Start();
  // SIGTERM, which must end with 0, or SIGKILL; then a new process. \error if it does not start.
  absl::Status Restart(bool kill);
  void HangUp();
  // SIGTERM.
  void Stop();
  void Measure();

  int grpc_port() const { return ports_.grpc; }
  int metrics_port() const { return ports_.metrics; }
  std::string address() const;
  const TempFolder& folder() const { return folder_; }

  // To be taken when a request begins. When it has ended, WasDisturbed says whether it met a restart, or a client that
  // had not found the new process yet.
  int64_t Epoch() const ABSL_LOCKS_EXCLUDED(mutex_);
  bool WasDisturbed(int64_t epoch) const ABSL_LOCKS_EXCLUDED(mutex_) { return epoch % 2 != 0 || epoch != Epoch(); }

 private:
  void NextEpoch(absl::Duration settle_time) ABSL_LOCKS_EXCLUDED(mutex_);
  void End(bool kill);

  const std::string binary_;
  Ledger& ledger_;
  const TempFolder folder_;
  ServerPorts ports_;
  std::unique_ptr<ServerProcess> process_;
  absl::Time start_;
  mutable absl::Mutex mutex_;
  int64_t epoch_ ABSL_GUARDED_BY(mutex_) = 0;  // odd while the server is ending, down or starting
  absl::Time settled_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();  // when clients have found the process
};

}  // namespace boss::testing
