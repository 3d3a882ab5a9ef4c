#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <variant>

#include "absl/strings/str_cat.h"
#include "core/base/error_details.h"
#include "core/nets/presets.h"
#include "server/rpc/convert_common.h"
#include "server/rpc/convert_job.h"
#include "server/rpc/convert_job_spec.h"
#include "server/rpc/convert_model.h"
#include "server/rpc/convert_sampling.h"

namespace boss::server {
namespace {

template <typename Message>
Message Parse(const std::string& text) {
  Message message;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &message)) << text;
  return message;
}

absl::StatusOr<SampleRequest> Sampling(const std::string& text) {
  return SampleRequestFromProto(Parse<v1::GenerateRequest>(text), absl::InfiniteFuture(), /*chosen_seed=*/77);
}

TEST(ConvertSamplingTest, UnsetFieldsTakeTheirDefaults) {
  const auto request = Sampling(R"(model: "m")");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->num_samples, 1);
  EXPECT_EQ(request->seed, 77u);
  EXPECT_EQ(request->schedule, ScheduleSource::kBest);
  EXPECT_EQ(request->solver, SolverKind::kEuler);
  EXPECT_EQ(request->guidance_scale, 1.0);
  EXPECT_EQ(request->format, SampleFormat::kDefault);
  EXPECT_TRUE(request->initial_noise.empty());
  EXPECT_EQ(Sampling(R"(model: "m" seed: 0)")->seed, 0u);
}

TEST(ConvertSamplingTest, FieldsArrive) {
  const auto request =
      Sampling(R"(model: "m@2" steps: 4 num_samples: 2 seed: 5 schedule: SCHEDULE_KIND_EXPLICIT time_grid: [0, 0.5, 1]
      solver: SOLVER_HEUN class_labels: [1, -1] guidance_scale: 2.5
      output_format: OUTPUT_FORMAT_UINT8 preview_interval: 3 priority: -4
      initial_noise { dtype: DATA_TYPE_FLOAT32 shape: [2, 1] data: "\000\000\200\077\000\000\000\300" }
      validate_only: true)");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->model, "m@2");
  EXPECT_EQ(request->steps, 4);
  EXPECT_EQ(request->time_grid, (std::vector<double>{0, 0.5, 1}));
  EXPECT_EQ(request->schedule, ScheduleSource::kExplicit);
  EXPECT_EQ(request->solver, SolverKind::kHeun);
  EXPECT_EQ(request->class_labels, (std::vector<int64_t>{1, -1}));
  EXPECT_EQ(request->guidance_scale, 2.5);
  EXPECT_EQ(request->format, SampleFormat::kUint8);
  EXPECT_EQ(request->preview_interval, 3);
  EXPECT_EQ(request->priority, -4);
  EXPECT_EQ(request->initial_noise, (std::vector<float>{1, -2}));
  EXPECT_EQ(request->initial_noise_shape, (std::vector<int64_t>{2, 1}));
  EXPECT_TRUE(request->validate_only);
}

TEST(ConvertSamplingTest, ConditionsArrive) {
  const auto request = Sampling(R"(negative_class_labels: [2, -1]
      conditions { key: "a" value { dtype: DATA_TYPE_FLOAT32 shape: [1, 2] data: "\000\000\200\077\000\000\000\300" } }
      negative_conditions { key: "b" value { dtype: DATA_TYPE_INT64 shape: [1] data: "\007\000\000\000\000\000\000\000" } })");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->negative_class_labels, (std::vector<int64_t>{2, -1}));
  EXPECT_TRUE(at::equal(request->conditions.at("a"), at::tensor({1.0F, -2.0F}).view({1, 2})));
  EXPECT_TRUE(at::equal(request->negative_conditions.at("b"), at::tensor({int64_t{7}})));
}

TEST(ConvertSamplingTest, ConditionsMustBeWhole) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "unknown dtype"},
      {"dtype: DATA_TYPE_FLOAT32 shape: [1, 2] data: '1234567'", "7 bytes for [1, 2]"},
      {"dtype: DATA_TYPE_FLOAT32 shape: [1] data: '12345678'", "8 bytes for [1]"},
      {"dtype: DATA_TYPE_FLOAT32 shape: [-1] data: '1234'", "4 bytes for [-1]"},
      {"dtype: DATA_TYPE_UINT8 shape: [4611686018427387904, 4, 1] data: '1'", "1 bytes for"},
      {"dtype: DATA_TYPE_UINT8 shape: [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1] data: '1'", "at most 16 dimensions"},
  };
  for (const auto& [tensor, part] : cases) {
    const auto request = Sampling("conditions { key: 'text' value { " + tensor + " } }");
    EXPECT_TRUE(absl::IsInvalidArgument(request.status())) << tensor << request.status();
    EXPECT_EQ(FieldOf(request.status()), "conditions");
    EXPECT_NE(request.status().message().find("\"text\""), std::string::npos) << request.status();
    EXPECT_NE(request.status().message().find(part), std::string::npos) << request.status();
  }
}

TEST(ConvertSamplingTest, AnUnspecifiedSolverIsTheModelsChoice) {
  EXPECT_TRUE(Sampling("")->default_solver);
  EXPECT_FALSE(Sampling("solver: SOLVER_EULER")->default_solver);
  const auto multistep = Sampling("solver: SOLVER_MULTISTEP");
  ASSERT_TRUE(multistep.ok()) << multistep.status();
  EXPECT_EQ(multistep->solver, SolverKind::kMultistep);
  EXPECT_FALSE(multistep->default_solver);
}

TEST(ConvertModelTest, MultistepSchedulesComeWithCoefficientsAndErrors) {
  Schedule schedule;
  schedule.solver = SolverKind::kMultistep;
  schedule.time_grid = TimeGrid::Uniform(2);
  schedule.coefficients = {{1, {0.5}}, {0.9, {0.75, -0.25}}};
  schedule.fit_error = 0.125;
  schedule.held_out_error = 0.25;
  const v1::Schedule proto = ToProto(schedule);
  ASSERT_EQ(proto.coefficients_size(), 2);
  EXPECT_EQ(proto.coefficients(0).state(), 1);
  EXPECT_EQ(proto.coefficients(1).state(), 0.9);
  EXPECT_EQ(proto.coefficients(1).velocities(1), -0.25);
  EXPECT_EQ(proto.fit_error(), 0.125);
  EXPECT_EQ(proto.held_out_error(), 0.25);
  EXPECT_FALSE(ToProto(Schedule()).has_held_out_error());
}

TEST(ConvertSamplingTest, WrongValuesAreNamed) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"schedule: 99", "schedule"},
      {"solver: 99", "solver"},
      {"output_format: 99", "output_format"},
      {"initial_noise { dtype: DATA_TYPE_FLOAT64 shape: 1 }", "initial_noise"},
      {R"(initial_noise { dtype: DATA_TYPE_FLOAT32 shape: 1 data: "abc" })", "initial_noise"},
      {R"(initial_noise { dtype: DATA_TYPE_FLOAT32 data: "abcd" })", "initial_noise"},
      {"request_id: \"" + std::string(64, 'x') + "\"", "request_id"},
  };
  for (const auto& [text, field] : cases) {
    const auto request = Sampling(text);
    EXPECT_TRUE(absl::IsInvalidArgument(request.status())) << text << request.status();
    EXPECT_EQ(FieldOf(request.status()), field);
  }
}

// Through the server's form and back.
template <typename Spec>
v1::Job RoundTrip(const std::string& text) {
  v1::Job job;
  const auto spec = JobSpecFromProto(Parse<Spec>(text));
  EXPECT_TRUE(spec.ok()) << spec.status();
  if (spec.ok()) JobSpecToProto(*spec, job);
  return job;
}

TEST(ConvertJobSpecTest, DefaultsAreFilledIn) {
  const v1::DistillSpec distill = RoundTrip<v1::DistillSpec>(R"(model: "m" tuning: LORA)").distill();
  EXPECT_EQ(distill.method(), v1::DistillSpec::BOSS);
  EXPECT_EQ(distill.steps(), 4);
  EXPECT_EQ(distill.k_max(), 100);
  EXPECT_EQ(distill.num_samples(), 100);
  EXPECT_EQ(distill.num_noises(), 1024);
  EXPECT_EQ(distill.held_out_share(), 0.1);
  EXPECT_EQ(distill.lora().rank(), 4);
  EXPECT_EQ(distill.lora().alpha(), 4);
  EXPECT_EQ(distill.training().learning_rate(), 2e-4);
  EXPECT_EQ(distill.training().gradient_clip(), 1);
  EXPECT_EQ(distill.guidance_scale(), 1);
  EXPECT_FALSE(distill.has_evaluation());
  const v1::EvaluateSpec evaluate = RoundTrip<v1::EvaluateSpec>(R"(model: "m")").evaluate();
  EXPECT_EQ(std::vector<int>(evaluate.steps().begin(), evaluate.steps().end()), (std::vector<int>{2, 4, 6, 8}));
  EXPECT_EQ(evaluate.schedules_size(), 2);
}

TEST(ConvertJobSpecTest, EveryFieldGoesThereAndBack) {
  const std::string training =
      R"(training { train_steps: 9 batch_size: 8 learning_rate: 0.5 warmup_steps: 3 decay_steps: 7 gradient_clip: 0
      ema_rate: 0.25 accumulation_steps: 2 checkpoint_interval: 4 metrics_interval: 5
      preview_interval: 6 preview_samples: 12 })";
  const std::string evaluation =
      R"(model: "a" baseline: "b" steps: 3 schedules: SCHEDULE_KIND_BELLMAN solver: SOLVER_HEUN num_samples: 10
      batch_size: 5 seed: 4 guidance_scale: 2 k_max: 30 reference_dataset: "" feature_network: "f" unconditional: true
      include_fine: true
      measure_straightness: true time_grids { steps: 2 time_grid: [0, 0.5, 1] } time_grids { steps: 1 time_grid: [0, 1] }
      other_models: "c" fine_time_grid: [0, 0.25, 1] schedule_sets: ["x", "y"] other_solvers: [SOLVER_MULTISTEP, SOLVER_HEUN])";
  const auto train = Parse<v1::TrainSpec>(
      R"(dataset: "d" architecture_json: "{}" init_model: "i" output_model: "o" output_alias: "al" )" + training +
      R"(label_dropout: 0 flip: true description: "x" label_names: "l" seed: 3 default_steps: 6)");
  EXPECT_EQ(RoundTrip<v1::TrainSpec>(train.DebugString()).train().DebugString(), train.DebugString());
  const auto optimize = Parse<v1::OptimizeStepsizesSpec>(
      R"(model: "m" k_max: 20 num_samples: 30 guidance_scale: 1.5 seed: 9 batch_size: 3 unconditional: true
        solver: SOLVER_EULER fine_time_grid: [0, 0.5, 1] schedule_set: "edm" max_multistep_steps: 2
        multistep_refinement: 700)");
  EXPECT_EQ(RoundTrip<v1::OptimizeStepsizesSpec>(optimize.DebugString()).optimize_stepsizes().DebugString(),
            optimize.DebugString());
  const auto evaluate = Parse<v1::EvaluateSpec>(evaluation);
  EXPECT_EQ(RoundTrip<v1::EvaluateSpec>(evaluate.DebugString()).evaluate().DebugString(), evaluate.DebugString());
  const auto distill = Parse<v1::DistillSpec>(
      R"(model: "m" method: REFLOW steps: 6 tuning: LORA lora { rank: 8 alpha: 3 } k_max: 40
         num_samples: 7 fresh_schedule: true
         num_noises: 50
         held_out_share: 0 )" +
      training + " guidance_scale: 2 evaluation { " + evaluation +
      R"( } output_model: "o" output_alias: "al" seed: 5 batch_size: 6 unconditional: true description: "x"
         fine_time_grid: [0, 0.5, 1] fit_multistep: true schedule_set: "edm")");
  EXPECT_EQ(RoundTrip<v1::DistillSpec>(distill.DebugString()).distill().DebugString(), distill.DebugString());
}

TEST(ConvertJobSpecTest, FieldsThatAreNotServedAreNamed) {
  EXPECT_EQ(FieldOf(JobSpecFromProto(Parse<v1::OptimizeStepsizesSpec>("solver: SOLVER_HEUN")).status()), "spec.solver");
  EXPECT_EQ(FieldOf(JobSpecFromProto(Parse<v1::EvaluateSpec>("schedules: SCHEDULE_KIND_EXPLICIT")).status()),
            "spec.schedules");
  const auto disagreeing = Parse<v1::DistillSpec>("evaluation { time_grids { steps: 3 time_grid: [0, 1] } }");
  EXPECT_EQ(FieldOf(JobSpecFromProto(disagreeing).status()), "spec.evaluation.time_grids");
  EXPECT_EQ(FieldOf(JobSpecFromProto(Parse<v1::DistillSpec>("lora { rank: 2 }")).status()), "spec.lora");
  EXPECT_EQ(
      FieldOf(SubmitOptionsFromProto(Parse<v1::JobOptions>("retention { nanos: -1 seconds: 1 }"), "", false).status()),
      "options.retention");
}

TEST(ConvertJobSpecTest, MultistepSchedulesAreMadeUnlessASetIsNamed) {
  const auto steps = [](const char* text) {
    return std::get<OptimizeStepsizesSpec>(*JobSpecFromProto(Parse<v1::OptimizeStepsizesSpec>(text)))
        .max_multistep_steps;
  };
  EXPECT_EQ(steps(""), 8);
  EXPECT_EQ(steps("k_max: 7"), 7);
  EXPECT_EQ(steps("max_multistep_steps: 0"), 0);
  EXPECT_EQ(steps("max_multistep_steps: 3 schedule_set: 'mine'"), 3);
  EXPECT_EQ(steps("schedule_set: 'mine'"), 0);
  EXPECT_EQ(steps("num_samples: 1"), 0);
}

TEST(ConvertJobSpecTest, CoefficientsAreFittedToAStraightenedVersionThatHasEnoughHeldOutNoises) {
  const auto fits = [](const char* text) {
    return std::get<DistillSpec>(*JobSpecFromProto(Parse<v1::DistillSpec>(text))).fit_multistep;
  };
  EXPECT_TRUE(fits(""));
  EXPECT_FALSE(fits("fit_multistep: false"));
  EXPECT_FALSE(fits("method: REFLOW"));
  EXPECT_FALSE(fits("held_out_share: 0"));
  EXPECT_FALSE(fits("held_out_share: nan"));
  EXPECT_FALSE(fits("num_noises: 639"));  // 63
  EXPECT_TRUE(fits("num_noises: 640"));
  EXPECT_TRUE(fits("num_noises: 20 fit_multistep: true"));
}
TEST(ConvertJobSpecTest, AFineGridSaysHowManyIntervalsThereAre) {
  const auto intervals = [](const char* text) {
    return std::get<OptimizeStepsizesSpec>(*JobSpecFromProto(Parse<v1::OptimizeStepsizesSpec>(text))).k_max;
  };
  EXPECT_EQ(intervals("fine_time_grid: [0, 0.1, 0.5, 1]"), 3);
  EXPECT_EQ(intervals("fine_time_grid: [0, 0.1, 0.5, 1] k_max: 7"), 7);  // the validation refuses that
  EXPECT_EQ(intervals(""), 100);
}

TEST(ConvertJobSpecTest, EvaluationsTakeNamedSchedules) {
  const auto spec = JobSpecFromProto(Parse<v1::EvaluateSpec>("schedules: SCHEDULE_KIND_NAMED"));
  ASSERT_TRUE(spec.ok()) << spec.status();
  const ScheduleChoice& choice = std::get<EvaluateSpec>(*spec).schedules;
  EXPECT_TRUE(choice.named);
  EXPECT_FALSE(choice.uniform || choice.bellman);
}

TEST(ConvertModelTest, ImportedSchedulesAreCheckedByField) {
  const auto field = [](const std::string& text) {
    return FieldOf(ScheduleSetFromProto(Parse<v1::ImportScheduleRequest>(text)).status()).value_or("");
  };
  const std::string times = "schedules { time_grid: [0, 0.5, 1] } ";
  EXPECT_EQ(field(times), "name");
  EXPECT_EQ(field(times + "name: \"uniform\""), "name");
  const std::string named = "name: \"ays\" ";
  EXPECT_EQ(field(named), "schedules");
  for (const char* wrong : {"time_grid: [0, 0.5, 0.5, 1]", "time_grid: [0.1, 1]", "time_grid: [0, 0.5]",
                            "time_grid: [0, nan, 1]", "steps: 3 time_grid: [0, 0.5, 1]", ""}) {
    EXPECT_EQ(field(absl::StrCat(named, "schedules { ", wrong, " }")), "schedules") << wrong;
  }
  EXPECT_EQ(field(named + times + "schedules { time_grid: [0, 0.3, 1] }"), "schedules");  // two of one K
  EXPECT_EQ(field(named + times + "solver: SOLVER_RK45"), "solver");
  EXPECT_EQ(field(named + times + "solver: SOLVER_MULTISTEP"), "solver");
  EXPECT_EQ(field(named + times + "guidance_scale: -1"), "guidance_scale");

  const auto stored = ScheduleSetFromProto(Parse<v1::ImportScheduleRequest>(
      named + times + "schedules { steps: 1 time_grid: [0, 1] } solver: SOLVER_HEUN guidance_scale: 4"));
  ASSERT_TRUE(stored.ok()) << stored.status();
  EXPECT_TRUE(CheckScheduleSet(*stored).ok());
  EXPECT_EQ(stored->Name(), "ays");
  EXPECT_EQ(stored->set.guidance_scale, 4);
  const v1::ScheduleSet proto = ToProto({"m", 2}, *stored, {.schedules = true});
  EXPECT_EQ(proto.kind(), v1::SCHEDULE_KIND_EXPLICIT);
  EXPECT_EQ(proto.solver(), v1::SOLVER_HEUN);
  ASSERT_EQ(proto.schedules_size(), 2);
  EXPECT_EQ(proto.schedules(0).steps(), 1);
  EXPECT_EQ(proto.schedules(1).time_grid(1), 0.5);
}

TEST(ConvertJobSpecTest, OptionsSayHowLongAJobIsKeptAndHowOftenItMayCrash) {
  const auto unset = SubmitOptionsFromProto(v1::JobOptions(), "", false);
  ASSERT_TRUE(unset.ok()) << unset.status();
  EXPECT_EQ(unset->retention, std::nullopt);
  EXPECT_EQ(unset->max_crashes, 3);
  const auto set = SubmitOptionsFromProto(
      Parse<v1::JobOptions>("retention { seconds: 90 nanos: 500000000 } max_crashes: 0"), "", false);
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_EQ(set->retention, absl::Milliseconds(90500));
  EXPECT_EQ(set->max_crashes, 0);
  EXPECT_TRUE(
      std::get<DistillSpec>(*JobSpecFromProto(Parse<v1::DistillSpec>("regenerate_pairs: true"))).regenerate_pairs);
}

TEST(ConvertJobTest, NamesFiltersAndOrders) {
  EXPECT_EQ(*JobIdFromName("jobs/abc"), "abc");
  EXPECT_EQ(FieldOf(JobIdFromName("abc").status()), "name");
  const auto page = JobPageRequestFromProto(Parse<v1::ListJobsRequest>(
      R"(filter: "state = RUNNING AND kind = DISTILL AND model = m AND labels.a = b" order_by: "create_time")"));
  ASSERT_TRUE(page.ok()) << page.status();
  EXPECT_EQ(page->filter.states, std::vector<JobState>{JobState::kRunning});
  EXPECT_EQ(page->filter.kinds, std::vector<JobKind>{JobKind::kDistill});
  EXPECT_EQ(page->filter.model, "m");
  EXPECT_EQ(page->filter.labels.at("a"), "b");
  EXPECT_TRUE(page->oldest_first);
  for (const char* filter : {"state = SLEEPING", "colour = red", "state = RUNNING AND state = QUEUED"}) {
    v1::ListJobsRequest request;
    request.set_filter(filter);
    EXPECT_EQ(FieldOf(JobPageRequestFromProto(request).status()), "filter") << filter;
  }
}

TEST(ConvertJobTest, EventsCarryTheirPayload) {
  const absl::Time time = absl::FromUnixMillis(1500);
  const v1::JobEvent change =
      ToProto(JobEvent{3, time, StateChange{JobState::kRunning, JobState::kFailed, "why", absl::DataLossError("bad")}});
  EXPECT_EQ(change.sequence(), 3);
  EXPECT_EQ(change.time().seconds(), 1);
  EXPECT_EQ(change.time().nanos(), 500'000'000);
  EXPECT_EQ(change.state_change().from(), v1::Job::RUNNING);
  EXPECT_EQ(change.state_change().to(), v1::Job::FAILED);
  EXPECT_EQ(change.state_change().error().message(), "bad");
  JobProgress progress;
  progress.stage = JobStage::kPairs;
  EXPECT_FALSE(ToProto(JobEvent{1, time, progress}).progress().has_eta());
  progress.time_left = absl::Seconds(90);
  EXPECT_EQ(ToProto(JobEvent{1, time, progress}).progress().eta().seconds(), 90);
}

TEST(ConvertModelTest, CorruptVersionsAreQuarantined) {
  VersionView view = {.key = {"m", 3}, .info = absl::DataLossError("no manifest")};
  const v1::ModelVersion version = ToProto(view);
  EXPECT_EQ(version.version(), "3");
  EXPECT_EQ(version.state(), v1::ModelVersion::QUARANTINED);
  EXPECT_EQ(version.error_message(), "no manifest");
}

TEST(ConvertModelTest, TorchScriptAndDecodersArrive) {
  const auto options = ImportOptionsFromProto(Parse<v1::ImportStart>("format: TORCHSCRIPT decoder_bytes: 7"));
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->format, ImportFormat::kTorchScript);
  EXPECT_EQ(options->decoder_bytes, 7);
}

TEST(ConvertModelTest, TellsWhatAModelIsConditionedOnAndDecodedTo) {
  ModelView view;
  view.shape = ModelShape{
      .sample_shape = {4, 8, 8},
      .conditioning = {{.name = "text", .shape = {77, 768}}, {.name = "size", .dtype = at::kLong, .shape = {2}}},
      .decoded_shape = {3, 64, 64},
      .trainable = false};
  const v1::Model model = ToProto(view, 10);
  ASSERT_EQ(model.conditioning_size(), 2);
  EXPECT_EQ(model.conditioning(0).name(), "text");
  EXPECT_EQ(model.conditioning(0).dtype(), v1::Tensor::DATA_TYPE_FLOAT32);
  EXPECT_EQ(model.conditioning(0).shape(1), 768);
  EXPECT_EQ(model.conditioning(1).dtype(), v1::Tensor::DATA_TYPE_INT64);
  EXPECT_EQ(model.decoded_shape(0), 3);
  EXPECT_FALSE(model.trainable());
}

TEST(ConvertModelTest, APresetStandsForItsArchitecture) {
  const absl::Status unknown = ImportOptionsFromProto(Parse<v1::ImportStart>("preset: \"x\"")).status();
  EXPECT_TRUE(absl::IsInvalidArgument(unknown));
  EXPECT_EQ(FieldOf(unknown), "start.preset");
  EXPECT_THAT(std::string(unknown.message()), ::testing::HasSubstr("cifar10-ddpmpp, ncsnpp-256"));
  const auto options = ImportOptionsFromProto(Parse<v1::ImportStart>("preset: \"ncsnpp-256\""));
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->architecture_json, *PresetArchitecture("ncsnpp-256"));
  // A description of one's own counts more.
  EXPECT_EQ(ImportOptionsFromProto(Parse<v1::ImportStart>("preset: \"ncsnpp-256\" architecture_json: \"{}\""))
                ->architecture_json,
            "{}");
  EXPECT_EQ(ImportOptionsFromProto(Parse<v1::ImportStart>(""))->architecture_json, "");
}

}  // namespace
}  // namespace boss::server
