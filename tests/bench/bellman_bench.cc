// How long the Bellman recursions take on one core: for every K at once, and over pairs for up to as many steps as the
// server makes multistep schedules of by default.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <random>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "core/base/status_macros.h"
#include "core/stepsize/bellman.h"
#include "core/stepsize/pair_bellman.h"

namespace {

constexpr int kPairSteps = 8;

std::vector<double> RandomCosts(size_t count) {
  std::mt19937 random(1);
  std::uniform_real_distribution<double> uniform(0, 1);
  std::vector<double> costs(count);
  for (double& cost : costs) cost = uniform(random);
  return costs;
}

// Prints the least of three rounds.
absl::Status Time(const char* name, int k_max, size_t entries, absl::FunctionRef<absl::Status()> solve) {
  double best = 1e300;
  for (int round = 0; round < 3; ++round) {
    const auto start = std::chrono::steady_clock::now();
    BOSS_RETURN_IF_ERROR(solve());
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::printf("%-16s %8d %14zu %14.4f\n", name, k_max, entries, best);
  return absl::OkStatus();
}

absl::Status Run() {
  std::printf("%-16s %8s %14s %14s\n", "recursion", "k_max", "entries", "seconds");
  for (const int k_max : {50, 100, 200, 500, 1000}) {
    const std::vector<double> costs = RandomCosts(static_cast<size_t>(k_max + 1) * (k_max + 1));
    BOSS_RETURN_IF_ERROR(Time("every K", k_max, costs.size(),
                              [&] { return boss::BellmanTable::Solve(costs, k_max).status(); }));
  }
  for (const int k_max : {50, 100, 200, 256}) {
    const std::vector<double> first = RandomCosts(k_max + 1);
    const std::vector<double> pairs = RandomCosts(static_cast<size_t>(k_max) * (k_max + 1) * (k_max + 1));
    BOSS_RETURN_IF_ERROR(Time("pairs, K <= 8", k_max, pairs.size(), [&] {
      return boss::PairBellmanTable::Solve(first, pairs, k_max, kPairSteps).status();
    }));
  }
  return absl::OkStatus();
}

}  // namespace

int main() {
  const absl::Status status = Run();
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
