// The server is killed at every kind of disk operation: at the first, a middle and the last one that a script reaches.
#include <gmock/gmock.h>

#include <set>
#include <string>

#include "tests/fault/campaign.h"

namespace boss::testing {
namespace {

constexpr uint64_t kSeed = 1;
constexpr int64_t kOccurrences = 3;

TEST(EveryPointTest, NothingIsLostWhereverTheServerIsKilled) {
  Campaign campaign(BOSSD_FAULT_BINARY, kSeed);
  const std::map<std::string, int64_t> sites = campaign.CountSites();
  // The script is of use as long as it gets everywhere.
  for (const char* site :
       {"wal.write",        "wal.sync",     "wal.delete",  "journal.write", "journal.sync",     "state.create",
        "state.write",      "state.sync",   "state.close", "state.rename",  "state.syncfolder", "state.mkdir",
        "state.remove",     "store.create", "store.write", "store.sync",    "store.close",      "store.rename",
        "store.syncfolder", "store.mkdir",  "store.remove"})
    EXPECT_TRUE(sites.contains(site)) << site;
  std::set<std::string> wanted;
  for (const KillPoint& point : PointsOf(sites, kOccurrences)) {
    wanted.insert(point.Name());
    campaign.ScriptedRound(point);
  }
  campaign.Finish();
  EXPECT_THAT(campaign.findings().all(), ::testing::IsEmpty());
  // A middle or last occurrence may come no more when the jobs' timing is another; the first one does.
  for (const std::string& name : wanted) EXPECT_TRUE(campaign.kills().contains(name)) << name;
}

}  // namespace
}  // namespace boss::testing
