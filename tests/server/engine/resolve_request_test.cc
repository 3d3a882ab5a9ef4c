#include "server/engine/resolve_request.h"

#include <gmock/gmock.h>

#include <limits>

#include "core/base/error_details.h"
#include "tests/server/engine/engine_fixture.h"

namespace boss::server {
namespace {

using ::testing::HasSubstr;

class ResolveRequestTest : public testing::EngineTest {
 protected:
  absl::StatusOr<ResolvedRequest> Resolve(const SampleRequest& request, const VersionKey& key) {
    const absl::Status checked = CheckRequest(request, limits_);
    if (!checked.ok()) return checked;
    absl::Notification loaded;
    absl::StatusOr<std::shared_ptr<const LoadedModel>> model = absl::UnknownError("");
    registry_->Acquire(key, [&](absl::StatusOr<std::shared_ptr<const LoadedModel>> result) {
      model = std::move(result);
      loaded.Notify();
    });
    loaded.WaitForNotification();
    EXPECT_TRUE(model.ok()) << model.status();
    return ResolveRequest(request, *model, *store_, limits_);
  }
  absl::StatusOr<ResolvedRequest> Resolve(const SampleRequest& request) { return Resolve(request, vectors_); }

  void ExpectFieldError(const SampleRequest& request, const std::string& field, const std::string& part) {
    const auto resolved = Resolve(request);
    EXPECT_TRUE(absl::IsInvalidArgument(resolved.status())) << resolved.status();
    EXPECT_EQ(FieldOf(resolved.status()), field);
    EXPECT_THAT(std::string(resolved.status().message()), HasSubstr(part));
  }

  SamplingLimits limits_ = {.max_samples_per_request = 100, .max_steps = 50, .default_steps = 12};
};

TEST_F(ResolveRequestTest, EachWrongFieldIsNamed) {
  SampleRequest request = Request();
  request.model = "";
  ExpectFieldError(request, "model", "required");
  request = Request();
  request.num_samples = 101;
  ExpectFieldError(request, "num_samples", "[1, 100], got 101");
  request.num_samples = 0;
  ExpectFieldError(request, "num_samples", "got 0");
  limits_.max_pixels_per_request = 8;  // four samples of two values
  request.num_samples = 4;
  EXPECT_TRUE(Resolve(request).ok());
  request.num_samples = 5;
  ExpectFieldError(request, "num_samples", "at most 4 for samples of 2 pixels each");
  request = Request();
  request.steps = -1;
  ExpectFieldError(request, "steps", "got -1");
  request.steps = 51;
  ExpectFieldError(request, "steps", "[1, 50]");
  request = Request();
  request.guidance_scale = std::numeric_limits<double>::quiet_NaN();
  ExpectFieldError(request, "guidance_scale", "finite");
  request.guidance_scale = 2;
  ExpectFieldError(request, "guidance_scale", "no labels");
  request = Request();
  request.rtol = 0;
  ExpectFieldError(request, "rtol", "above 0");
  request = Request();
  request.atol = -1;
  ExpectFieldError(request, "atol", "above 0");
  request = Request();
  request.preview_interval = -1;
  ExpectFieldError(request, "preview_interval", "got -1");
  request = Request();
  request.priority = 101;
  ExpectFieldError(request, "priority", "got 101");
}

TEST_F(ResolveRequestTest, LabelsMustFitTheModelAndTheSamples) {
  SampleRequest request = Request(3);
  request.class_labels = {3};
  ExpectFieldError(request, "class_labels", "[0, 3), or -1 for no label, got 3");
  request.class_labels = {-2};
  ExpectFieldError(request, "class_labels", "got -2");
  request.class_labels = {0, 1};
  ExpectFieldError(request, "class_labels", "none, 1 or 3");
  request.class_labels = {2};
  auto resolved = Resolve(request);
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_TRUE(resolved->condition.class_labels.equal(at::tensor(std::vector<int64_t>{2, 2, 2})));
  request.class_labels = {0, -1, 1};
  resolved = Resolve(request);
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_TRUE(resolved->condition.class_labels.equal(at::tensor(std::vector<int64_t>{0, 3, 1})));
}

TEST_F(ResolveRequestTest, NegativeLabelsAreForGuidance) {
  SampleRequest request = Request(2);
  request.negative_class_labels = {1};
  ExpectFieldError(request, "negative_class_labels", "guidance_scale is 1");
  request.guidance_scale = 2;
  ExpectFieldError(request, "guidance_scale", "no labels");
  request.class_labels = {0};
  request.negative_class_labels = {3};
  ExpectFieldError(request, "negative_class_labels", "[0, 3)");
  request.negative_class_labels = {1, -1};
  const auto resolved = Resolve(request);
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_TRUE(resolved->condition.negative_class_labels.equal(at::tensor(std::vector<int64_t>{1, 3})));
}

TEST_F(ResolveRequestTest, ConditionsMustFitTheModelAndTheSamples) {
  SampleRequest request = Request(3);
  request.conditions["embedding"] = at::ones({3, 3});
  ExpectFieldError(request, "conditions", "the model takes none, got \"embedding\"");

  const VersionKey conditioned =
      boss::testing::PublishTinyModel(*store_, "conditioned", boss::testing::kTinyConditionedArchitecture);
  const auto expect_error = [&](const std::string& part) {
    const auto resolved = Resolve(request, conditioned);
    EXPECT_TRUE(absl::IsInvalidArgument(resolved.status())) << resolved.status();
    EXPECT_EQ(FieldOf(resolved.status()), "conditions");
    EXPECT_THAT(std::string(resolved.status().message()), HasSubstr(part));
  };
  request.conditions = {{"text", at::ones({3, 3})}};
  expect_error("the model takes embedding, got \"text\"");
  request.conditions = {{"embedding", at::ones({2, 3})}};
  expect_error("[3, 3], or 1 in place of num_samples, got [2, 3]");
  request.conditions = {{"embedding", at::ones({1, 4})}};
  expect_error("[1, 3], got [1, 4]");
  request.conditions = {{"embedding", at::ones({3, 3}, at::kLong)}};
  expect_error("of type Float, got Long");
  request.conditions = {{"embedding", at::full({3, 3}, std::numeric_limits<float>::infinity())}};
  expect_error("finite");
  limits_.max_condition_bytes = 35;
  request.conditions = {{"embedding", at::ones({3, 3})}};
  expect_error("at most 35 bytes together, got 36");
  limits_.max_condition_bytes = 72;
  request.negative_conditions = {{"embedding", at::ones({1, 3})}};
  EXPECT_EQ(FieldOf(Resolve(request, conditioned).status()), "negative_conditions");

  request.guidance_scale = 2;
  request.conditions = {{"embedding", at::ones({1, 3}, at::kDouble) * 2}};
  const auto resolved = Resolve(request, conditioned);
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_TRUE(at::equal(FindTensor(resolved->condition.tensors, "embedding"), at::full({3, 3}, 2.0F)));
  EXPECT_TRUE(at::equal(FindTensor(resolved->condition.negative_tensors, "embedding"), at::ones({3, 3})));
  EXPECT_EQ(resolved->accepted.nfe, 8);
}

TEST_F(ResolveRequestTest, NoiseMustHaveTheSamplesShape) {
  SampleRequest request = Request(2);
  request.initial_noise = {1, 2, 3, 4};
  request.initial_noise_shape = {2, 1, 2};
  ExpectFieldError(request, "initial_noise", "must have the shape [2, 2], got [2, 1, 2]");
  request.initial_noise_shape = {2, 2};
  request.initial_noise.pop_back();
  ExpectFieldError(request, "initial_noise", "with 3 values");
  request.initial_noise.push_back(std::numeric_limits<float>::infinity());
  ExpectFieldError(request, "initial_noise", "finite");
}

TEST_F(ResolveRequestTest, FormatsMustSuitTheSamples) {
  SampleRequest request = Request();
  request.format = SampleFormat::kPng;
  ExpectFieldError(request, "output_format", "the model's are [2]");
  request.format = SampleFormat::kUint8;
  ExpectFieldError(request, "output_format", "the model's are [2]");
  EXPECT_EQ(Resolve(Request())->format, SampleFormat::kFloat32);
  const VersionKey images = boss::testing::PublishTinyModel(*store_, "images", boss::testing::kTinyImageArchitecture);
  EXPECT_EQ(Resolve(Request(), images)->format, SampleFormat::kPng);
}

TEST_F(ResolveRequestTest, ExplicitGridsMustRiseFromZeroToOne) {
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

TEST_F(ResolveRequestTest, BellmanNeedsASearchedSchedule) {
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

TEST_F(ResolveRequestTest, TheBestScheduleIsBellmanWhereThereIsOne) {
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

TEST_F(ResolveRequestTest, SchedulesCanBeNamed) {
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

TEST_F(ResolveRequestTest, AnotherSolverOrGuidanceScaleThanTheSchedulesIsWarnedOf) {
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

TEST_F(ResolveRequestTest, MultistepTakesTheTimesAndCoefficientsOfItsSet) {
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

TEST_F(ResolveRequestTest, AModelChoosesMultistepWhereNothingIsKnownToBeBetter) {
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
  // A search over a finer grid has found other Euler schedules since.
  ASSERT_TRUE(store_->AddScheduleSet(vectors_, boss::testing::TinyScheduleSet(20)).ok());
  EXPECT_EQ(solver(), SolverKind::kEuler);
}

TEST_F(ResolveRequestTest, AStraightenedVersionTakesTheCoefficientsThatWereFittedToIt) {
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

TEST_F(ResolveRequestTest, AnImportedSetHasTheStepsThatItHas) {
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

TEST_F(ResolveRequestTest, StepsDefaultToTheVersionsThenTheServers) {
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
