#include "server/rpc/convert_model.h"

#include <gtest/gtest.h>

#include <memory>
#include <utility>

#include "tests/support/tiny_models.h"

namespace boss::server {
namespace {

TEST(ConvertModelTest, TheDefaultSolverIsWhatARequestGetsThatNamesNothing) {
  VersionInfo info{.key = {"flow", 1}};
  info.manifest.default_steps = 3;
  ModelView view{.info = {.name = "flow", .versions = {info.key}, .latest = 1}, .shape = absl::UnknownError("")};
  view.versions.push_back({.key = info.key, .info = info});
  const auto solver = [&] { return ToProto(view, /*default_steps=*/4).default_solver(); };
  const auto add = [&](StoredScheduleSet stored) {
    view.versions.front().schedule_sets.push_back(std::make_shared<StoredScheduleSet>(std::move(stored)));
  };
  add(boss::testing::TinyScheduleSet(100));
  EXPECT_EQ(solver(), v1::SOLVER_EULER);
  add(boss::testing::TinyMultistepSet(10, 2));
  EXPECT_EQ(solver(), v1::SOLVER_EULER);  // none of 3 steps
  add(boss::testing::TinyMultistepSet(20, 3));
  EXPECT_EQ(solver(), v1::SOLVER_MULTISTEP);
  NativeSchedule native{"bellman", 1.0, 10, {}};
  native.schedule.time_grid = TimeGrid::Uniform(3);
  view.versions.front().info->manifest.schedules = {native};
  EXPECT_EQ(solver(), v1::SOLVER_EULER);
}

TEST(ConvertModelTest, MultistepSetsSayHowTheyWereFitted) {
  StoredScheduleSet stored = boss::testing::TinyMultistepSet(10, 2);
  stored.set.num_samples = 40;
  stored.set.num_held_out = 10;
  stored.set.refinement = 640;
  const v1::ScheduleSet proto = ToProto(VersionKey{"flow", 1}, stored, {});
  EXPECT_EQ(proto.num_samples(), 40);
  EXPECT_EQ(proto.num_held_out(), 10);
  EXPECT_EQ(proto.multistep_refinement(), 640);
}

}  // namespace
}  // namespace boss::server
