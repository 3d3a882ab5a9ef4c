#include "server/store/schedule_choice.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/tiny_models.h"

namespace boss::server {
namespace {

using boss::testing::TinyMultistepSet;
using boss::testing::TinyScheduleSet;
using Sets = std::vector<std::shared_ptr<const StoredScheduleSet>>;

void Add(Sets& sets, StoredScheduleSet set) { sets.push_back(std::make_shared<StoredScheduleSet>(std::move(set))); }

// The name of the chosen set; empty: none.
std::string Chosen(const Sets& sets, int steps, SolverKind solver = SolverKind::kMultistep, double guidance_scale = 1) {
  const auto chosen = ChooseScheduleSet(sets, guidance_scale, solver, steps);
  return chosen == nullptr ? "" : chosen->Name();
}

TEST(ScheduleChoice, TakesTheSetThatHasTheSteps) {
  Sets sets;
  EXPECT_EQ(Chosen(sets, 3), "");
  Add(sets, TinyMultistepSet(200, 4));
  Add(sets, TinyMultistepSet(100, 8));
  EXPECT_EQ(Chosen(sets, 8), "multistep-g1-k100");
  EXPECT_EQ(Chosen(sets, 0), "multistep-g1-k200");
  // What says of how many steps there are schedules.
  EXPECT_EQ(Chosen(sets, 9), "multistep-g1-k100");
  EXPECT_EQ(Chosen(sets, 8, SolverKind::kEuler), "");
  EXPECT_EQ(Chosen(sets, 8, SolverKind::kMultistep, 2), "");
  StoredScheduleSet named = TinyMultistepSet(300, 9);
  named.client_name = "mine";
  Add(sets, std::move(named));
  EXPECT_EQ(Chosen(sets, 9), "multistep-g1-k100");
}

TEST(ScheduleChoice, OfMultistepSetsWithTheStepsTakesTheFinest) {
  StoredScheduleSet coarse = TinyMultistepSet(10, 4), fine = TinyMultistepSet(20, 3);
  coarse.set.schedules[1].held_out_error = 0.2;
  fine.set.schedules[1].held_out_error = 0.25;  // against finer samples
  Sets sets;
  Add(sets, coarse);
  Add(sets, fine);
  EXPECT_EQ(Chosen(sets, 2), "multistep-g1-k20");
  EXPECT_EQ(Chosen(sets, 3), "multistep-g1-k20");
  EXPECT_EQ(Chosen(sets, 4), "multistep-g1-k10");  // alone has them
}

TEST(ScheduleChoice, OfEulersSetsTakesTheFinestThenTheNewest) {
  Sets sets;
  Add(sets, TinyScheduleSet(20));
  Add(sets, TinyScheduleSet(10));
  for (const int steps : {0, 3, 15, 30}) EXPECT_EQ(Chosen(sets, steps, SolverKind::kEuler), "bellman-euler-g1-k20");
  StoredScheduleSet newer = TinyScheduleSet(20);
  newer.create_time = absl::FromUnixSeconds(1000);
  Add(sets, newer);
  EXPECT_EQ(ChooseScheduleSet(sets, 1, SolverKind::kEuler, 3), sets.back());
}

TEST(ScheduleChoice, MultistepIsPreferredWhereThereIsAScheduleOfSoManySteps) {
  Manifest manifest;
  Sets sets;
  EXPECT_FALSE(PrefersMultistep(manifest, sets, 1, 3));
  Add(sets, TinyScheduleSet(10));
  EXPECT_FALSE(PrefersMultistep(manifest, sets, 1, 3));
  Add(sets, TinyMultistepSet(10, 4));
  EXPECT_TRUE(PrefersMultistep(manifest, sets, 1, 3));
  EXPECT_FALSE(PrefersMultistep(manifest, sets, 1, 5));
  EXPECT_FALSE(PrefersMultistep(manifest, sets, 2, 3));
  // Whatever is known of Euler's steps over a finer grid.
  Add(sets, TinyScheduleSet(200));
  EXPECT_TRUE(PrefersMultistep(manifest, sets, 1, 3));
  Add(sets, TinyMultistepSet(10, 4, 2));
  EXPECT_TRUE(PrefersMultistep(manifest, sets, 2, 3));

  NativeSchedule native{"bellman", 1.0, 10, {}};
  native.schedule.time_grid = *TimeGrid::Create({0, 0.3, 0.6, 1});
  manifest.schedules = {native};
  EXPECT_EQ(FindNativeSchedule(manifest, 3, 1), &manifest.schedules[0]);
  EXPECT_EQ(FindNativeSchedule(manifest, 3, 2), nullptr);
  EXPECT_FALSE(PrefersMultistep(manifest, sets, 1, 3));
  EXPECT_TRUE(PrefersMultistep(manifest, sets, 1, 4));
  EXPECT_TRUE(PrefersMultistep(manifest, sets, 2, 3));
  manifest.schedules[0].schedule.solver = SolverKind::kMultistep;
  EXPECT_TRUE(PrefersMultistep(manifest, {}, 1, 3));
}

}  // namespace
}  // namespace boss::server
