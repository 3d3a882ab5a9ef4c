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

TEST(ConvertModelTest, AVersionsOwnScheduleIsASetWithoutAName) {
  VersionInfo version{.key = {"flow", 2}};
  version.manifest.job_id = "7";
  NativeSchedule native{"bellman", 1.5, 10, {.knots = {0, 4, 10}, .time_grid = *TimeGrid::Create({0, 0.4, 1})}};
  native.schedule.solver = SolverKind::kMultistep;
  native.schedule.coefficients = {{1, {0.4}}, {0.9, {0.6, 0.1}}};
  native.schedule.held_out_error = 0.25;
  native.num_samples = 40;
  native.num_held_out = 10;
  const v1::ScheduleSet fitted = ToProto(version, native, SolverKind::kMultistep);
  EXPECT_EQ(fitted.name(), "");
  EXPECT_EQ(fitted.model(), "flow@2");
  EXPECT_EQ(fitted.kind(), v1::SCHEDULE_KIND_BELLMAN);
  EXPECT_EQ(fitted.k_max(), 10);
  EXPECT_EQ(fitted.guidance_scale(), 1.5);
  EXPECT_EQ(fitted.job(), "jobs/7");
  EXPECT_EQ(fitted.solver(), v1::SOLVER_MULTISTEP);
  EXPECT_EQ(fitted.num_samples(), 40);
  EXPECT_EQ(fitted.num_held_out(), 10);
  ASSERT_EQ(fitted.schedules_size(), 1);
  EXPECT_EQ(fitted.schedules(0).coefficients_size(), 2);
  EXPECT_EQ(fitted.schedules(0).held_out_error(), 0.25);
  // As it was trained.
  const v1::ScheduleSet trained = ToProto(version, native, SolverKind::kEuler);
  EXPECT_EQ(trained.solver(), v1::SOLVER_EULER);
  EXPECT_EQ(trained.num_samples(), 0);
  EXPECT_EQ(trained.schedules(0).time_grid_size(), 3);
  EXPECT_EQ(trained.schedules(0).coefficients_size(), 0);
  EXPECT_FALSE(trained.schedules(0).has_held_out_error());
  native.kind = "uniform";
  EXPECT_EQ(ToProto(version, native, SolverKind::kEuler).kind(), v1::SCHEDULE_KIND_UNIFORM);
}

}  // namespace
}  // namespace boss::server
