// How long the Bellman recursion takes for every K at once.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <random>
#include <vector>

#include "core/stepsize/bellman.h"

int main() {
  std::printf("%8s %14s %14s\n", "k_max", "entries", "seconds");
  std::mt19937 random(1);
  std::uniform_real_distribution<double> uniform(0, 1);
  for (int k_max : {50, 100, 200, 500, 1000}) {
    std::vector<double> cost(static_cast<size_t>(k_max + 1) * (k_max + 1));
    for (double& c : cost) c = uniform(random);
    double best = 1e300;
    for (int round = 0; round < 3; ++round) {
      const auto start = std::chrono::steady_clock::now();
      const auto table = boss::BellmanTable::Solve(cost, k_max);
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      if (!table.ok()) {
        std::fprintf(stderr, "%s\n", table.status().ToString().c_str());
        return 1;
      }
      best = std::min(best, seconds);
    }
    std::printf("%8d %14zu %14.4f\n", k_max, cost.size(), best);
  }
  return 0;
}
