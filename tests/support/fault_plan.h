// Where and how the disk fails: the failpoints of the tests, which no production code contains.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "tests/support/power_loss.h"

namespace boss::testing {

// A site is "<area>.<operation>". Areas: "journal" (the database), "wal" (its write-ahead log), "state" (training
// states and pairs), "store" (models, staging, uploads, quarantine) and "other". Operations of files: create, write,
// sync, close, rename, link, mkdir, remove, syncfolder; of the database's: write, sync, truncate, delete.
struct Fault {
  enum class Action {
    kKillBefore,  // SIGKILL to the own process before the operation,
    kKillHalf,   // in the middle: half of the bytes are written, half of a folder's entries removed; else as before it,
    kKillAfter,  // or after it
    kFail,       // the operation fails and has done nothing
    kFailHalf,   // the operation fails in the middle: a short write
  };
  std::string site;        // empty: any
  int64_t occurrence = 1;  // of that site, from 1
  Action action = Action::kFail;
  int error = 0;         // errno, of a failure
  bool lasting = false;  // every later occurrence fails too
};

std::string FaultActionName(Fault::Action action);

// Every disk operation goes through Run. Thread-safe.
class FaultPlan {
 public:
  FaultPlan() = default;
  // Counts and, if `armed`, causes `fault`.
  explicit FaultPlan(Fault fault, bool armed = true) : armed_(armed) { SetFault(std::move(fault)); }

  // "site=wal.sync n=3 do=kill-before"; do: kill-before, kill-half, kill-after, fail, fail-half; with a failure also
  // error=ENOSPC and lasting=1. Beside or in place of it "counts=FILE" (see WriteCounts) and "unarmed=1": nothing is
  // counted and nothing happens before Arm(); "attic=FOLDER": a kill is a power failure (see PowerLoss), and no
  // operation runs beside another. \error INVALID_ARGUMENT.
  static absl::StatusOr<std::unique_ptr<FaultPlan>> Parse(absl::string_view text);

  // From now on operations count, from 1. Async-signal-safe.
  void Arm() { armed_.store(true, std::memory_order_relaxed); }

  // Starts counting again, with this fault or none.
  void Reset(std::optional<Fault> fault = std::nullopt) ABSL_LOCKS_EXCLUDED(mutex_);

  // Performs an operation, or fails: the result is an errno, 0 where `whole` was called. `whole` is the operation and
  // `half` half of it.
  int Run(absl::string_view site, absl::FunctionRef<void()> whole, absl::FunctionRef<void()> half)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // For the operations to tell what they do; nullptr unless a kill is a power failure.
  PowerLoss* power_loss() const { return power_loss_.get(); }

  // Operations so far, by site.
  std::map<std::string, int64_t> counts() const ABSL_LOCKS_EXCLUDED(mutex_);
  // Whether the fault has happened.
  bool happened() const ABSL_LOCKS_EXCLUDED(mutex_);
  // One line "<site> <count>" a site, to the file that the plan's text names; nothing if it names none.
  void WriteCounts() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void SetFault(Fault fault) ABSL_LOCKS_EXCLUDED(mutex_);
  // Counts the operation; the fault if it is to happen now.
  std::optional<Fault> Next(absl::string_view site) ABSL_LOCKS_EXCLUDED(mutex_);

  int RunNow(absl::string_view site, absl::FunctionRef<void()> whole, absl::FunctionRef<void()> half)
      ABSL_LOCKS_EXCLUDED(mutex_);
  [[noreturn]] void Kill();

  std::atomic<bool> armed_ = true;
  std::unique_ptr<PowerLoss> power_loss_;
  std::string counts_file_;
  mutable absl::Mutex mutex_;
  std::optional<Fault> fault_ ABSL_GUARDED_BY(mutex_);
  int64_t matches_ ABSL_GUARDED_BY(mutex_) = 0;  // operations at the fault's site
  bool happened_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<std::string, int64_t> counts_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace boss::testing
