// The jobs of a soak run: submitted, steered, watched and deleted, and none of them lost.
#pragma once

#include <map>
#include <random>
#include <set>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "client/boss_client.h"
#include "tests/soak/traffic.h"

namespace boss::testing {

// Every job that the server has accepted. `run` outlives it.
class JobClients {
 public:
  explicit JobClients(const SoakRun& run) : run_(run) {}

  // As the functions of traffic.h.
  void RunSubmitter(uint64_t seed) ABSL_LOCKS_EXCLUDED(mutex_);
  // Watches one job after the other, each from its first event to its last, over restarts.
  void RunWatcher(uint64_t seed) ABSL_LOCKS_EXCLUDED(mutex_);

  // After the others have returned: waits for every job's end. What has none is lost.
  void Finish() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  using Random = std::mt19937_64;

  void Submit(client::Client& client, Random& random) ABSL_LOCKS_EXCLUDED(mutex_);
  void Steer(client::Client& client, Random& random) ABSL_LOCKS_EXCLUDED(mutex_);
  // Asks for the state of each job that has not finished, as far as is known.
  void Look(client::Client& client) ABSL_LOCKS_EXCLUDED(mutex_);
  void DeleteOne(client::Client& client) ABSL_LOCKS_EXCLUDED(mutex_);
  std::set<std::string> Unfinished() const ABSL_LOCKS_EXCLUDED(mutex_);
  // "" if there is none.
  std::string AnyUnfinished(Random& random) const ABSL_LOCKS_EXCLUDED(mutex_);

  const SoakRun& run_;
  mutable absl::Mutex mutex_;
  std::set<std::string> unfinished_ ABSL_GUARDED_BY(mutex_), finished_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace boss::testing
