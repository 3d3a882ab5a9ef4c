#include "server/store/schedule_set.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/store/manifest.h"

namespace boss::server {
namespace {

StoredScheduleSet SmallSet() {
  StoredScheduleSet stored;
  stored.set.k_max = 2;
  stored.set.num_samples = 5;
  stored.set.guidance_scale = 2.5;
  stored.set.cost_matrix = {0, 0.1, 1.0 / 3, 0, 0, 0.2, 0, 0, 0};
  stored.set.schedules.resize(2);
  stored.set.schedules[0].knots = {0, 2};
  stored.set.schedules[0].total_cost = 1.0 / 3;
  stored.set.schedules[1].knots = {0, 1, 2};
  stored.set.schedules[1].time_grid = TimeGrid::Uniform(2);
  stored.set.schedules[1].total_cost = 0.1 + 0.2;
  stored.seed = ~uint64_t{0};
  stored.job_id = "job";
  return stored;
}

TEST(ScheduleSet, ReadsWhatItWrites) {
  const StoredScheduleSet stored = SmallSet();
  EXPECT_EQ(stored.Name(), "bellman-euler-g2.5-k2");
  const absl::StatusOr<StoredScheduleSet> read = ScheduleSetFromJson(ScheduleSetToJson(stored));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->set.cost_matrix, stored.set.cost_matrix);
  EXPECT_EQ(read->set.schedules[1].knots, stored.set.schedules[1].knots);
  EXPECT_EQ(read->set.schedules[1].time_grid, stored.set.schedules[1].time_grid);
  EXPECT_EQ(read->set.schedules[1].total_cost, stored.set.schedules[1].total_cost);
  EXPECT_EQ(read->seed, stored.seed);
  EXPECT_EQ(read->job_id, "job");
}

StoredScheduleSet MultistepSet() {
  StoredScheduleSet stored = SmallSet();
  stored.set.k_max = 2;
  stored.set.solver = SolverKind::kMultistep;
  stored.set.cost_matrix.clear();
  for (Schedule& schedule : stored.set.schedules) {
    schedule.solver = SolverKind::kMultistep;
    schedule.coefficients.push_back({1, {1.0 / 3}});
    schedule.fit_error = 0.1;
    schedule.held_out_error = 0.1 + 0.2;
  }
  stored.set.schedules[1].coefficients.push_back({0.9, {1.0 / 7, -1e-17}});
  return stored;
}

TEST(ScheduleSet, KeepsCoefficientsAndErrorsOfMultistep) {
  StoredScheduleSet stored = MultistepSet();
  EXPECT_EQ(stored.Name(), "multistep-g2.5-k2");
  const absl::StatusOr<StoredScheduleSet> read = ScheduleSetFromJson(ScheduleSetToJson(stored));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->set.solver, SolverKind::kMultistep);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(read->set.schedules[i].coefficients, stored.set.schedules[i].coefficients);
    EXPECT_EQ(read->set.schedules[i].solver, SolverKind::kMultistep);
    EXPECT_EQ(read->set.schedules[i].fit_error, 0.1);
    EXPECT_EQ(read->set.schedules[i].held_out_error, 0.1 + 0.2);
  }
  EXPECT_EQ(read->set.num_held_out, 0);  // as in a set that an earlier version has stored
  stored.set.num_held_out = 2;
  EXPECT_EQ(ScheduleSetFromJson(ScheduleSetToJson(stored))->set.num_held_out, 2);
  EXPECT_EQ(read->set.refinement, 0);
  stored.set.refinement = 640;
  EXPECT_EQ(ScheduleSetFromJson(ScheduleSetToJson(stored))->set.refinement, 640);
  // Not every K up to k_max has to be there.
  stored.set.schedules.pop_back();
  EXPECT_TRUE(CheckScheduleSet(stored).ok()) << CheckScheduleSet(stored);
  EXPECT_EQ(StepsText(stored.set), "in [1, 1] (max_multistep_steps of the schedules)");
}

TEST(ScheduleSet, RefusesCoefficientsThatNoSamplerCanUse) {
  const std::vector<std::function<void(ScheduleSet&)>> kCases = {
      [](ScheduleSet& set) { set.schedules[1].coefficients.pop_back(); },
      [](ScheduleSet& set) { set.schedules[1].coefficients[0].velocities.push_back(1); },  // of a step before the first
      [](ScheduleSet& set) { set.schedules[0].coefficients[0].state = std::nan(""); },
      [](ScheduleSet& set) { set.schedules[1].coefficients[1].velocities[1] = HUGE_VAL; },
      [](ScheduleSet& set) { set.schedules[1].coefficients[1].velocities.clear(); },
      [](ScheduleSet& set) { set.schedules[0].fit_error = HUGE_VAL; },
      [](ScheduleSet& set) { set.schedules[1].held_out_error = std::nan(""); },
      [](ScheduleSet& set) { set.cost_matrix.assign(9, 0); },
      [](ScheduleSet& set) { set.schedules.clear(); },
  };
  ASSERT_TRUE(CheckScheduleSet(MultistepSet()).ok());
  for (size_t i = 0; i < kCases.size(); ++i) {
    StoredScheduleSet stored = MultistepSet();
    kCases[i](stored.set);
    EXPECT_EQ(CheckScheduleSet(stored).code(), absl::StatusCode::kInvalidArgument) << i;
  }
  StoredScheduleSet imported = MultistepSet();
  imported.client_name = "mine";
  imported.set.k_max = 0;
  EXPECT_EQ(CheckScheduleSet(imported).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CheckScheduleSetName("name", "multistep-mine").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(CheckScheduleSetName("name", "my-multistep").ok());
}

TEST(ScheduleSet, OnlySamplesOfMultistepAreHeldOut) {
  const std::pair<StoredScheduleSet, int> kCases[] = {{MultistepSet(), -1}, {MultistepSet(), 6}, {SmallSet(), 1}};
  for (auto [stored, num_held_out] : kCases) {
    stored.set.num_held_out = num_held_out;
    EXPECT_EQ(CheckScheduleSet(stored).code(), absl::StatusCode::kInvalidArgument) << num_held_out;
    EXPECT_EQ(ScheduleSetFromJson(ScheduleSetToJson(stored)).status().code(), absl::StatusCode::kDataLoss);
  }
}

TEST(ScheduleSet, OnlyTimesOfMultistepAreRefined) {
  const std::pair<StoredScheduleSet, int64_t> kCases[] = {{MultistepSet(), -1}, {SmallSet(), 1}};
  for (auto [stored, refinement] : kCases) {
    stored.set.refinement = refinement;
    EXPECT_EQ(CheckScheduleSet(stored).code(), absl::StatusCode::kInvalidArgument) << refinement;
    EXPECT_EQ(ScheduleSetFromJson(ScheduleSetToJson(stored)).status().code(), absl::StatusCode::kDataLoss);
  }
}

TEST(ScheduleSet, IntegersMustFit) {
  const std::string text = ScheduleSetToJson(SmallSet());
  const std::pair<const char*, const char*> kCases[] = {
      {"\"seed\":18446744073709551615", "\"seed\":18446744073709551616"},
      {"\"seed\":18446744073709551615", "\"seed\":-1"},
      {"\"k_max\":2", "\"k_max\":2.0"},
      {"\"k_max\":2", "\"k_max\":1e300"},
      {"\"knots\":[0,1,2]", "\"knots\":[0,1e300,2]"},
      {"\"knots\":[0,1,2]", "\"knots\":[0,4294967297,2]"},
  };
  ASSERT_TRUE(ScheduleSetFromJson(text).ok());
  for (const auto& [from, to] : kCases) {
    std::string changed = text;
    ASSERT_NE(changed.find(from), std::string::npos) << from;
    changed.replace(changed.find(from), std::string(from).size(), to);
    EXPECT_EQ(ScheduleSetFromJson(changed).status().code(), absl::StatusCode::kDataLoss) << to;
  }
}

TEST(ScheduleSet, RefusesWhatIsNoPathThroughTheGrid) {
  StoredScheduleSet broken = SmallSet();
  broken.set.schedules[1].knots = {0, 2, 2};
  EXPECT_EQ(ScheduleSetFromJson(ScheduleSetToJson(broken)).status().code(), absl::StatusCode::kDataLoss);
  broken = SmallSet();
  broken.set.schedules.pop_back();
  EXPECT_EQ(ScheduleSetFromJson(ScheduleSetToJson(broken)).status().code(), absl::StatusCode::kDataLoss);
  broken = SmallSet();
  broken.set.cost_matrix.pop_back();
  EXPECT_EQ(ScheduleSetFromJson(ScheduleSetToJson(broken)).status().code(), absl::StatusCode::kDataLoss);
}

TEST(ScheduleSet, KeepsAnUnevenFineGridAndANameOfTheClients) {
  StoredScheduleSet stored = SmallSet();
  const TimeGrid fine_grid = *TimeGrid::Create({0, 0.9, 1});
  stored.set.fine_grid = fine_grid;
  stored.set.schedules[1].time_grid = fine_grid;
  // The server's name tells the grid from the uniform one, and from every other one.
  const std::string name = stored.Name();
  EXPECT_EQ(name.substr(0, 22), "bellman-euler-g2.5-k2-");
  EXPECT_EQ(name.size(), 30u);
  StoredScheduleSet other = stored;
  other.set.fine_grid = *TimeGrid::Create({0, 0.8, 1});
  EXPECT_NE(other.Name(), name);
  stored.client_name = "edm";
  EXPECT_EQ(stored.Name(), "edm");
  const absl::StatusOr<StoredScheduleSet> read = ScheduleSetFromJson(ScheduleSetToJson(stored));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->Name(), "edm");
  EXPECT_EQ(read->set.fine_grid, fine_grid);
  EXPECT_EQ(read->set.schedules[0].time_grid, TimeGrid());
  EXPECT_EQ(read->set.schedules[1].time_grid, fine_grid);
}

TEST(ScheduleSet, AFineGridThatIsUniformIsNone) {
  std::string text = ScheduleSetToJson(SmallSet());
  text.insert(1, "\"fine_times\":[0,0.5,1],");
  const absl::StatusOr<StoredScheduleSet> read = ScheduleSetFromJson(text);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_FALSE(read->set.fine_grid.has_value());
}

StoredScheduleSet ImportedSet() {
  StoredScheduleSet stored;
  stored.client_name = "ays";
  stored.set.solver = SolverKind::kHeun;
  for (const TimeGrid& grid : {*TimeGrid::Create({0, 1.0 / 3, 1}), *TimeGrid::Create({0, 0.1, 0.2, 0.3, 1})}) {
    Schedule& schedule = stored.set.schedules.emplace_back();
    schedule.time_grid = grid;
    schedule.solver = SolverKind::kHeun;
  }
  return stored;
}

TEST(ScheduleSet, KeepsTimesFromElsewhere) {
  const StoredScheduleSet stored = ImportedSet();
  EXPECT_FALSE(stored.set.searched());
  const absl::StatusOr<StoredScheduleSet> read = ScheduleSetFromJson(ScheduleSetToJson(stored));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->Name(), "ays");
  ASSERT_EQ(read->set.schedules.size(), 2u);
  EXPECT_EQ(read->set.Find(2)->time_grid, stored.set.schedules[0].time_grid);
  EXPECT_EQ(read->set.Find(4)->time_grid, stored.set.schedules[1].time_grid);
  EXPECT_EQ(read->set.Find(3), nullptr);
  EXPECT_EQ(read->set.schedules[0].solver, SolverKind::kHeun);
  EXPECT_EQ(StepsText(read->set), "one of 2, 4");
  EXPECT_EQ(StepsText(SmallSet().set), "in [1, 2] (k_max of the schedules)");
}

TEST(ScheduleSet, RefusesWhatIsIncomplete) {
  StoredScheduleSet nameless = ImportedSet();
  nameless.client_name.clear();
  StoredScheduleSet empty = ImportedSet();
  empty.set.schedules.clear();
  StoredScheduleSet unsorted = ImportedSet();
  std::swap(unsorted.set.schedules[0], unsorted.set.schedules[1]);
  StoredScheduleSet twice = ImportedSet();
  twice.set.schedules[1] = twice.set.schedules[0];
  StoredScheduleSet wrong_grid = SmallSet();
  wrong_grid.set.fine_grid = TimeGrid::Uniform(3);
  StoredScheduleSet reserved = SmallSet();
  reserved.client_name = "bellman-mine";
  for (const StoredScheduleSet& set : {nameless, empty, unsorted, twice, wrong_grid, reserved}) {
    EXPECT_EQ(CheckScheduleSet(set).code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(ScheduleSetFromJson(ScheduleSetToJson(set)).status().code(), absl::StatusCode::kDataLoss);
  }
}

TEST(ScheduleSet, NamesOfTheServersAreReserved) {
  for (const char* name : {"ays", "my.grid-2", "uniform-ish", "edm7"}) {
    EXPECT_TRUE(CheckScheduleSetName("name", name).ok()) << name;
  }
  for (const char* name : {"", "uniform", "bellman", "bellman-euler-g1-k100", "fine", "straightened", "reflow", "auto",
                           "named", "explicit", "heun", "multistep", "multistep-g1-k100", "straightened-multistep",
                           "Upper", "a/b", "../a"}) {
    EXPECT_EQ(CheckScheduleSetName("name", name).code(), absl::StatusCode::kInvalidArgument) << name;
  }
}

TEST(ScheduleSet, ASetThatGotItsNameBeforeItWasReservedIsRead) {
  StoredScheduleSet stored = ImportedSet();
  for (const char* name : {"heun", "multistep", "straightened-multistep"}) {
    stored.client_name = name;
    const absl::StatusOr<StoredScheduleSet> read = ScheduleSetFromJson(ScheduleSetToJson(stored));
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(read->Name(), name);
  }
}

TEST(ScheduleSet, TellsWhatItWasNotMadeFor) {
  const StoredScheduleSet stored = ImportedSet();
  EXPECT_TRUE(Mismatches(stored, SolverKind::kHeun, 1).empty());
  const std::vector<std::string> both = Mismatches(stored, SolverKind::kEuler, 2.5);
  ASSERT_EQ(both.size(), 2u);
  EXPECT_EQ(both[0], "the schedule set ays was made for heun, the solver is euler");
  EXPECT_EQ(both[1], "the schedule set ays was made for guidance scale 1, the request's is 2.5");
}

}  // namespace
}  // namespace boss::server
