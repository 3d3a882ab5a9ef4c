// Rounds of work and kills: a server is started, checked, worked with and killed, again and again, on one data folder.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tests/fault/fault_server.h"
#include "tests/fault/findings.h"
#include "tests/fault/job_history.h"
#include "tests/fault/model_history.h"
#include "tests/support/fault_plan.h"
#include "tests/support/temp_folder.h"

namespace boss::testing {

// Where a process is killed.
struct KillPoint {
  std::string site;  // empty: at the n-th operation of all
  int64_t occurrence = 1;
  Fault::Action action = Fault::Action::kKillBefore;
  bool from_start = false;  // counts from the start of the process, not from the first work after the check
  bool power_loss = false;  // the disk forgets what was not flushed

  std::string Name() const;  // of site and action
};

// The points of a process with these sites: of each site up to `occurrences` of its operations, the first and the last
// among them, before, after and, where there is something to split, in the middle of each. 0: all operations. At
// every other occurrence the disk forgets what was not flushed, too.
std::vector<KillPoint> PointsOf(const std::map<std::string, int64_t>& sites, int64_t occurrences);

// Not thread-safe. The process goes away with it.
class Campaign {
 public:
  // `binary`: bossd_fault.
  Campaign(const std::string& binary, uint64_t seed);

  // Works through the script once, undisturbed, and stops the server: the operations by site.
  std::map<std::string, int64_t> CountSites();

  // One kill while random work goes on: at a random point of `sites`, while the server starts, or at a random moment.
  void RandomRound(const std::map<std::string, int64_t>& sites);
  // One kill while the script runs or, after it, while the server stops; returns whether the point was reached.
  bool ScriptedRound(const KillPoint& point);

  // Lets every job end, stops the server, starts it again, and checks everything once more.
  void Finish();

  const Findings& findings() const { return findings_; }
  // Kills so far, by KillPoint::Name; "random moment" where the server was killed from outside.
  const std::map<std::string, int64_t>& kills() const { return kills_; }
  int64_t num_kills() const;
  // Those among them after which the disk had forgotten what was not flushed.
  int64_t num_power_losses() const { return num_power_losses_; }

 private:
  enum class JobKind { kTrain, kTrainPictures, kOptimize, kDistill, kDistillLora, kEvaluate };

  JobRequest NewJob(JobKind kind);
  // A start without work that is killed there or not.
  void StartKilled();
  // Starts and checks. False if the server cannot serve.
  bool StartAndCheck(const std::string& plan, size_t repeats);
  // Every kind of operation once. False when the server has gone.
  bool RunScript();
  bool RandomOperation();
  // Lets all jobs run to their end. False when the server has gone.
  bool FinishJobs();
  // Deletes what has become much. False when the server has gone.
  bool Tidy();
  void CheckLeftovers();
  // The plan of a process that is killed at `point`.
  std::string PlanOf(const KillPoint& point) const;
  // What became of a process that was to be killed at `point`: minus its signal, its exit status, or nothing if it runs
  // and is killed from outside.
  void CountEnd(const std::optional<int>& end, const KillPoint& point);

  TempFolder folder_;
  Findings findings_;
  Random random_;
  FaultServer server_;
  JobHistory jobs_;
  ModelHistory models_;
  std::map<std::string, int64_t> kills_;
  int64_t num_power_losses_ = 0;
  int64_t next_job_ = 1;
  bool started_killed_ = false;
};

}  // namespace boss::testing
