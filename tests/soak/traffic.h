// The clients of a soak run, one thread each.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/notification.h"
#include "tests/soak/ledger.h"
#include "tests/soak/soak_server.h"

namespace boss::testing {

// What every client has. All of it outlives the clients.
struct SoakRun {
  SoakServer& server;
  Ledger& ledger;
  absl::Notification& stop;  // no new requests
};

// A client's whole life: until run.stop. `seed`: of everything random that it does.
//
// Small requests of every kind, that must succeed.
void RunGoodClient(const SoakRun& run, uint64_t seed);
// Streams that are read slower than they come.
void RunSlowReader(const SoakRun& run, uint64_t seed);
// Streams that end early, by cancellation or deadline.
void RunImpatientClient(const SoakRun& run, uint64_t seed);
// What tests/support/hostile_traffic.h has, on both ports, and floods of cancelled streams.
void RunHostileClient(const SoakRun& run, uint64_t seed);
// Imports, loads, uses, exports, unloads and deletes models.
void RunModelClient(const SoakRun& run, uint64_t seed);

}  // namespace boss::testing
