// Kills a working server at random points, starts it again, and looks whether anything that clients were told is gone.
//
//   soak --kills 100 [--seed S]                 ends with "100 kills, 0 lost", or with what was lost and exit status 1
//   soak --every-point [--occurrences N]        at each operation on the disk in turn, or at N of each site
#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "tests/fault/campaign.h"

namespace {

int Report(const boss::testing::Campaign& campaign) {
  std::printf("\n%-36s %s\n", "killed at", "times");
  for (const auto& [what, count] : campaign.kills())
    std::printf("%-36s %5ld\n", what.c_str(), static_cast<long>(count));
  std::printf("%-36s %5ld\n", "of them with power loss", static_cast<long>(campaign.num_power_losses()));
  const std::vector<std::string> findings = campaign.findings().all();
  for (const std::string& finding : findings) std::printf("lost: %s\n", finding.c_str());
  std::printf("\n%ld kills, %zu lost\n", static_cast<long>(campaign.num_kills()), findings.size());
  return findings.empty() ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Kills a server at random points and checks what it remembers");
  int64_t kills = 100, occurrences = 0;
  uint64_t seed = 1;
  bool every_point = false;
  std::string binary = BOSSD_FAULT_BINARY;
  app.add_option("--kills", kills, "How often the server is killed")->check(CLI::PositiveNumber);
  app.add_option("--seed", seed, "Of everything random");
  app.add_flag("--every-point", every_point, "Instead of random points, each one that the script reaches");
  app.add_option("--occurrences", occurrences, "With --every-point: operations of each site; 0 for all")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--binary", binary, "The bossd_fault to kill")->check(CLI::ExistingFile);
  CLI11_PARSE(app, argc, argv);

  boss::testing::Campaign campaign(binary, seed);
  const auto sites = campaign.CountSites();
  std::printf("%-20s %s\n", "site", "operations");
  for (const auto& [site, count] : sites) std::printf("%-20s %5ld\n", site.c_str(), static_cast<long>(count));
  if (every_point) {
    const auto points = boss::testing::PointsOf(sites, occurrences);
    int64_t missed = 0;
    for (size_t i = 0; i < points.size(); ++i) {
      if (!campaign.ScriptedRound(points[i])) ++missed;
      if ((i + 1) % 10 == 0)
        std::printf("%zu of %zu points, %ld not reached\n", i + 1, points.size(), static_cast<long>(missed));
      std::fflush(stdout);
    }
  } else {
    while (campaign.num_kills() < kills) {
      campaign.RandomRound(sites);
      if (campaign.num_kills() % 10 == 0) std::printf("%ld kills\n", static_cast<long>(campaign.num_kills()));
      std::fflush(stdout);
      if (campaign.findings().all().size() > 20) break;  // that says enough
    }
  }
  campaign.Finish();
  return Report(campaign);
}
