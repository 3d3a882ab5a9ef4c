#include "server/engine/resolve_grid.h"

#include <gmock/gmock.h>

#include "tests/server/engine/resolve_request_fixture.h"

namespace boss::server {
namespace {

using ::testing::HasSubstr;
using testing::ResolveRequestTest;

using ResolveGridTest = ResolveRequestTest;

TEST_F(ResolveGridTest, ExplicitGridsMustRiseFromZeroToOne) {
  SampleRequest request = Request(1, 0);
  request.schedule = ScheduleSource::kExplicit;
  request.time_grid = {0, 0.5, 0.4, 1};
  ExpectFieldError(request, "time_grid", "");
  request.time_grid = {0, 0.5};
  ExpectFieldError(request, "time_grid", "");
  request.time_grid = {};
  ExpectFieldError(request, "time_grid", "");
  request.time_grid = {0, 0.3, 1};
  request.steps = 3;
  ExpectFieldError(request, "steps", "agree with time_grid, which has 2 steps, got 3");
  request.steps = 2;
  const auto resolved = Resolve(request);
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_EQ(resolved->accepted.time_grid, request.time_grid);
  EXPECT_EQ(resolved->accepted.schedule, ScheduleSource::kExplicit);
  request.schedule = ScheduleSource::kUniform;
  ExpectFieldError(request, "time_grid", "SCHEDULE_KIND_EXPLICIT");
}

TEST_F(ResolveGridTest, BellmanNeedsASearchedSchedule) {
  SampleRequest request = Request(1, 2);
  request.schedule = ScheduleSource::kBellman;
  auto resolved = Resolve(request);
  EXPECT_TRUE(absl::IsFailedPrecondition(resolved.status())) << resolved.status();
  EXPECT_EQ(ReasonOf(resolved.status()), "SCHEDULE_MISSING");
  EXPECT_THAT(std::string(resolved.status().message()), HasSubstr("OptimizeStepsizesJob"));
  EXPECT_THAT(std::string(resolved.status().message()), HasSubstr("vectors@1"));

  ASSERT_TRUE(store_->AddScheduleSet(vectors_, boss::testing::TinyScheduleSet(10)).ok());
  resolved = Resolve(request);
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_EQ(resolved->accepted.time_grid, (std::vector<double>{0, 0.1, 1}));
  EXPECT_EQ(resolved->accepted.schedule, ScheduleSource::kBellman);
  EXPECT_EQ(resolved->accepted.schedule_set, boss::testing::TinyScheduleSet(10).Name());

  request.steps = 11;
  ExpectFieldError(request, "steps", "10");
  request.steps = 2;
  request.class_labels = {1};
  request.guidance_scale = 3;  // a schedule belongs to one guidance scale
  EXPECT_TRUE(absl::IsFailedPrecondition(Resolve(request).status()));
  request = Request(1, 2);
  request.schedule = ScheduleSource::kBellman;
  request.solver = SolverKind::kHeun;
  ExpectFieldError(request, "solver", "heun");
  request.solver = SolverKind::kRk45;
  ExpectFieldError(request, "schedule", "rk45");
}

TEST_F(ResolveGridTest, TheBestScheduleIsBellmanWhereThereIsOne) {
  EXPECT_EQ(Resolve(Request(1, 2))->accepted.schedule, ScheduleSource::kUniform);
  ASSERT_TRUE(store_->AddScheduleSet(vectors_, boss::testing::TinyScheduleSet(10)).ok());
  EXPECT_EQ(Resolve(Request(1, 2))->accepted.schedule, ScheduleSource::kBellman);
  EXPECT_EQ(Resolve(Request(1, 11))->accepted.schedule, ScheduleSource::kUniform);
  SampleRequest heun = Request(1, 2);
  heun.solver = SolverKind::kHeun;
  const auto resolved = Resolve(heun);
  EXPECT_EQ(resolved->accepted.schedule, ScheduleSource::kUniform);
  EXPECT_EQ(resolved->accepted.nfe, 4);
}

TEST_F(ResolveGridTest, SchedulesCanBeNamed) {
  const StoredScheduleSet set = boss::testing::TinyScheduleSet(5);
  ASSERT_TRUE(store_->AddScheduleSet(vectors_, set).ok());
  ASSERT_TRUE(store_->AddScheduleSet(vectors_, boss::testing::TinyScheduleSet(10)).ok());
  SampleRequest request = Request(1, 2);
  request.schedule = ScheduleSource::kNamed;
  ExpectFieldError(request, "schedule_set", "required");
  request.schedule_set = set.Name();
  const auto resolved = Resolve(request);
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_EQ(resolved->accepted.time_grid, (std::vector<double>{0, 0.2, 1}));
  EXPECT_THAT(resolved->accepted.warnings, ::testing::IsEmpty());
  EXPECT_EQ(resolved->accepted.schedule, ScheduleSource::kNamed);
  EXPECT_EQ(resolved->accepted.schedule_set, set.Name());
  request.steps = 6;
  ExpectFieldError(request, "steps", "[1, 5]");
  request.schedule_set = "unheard-of";
  EXPECT_TRUE(absl::IsNotFound(Resolve(request).status()));
}

TEST_F(ResolveGridTest, AnotherSolverOrGuidanceScaleThanTheSchedulesIsWarnedOf) {
  StoredScheduleSet set = boss::testing::TinyScheduleSet(5, 1.5);
  set.client_name = "mine";
  ASSERT_TRUE(store_->AddScheduleSet(vectors_, set).ok());
  SampleRequest request = Request(1, 2);
  request.schedule = ScheduleSource::kNamed;
  request.schedule_set = "mine";
  request.class_labels = {1};
  request.guidance_scale = 1.5;
  EXPECT_THAT(Resolve(request)->accepted.warnings, ::testing::IsEmpty());
  request.solver = SolverKind::kHeun;
  request.guidance_scale = 3;
  const auto resolved = Resolve(request);
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_EQ(resolved->accepted.time_grid, (std::vector<double>{0, 0.2, 1}));
  EXPECT_EQ(resolved->accepted.nfe, 8);
  EXPECT_THAT(resolved->accepted.warnings, ::testing::ElementsAre(HasSubstr("made for euler, the solver is heun"),
                                                                  HasSubstr("guidance scale 1.5, the request's is 3")));
  // What a client named is used by name alone.
  request = Request(1, 2);
  request.class_labels = {1};
  request.guidance_scale = 1.5;
  EXPECT_EQ(Resolve(request)->accepted.schedule, ScheduleSource::kUniform);
}

TEST_F(ResolveGridTest, MultistepTakesTheTimesAndCoefficientsOfItsSet) {
  SampleRequest request = Request(1, 3);
  request.solver = SolverKind::kMultistep;
  auto resolved = Resolve(request);
  EXPECT_TRUE(absl::IsFailedPrecondition(resolved.status())) << resolved.status();
  EXPECT_EQ(ReasonOf(resolved.status()), "SCHEDULE_MISSING");
  EXPECT_THAT(std::string(resolved.status().message()), HasSubstr("OptimizeStepsizesJob"));
  EXPECT_THAT(std::string(resolved.status().message()), HasSubstr("max_multistep_steps: 3"));

  const StoredScheduleSet set = boss::testing::TinyMultistepSet(10, 4);
  ASSERT_TRUE(store_->AddScheduleSet(vectors_, boss::testing::TinyScheduleSet(20)).ok());
  ASSERT_TRUE(store_->AddScheduleSet(vectors_, set).ok());
  for (const ScheduleSource source : {ScheduleSource::kBest, ScheduleSource::kBellman, ScheduleSource::kNamed}) {
    request.schedule = source;
    request.schedule_set = source == ScheduleSource::kNamed ? set.Name() : "";
    resolved = Resolve(request);
    ASSERT_TRUE(resolved.ok()) << resolved.status();
    EXPECT_EQ(resolved->accepted.solver, SolverKind::kMultistep);
    EXPECT_EQ(resolved->accepted.schedule_set, "multistep-g1-k10");
    EXPECT_EQ(resolved->accepted.time_grid, (std::vector<double>{0, 0.1, 0.2, 1}));
    EXPECT_EQ(resolved->accepted.nfe, 3);
    EXPECT_THAT(resolved->accepted.warnings, ::testing::IsEmpty());
    EXPECT_EQ(resolved->solver.solver, SolverKind::kMultistep);
    EXPECT_EQ(resolved->solver.coefficients, set.set.schedules[2].coefficients);
  }
  request.schedule_set = boss::testing::TinyScheduleSet(20).Name();
  ExpectFieldError(request, "schedule_set", "is for euler");
  request = Request(1, 5);
  request.solver = SolverKind::kMultistep;
  ExpectFieldError(request, "steps", "[1, 4]");
  request.schedule = ScheduleSource::kUniform;
  ExpectFieldError(request, "schedule", "multistep");
  request.steps = 0;
  request.schedule = ScheduleSource::kExplicit;
  request.time_grid = {0, 0.1, 1};
  ExpectFieldError(request, "schedule", "multistep");
  // The Euler schedules are still Euler's.
  request = Request(1, 3);
  request.schedule = ScheduleSource::kBellman;
  EXPECT_EQ(Resolve(request)->accepted.schedule_set, "bellman-euler-g1-k20");
  request.schedule = ScheduleSource::kNamed;
  request.schedule_set = set.Name();
  resolved = Resolve(request);
  EXPECT_EQ(resolved->accepted.solver, SolverKind::kEuler);
  EXPECT_TRUE(resolved->solver.coefficients.empty());
  EXPECT_THAT(resolved->accepted.warnings,
              ::testing::ElementsAre(HasSubstr("made for multistep, the solver is euler")));
}

TEST_F(ResolveGridTest, AModelChoosesMultistepWhereThereIsAScheduleOfTheSteps) {
  SampleRequest request = Request(1, 3);
  request.default_solver = true;
  const auto solver = [&] { return Resolve(request)->accepted.solver; };
  EXPECT_EQ(solver(), SolverKind::kEuler);
  ASSERT_TRUE(store_->AddScheduleSet(vectors_, boss::testing::TinyScheduleSet(10)).ok());
  EXPECT_EQ(solver(), SolverKind::kEuler);
  ASSERT_TRUE(store_->AddScheduleSet(vectors_, boss::testing::TinyMultistepSet(10, 4)).ok());
  EXPECT_EQ(solver(), SolverKind::kMultistep);
  EXPECT_EQ(Resolve(request)->accepted.schedule_set, "multistep-g1-k10");
  request.steps = 5;  // there are none
  EXPECT_EQ(Resolve(request)->accepted.schedule_set, "bellman-euler-g1-k10");
  EXPECT_EQ(solver(), SolverKind::kEuler);
  request.steps = 3;
  request.schedule = ScheduleSource::kUniform;
  EXPECT_EQ(solver(), SolverKind::kEuler);
  request.schedule = ScheduleSource::kBellman;
  EXPECT_EQ(solver(), SolverKind::kEuler);
  request.schedule = ScheduleSource::kNamed;
  request.schedule_set = "multistep-g1-k10";
  EXPECT_EQ(solver(), SolverKind::kMultistep);
  request.schedule_set = "bellman-euler-g1-k10";
  EXPECT_EQ(solver(), SolverKind::kEuler);
  request = Request(1, 3);
  EXPECT_EQ(solver(), SolverKind::kEuler);  // which is asked for
  request.default_solver = true;
  // Euler schedules over a finer grid change nothing: that they have less error is not known.
  ASSERT_TRUE(store_->AddScheduleSet(vectors_, boss::testing::TinyScheduleSet(20)).ok());
  EXPECT_EQ(solver(), SolverKind::kMultistep);
}

TEST_F(ResolveGridTest, MultistepTakesTheFinestSetThatHasTheSteps) {
  ASSERT_TRUE(store_->AddScheduleSet(vectors_, boss::testing::TinyMultistepSet(10, 4)).ok());
  StoredScheduleSet fine = boss::testing::TinyMultistepSet(20, 2);
  fine.set.schedules[1].held_out_error = 0.5;  // against finer samples, so that it says nothing of the other set's
  ASSERT_TRUE(store_->AddScheduleSet(vectors_, fine).ok());
  const auto set = [&](int steps, bool by_default) {
    SampleRequest request = Request(1, steps);
    request.default_solver = by_default;
    if (!by_default) request.solver = SolverKind::kMultistep;
    const auto resolved = Resolve(request);
    return resolved.ok() ? resolved->accepted.schedule_set : resolved.status().ToString();
  };
  for (const bool by_default : {true, false}) {
    EXPECT_EQ(set(1, by_default), "multistep-g1-k20");
    EXPECT_EQ(set(2, by_default), "multistep-g1-k20");
    EXPECT_EQ(set(3, by_default), "multistep-g1-k10");
  }
  SampleRequest request = Request(1, 5);
  request.solver = SolverKind::kMultistep;
  ExpectFieldError(request, "steps", "[1, 4]");
}

TEST_F(ResolveGridTest, AGuidedRequestTakesTheMultistepSetOfItsScale) {
  const StoredScheduleSet guided = boss::testing::TinyMultistepSet(10, 4, 2);
  ASSERT_TRUE(store_->AddScheduleSet(vectors_, guided).ok());
  SampleRequest request = Request(1, 3);
  request.default_solver = true;
  EXPECT_EQ(Resolve(request)->accepted.solver, SolverKind::kEuler);
  request.class_labels = {1};
  request.guidance_scale = 2;
  const auto resolved = Resolve(request);
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_EQ(resolved->accepted.solver, SolverKind::kMultistep);
  EXPECT_EQ(resolved->accepted.schedule_set, "multistep-g2-k10");
  EXPECT_EQ(resolved->accepted.nfe, 6);
  EXPECT_EQ(resolved->solver.coefficients, guided.set.schedules[2].coefficients);
}

TEST_F(ResolveGridTest, AStraightenedVersionTakesTheCoefficientsThatWereFittedToIt) {
  Manifest manifest;
  manifest.architecture_json = boss::testing::kTinyVectorArchitecture;
  NativeSchedule native{"bellman", 1.0, 10, {}};
  native.schedule.knots = {0, 3, 10};
  native.schedule.time_grid = *TimeGrid::Create({0, 0.3, 1});
  native.schedule.solver = SolverKind::kMultistep;
  native.schedule.coefficients = {{1, {0.25}}, {0.875, {0.75, -0.125}}};
  manifest.schedules = {native};
  const auto key =
      store_->Publish("straight", manifest, boss::testing::TinyModel(manifest.architecture_json, 2)->State());
  ASSERT_TRUE(key.ok()) << key.status();
  SampleRequest request = Request(1, 2);
  request.default_solver = true;
  const auto chosen = Resolve(request, *key);
  ASSERT_TRUE(chosen.ok()) << chosen.status();
  EXPECT_EQ(chosen->accepted.solver, SolverKind::kMultistep);
  EXPECT_EQ(chosen->accepted.schedule, ScheduleSource::kBellman);
  EXPECT_EQ(chosen->accepted.time_grid, (std::vector<double>{0, 0.3, 1}));
  EXPECT_EQ(chosen->solver.coefficients, native.schedule.coefficients);
  // Euler's steps, which it was straightened for, are there for who asks.
  request.default_solver = false;
  const auto euler = Resolve(request, *key);
  ASSERT_TRUE(euler.ok()) << euler.status();
  EXPECT_EQ(euler->accepted.solver, SolverKind::kEuler);
  EXPECT_EQ(euler->accepted.time_grid, (std::vector<double>{0, 0.3, 1}));
  EXPECT_TRUE(euler->solver.coefficients.empty());
  // A later search, whose coefficients lead to the version's own fine samples, is not preferred.
  ASSERT_TRUE(store_->AddScheduleSet(*key, boss::testing::TinyMultistepSet(10, 4)).ok());
  request.solver = SolverKind::kMultistep;
  EXPECT_EQ(Resolve(request, *key)->solver.coefficients, native.schedule.coefficients);
  request.steps = 3;
  EXPECT_EQ(Resolve(request, *key)->accepted.schedule_set, "multistep-g1-k10");
}

TEST_F(ResolveGridTest, AnImportedSetHasTheStepsThatItHas) {
  StoredScheduleSet set;
  set.client_name = "ays";
  set.set.schedules.emplace_back().time_grid = *TimeGrid::Create({0, 0.1, 0.6, 1});
  ASSERT_TRUE(store_->AddScheduleSet(vectors_, set).ok());
  SampleRequest request = Request(1, 2);
  request.schedule = ScheduleSource::kNamed;
  request.schedule_set = "ays";
  ExpectFieldError(request, "steps", "one of 3, got 2");
  for (const int steps : {3, 0}) {  // the only one there is needs no number
    request.steps = steps;
    const auto resolved = Resolve(request);
    ASSERT_TRUE(resolved.ok()) << resolved.status();
    EXPECT_EQ(resolved->accepted.time_grid, (std::vector<double>{0, 0.1, 0.6, 1}));
  }
  set.set.schedules.emplace_back().time_grid = TimeGrid::Uniform(5);
  ASSERT_TRUE(store_->AddScheduleSet(vectors_, set).ok());
  ExpectFieldError(request, "steps", "one of 3, 5, got 12");
}

TEST_F(ResolveGridTest, StepsDefaultToTheVersionsThenTheServers) {
  EXPECT_EQ(Resolve(Request(1, 0))->accepted.steps, 12);
  Manifest manifest;
  manifest.architecture_json = boss::testing::kTinyVectorArchitecture;
  manifest.default_steps = 3;
  const auto key = store_->Publish("quick", manifest, boss::testing::TinyModel(manifest.architecture_json, 2)->State());
  ASSERT_TRUE(key.ok()) << key.status();
  EXPECT_EQ(Resolve(Request(1, 0), *key)->accepted.steps, 3);
}

}  // namespace
}  // namespace boss::server
