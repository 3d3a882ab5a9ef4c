#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "core/base/error_details.h"
#include "server/jobs/job.h"

namespace boss::server {
namespace {

TrainingSpec UnusualTraining() {
  TrainingSpec training;
  training.train_steps = 11;
  training.batch_size = 12;
  training.checkpoint_interval = 13;
  training.metrics_interval = 14;
  training.preview_interval = 15;
  training.preview_samples = 16;
  training.trainer.learning_rate = 0.1;
  training.trainer.warmup_steps = 17;
  training.trainer.decay_steps = 18;
  training.trainer.gradient_clip = 0.3;
  training.trainer.ema_rate = 0.7;
  training.trainer.accumulation_steps = 19;
  return training;
}

EvaluateSpec UnusualEvaluation() {
  EvaluateSpec spec;
  spec.model = "toy@3";
  spec.other_models = {"toy@4"};
  spec.baseline = "toy@1";
  spec.steps = {3, 5};
  spec.schedules = {false, true, true, true, {"ays", "edm"}, {{0, 0.5, 1}, {0, 1}}};
  spec.fine_time_grid = {0, 0.25, 1};
  spec.solver = SolverKind::kHeun;
  spec.num_samples = 21;
  spec.batch_size = 22;
  spec.seed = ~uint64_t{0};
  spec.guidance_scale = 2.5;
  spec.k_max = 23;
  spec.other_solvers = {SolverKind::kMultistep, SolverKind::kHeun};
  spec.reference_dataset = "";
  spec.feature_network = "inception";
  spec.unconditional = spec.include_fine = spec.measure_straightness = true;
  return spec;
}

std::vector<JobSpec> UnusualSpecs() {
  TrainSpec train;
  train.dataset = "png:/data";
  train.architecture_json = R"({"model":{}})";
  train.init_model = "toy";
  train.output_model = "other";
  train.output_alias = "beta";
  train.training = UnusualTraining();
  train.label_dropout = 0.25;
  train.flip = true;
  train.description = "text";
  train.label_names = {"a"};
  train.seed = 5;
  train.default_steps = 6;
  OptimizeStepsizesSpec optimize{"toy", 31, 32, 1.5, 33, 34, true, {0, 0.1, 1}, "edm"};
  optimize.max_multistep_steps = 35;
  optimize.multistep_refinement = 36;
  DistillSpec distill;
  distill.model = "toy@2";
  distill.method = DistillMethod::kReflow;
  distill.steps = 7;
  distill.lora = LoraSpec{8, 9.5};
  distill.k_max = 41;
  distill.fine_time_grid = {0, 0.2, 1};
  distill.num_samples = 42;
  distill.fresh_schedule = true;
  distill.num_noises = 43;
  distill.held_out_share = 0.2;
  distill.training = UnusualTraining();
  distill.guidance_scale = 1.25;
  distill.evaluation = UnusualEvaluation();
  distill.output_model = "x";
  distill.output_alias = "y";
  distill.seed = 44;
  distill.batch_size = 45;
  distill.unconditional = true;
  distill.description = "z";
  distill.fit_multistep = true;
  distill.schedule_set = "edm";
  return {train, optimize, distill, UnusualEvaluation()};
}

TEST(JobSpecJson, KeepsEveryField) {
  for (const JobSpec& spec : UnusualSpecs()) {
    const std::string text = JobSpecToJson(spec);
    const absl::StatusOr<JobSpec> read = JobSpecFromJson(KindOf(spec), text);
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(JobSpecToJson(*read), text);
  }
  // The text is not that of the defaults, so the comparison above sees a field that is not read.
  EXPECT_NE(JobSpecToJson(UnusualSpecs()[2]), JobSpecToJson(DistillSpec{}));
  EXPECT_EQ(JobSpecFromJson(JobKind::kTrain, "{}").status().code(), absl::StatusCode::kDataLoss);
}

// Texts are compared when a request comes again.
TEST(JobSpecJson, OfADistillationWithoutAScheduleSetIsWhatItWas) {
  EXPECT_EQ(JobSpecToJson(DistillSpec{}).find("schedule_set"), std::string::npos);
}

TEST(JobJson, KeepsAJob) {
  Job job;
  job.id = "0123";
  job.spec = UnusualSpecs()[2];
  job.state = JobState::kFailed;
  job.owner = "alice";
  job.request_id = "request";
  job.labels = {{"team", "vision"}};
  job.priority = -3;
  job.deadline = absl::FromUnixNanos(123456789);
  job.create_time = absl::FromUnixSeconds(1000);
  job.starts = 2;
  job.progress.stage = JobStage::kStraightening;
  job.progress.fraction = 0.5;
  job.progress.time_left = absl::Seconds(7);
  job.metrics.held_out_loss = 0.25;
  job.metrics.segment_held_out_loss = {0.1, 0.4};
  job.error = absl::FailedPreconditionError("the loss is nan");
  job.input_versions = {"toy@2"};
  job.output_version = "x@1";
  job.result.schedule = Schedule{{0, 2, 4}, TimeGrid::Uniform(2), 0.125, SolverKind::kEuler};
  EvaluationRow row;
  row.label = "uniform";
  row.steps = 4;
  job.result.evaluation = {row};
  const absl::StatusOr<Job> read = JobFromJson(JobToJson(job));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(JobToJson(*read), JobToJson(job));
  EXPECT_EQ(read->error, job.error);
  EXPECT_EQ(read->deadline, job.deadline);
  EXPECT_EQ(read->start_time, absl::InfinitePast());
  EXPECT_EQ(read->progress.time_left, absl::Seconds(7));
  EXPECT_EQ(read->result.schedule->knots, job.result.schedule->knots);
}

TEST(JobJson, ReadsHeldOutLossesThatAreNotFinite) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  Job job;
  job.spec = UnusualSpecs()[2];
  job.metrics.held_out_loss = kNan;
  job.metrics.segment_held_out_loss = {0.5, kNan, std::numeric_limits<double>::infinity()};
  const absl::StatusOr<Job> read = JobFromJson(JobToJson(job));
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_TRUE(read->metrics.held_out_loss.has_value());
  EXPECT_TRUE(std::isnan(*read->metrics.held_out_loss));
  ASSERT_EQ(read->metrics.segment_held_out_loss.size(), 3u);
  EXPECT_EQ(read->metrics.segment_held_out_loss[0], 0.5);
  EXPECT_TRUE(std::isnan(read->metrics.segment_held_out_loss[1]));
  EXPECT_TRUE(std::isnan(read->metrics.segment_held_out_loss[2]));
  const absl::StatusOr<JobEvent> event = EventFromRecord(EventToRecord({1, absl::UnixEpoch(), job.metrics}));
  ASSERT_TRUE(event.ok()) << event.status();
  EXPECT_EQ(std::get<JobMetrics>(event->payload).segment_held_out_loss.size(), 3u);
}

TEST(JobEventJson, KeepsEveryKindOfEvent) {
  JobProgress progress;
  progress.stage = JobStage::kPairs;
  progress.step = 3;
  JobMetrics metrics;
  metrics.loss = 1.0 / 3;
  EvaluationRow row;
  row.label = "bellman";
  row.steps = 2;
  const std::vector<JobEventPayload> payloads = {
      StateChange{std::nullopt, JobState::kQueued, "submitted", absl::OkStatus()},
      StateChange{JobState::kRunning, JobState::kFailed, "", absl::InternalError("broken")},
      StageChange{JobStage::kPairs, JobStage::kTraining},
      progress,
      metrics,
      JobMessage{Severity::kWarning, "careful"},
      JobPreview{5, std::string("\x89PNG\0", 5), 2, 3},
      row};
  for (size_t i = 0; i < payloads.size(); ++i) {
    const JobEvent event{static_cast<int64_t>(i) + 1, absl::FromUnixNanos(1234567891011), payloads[i]};
    const EventRecord record = EventToRecord(event);
    const absl::StatusOr<JobEvent> read = EventFromRecord(record);
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(read->sequence, event.sequence);
    EXPECT_EQ(read->time, event.time);
    EXPECT_EQ(read->payload.index(), event.payload.index());
    const EventRecord again = EventToRecord(*read);
    EXPECT_EQ(again.document, record.document);
    EXPECT_EQ(again.attachment, record.attachment);
  }
  EXPECT_EQ(EventFromRecord({1, R"({"type":"song"})", ""}).status().code(), absl::StatusCode::kDataLoss);
}

TEST(ValidateSpec, NamesTheField) {
  TrainSpec train;
  train.dataset = "fashion-mnist-train";
  train.output_model = "toy";
  train.init_model = "toy";
  ASSERT_TRUE(ValidateSpec(train).ok());
  DistillSpec distill;
  distill.model = "toy";
  ASSERT_TRUE(ValidateSpec(distill).ok());
  EvaluateSpec evaluate;
  evaluate.model = "toy";
  ASSERT_TRUE(ValidateSpec(evaluate).ok());

  const auto field = [](const JobSpec& spec) { return FieldOf(ValidateSpec(spec)).value_or("none"); };
  const auto changed = [](auto spec, auto change) {
    change(spec);
    return JobSpec(spec);
  };
  EXPECT_EQ(field(changed(train, [](TrainSpec& s) { s.dataset.clear(); })), "spec.dataset");
  EXPECT_EQ(field(changed(train, [](TrainSpec& s) { s.output_model = "../up"; })), "spec.output_model");
  EXPECT_EQ(field(changed(train, [](TrainSpec& s) { s.architecture_json = "{}"; })), "spec.architecture_json");
  EXPECT_EQ(field(changed(train, [](TrainSpec& s) { s.training.batch_size = 0; })), "spec.training.batch_size");
  EXPECT_EQ(field(changed(train, [](TrainSpec& s) { s.training.trainer.ema_rate = 1; })), "spec.training.ema_rate");
  EXPECT_EQ(field(changed(train, [](TrainSpec& s) { s.training.trainer.learning_rate = 0.0 / 0.0; })),
            "spec.training.learning_rate");
  EXPECT_EQ(field(changed(train, [](TrainSpec& s) { s.label_dropout = 1.5; })), "spec.label_dropout");
  EXPECT_EQ(field(OptimizeStepsizesSpec{}), "spec.model");
  EXPECT_EQ(field(OptimizeStepsizesSpec{"toy", 1001}), "spec.k_max");
  OptimizeStepsizesSpec optimize{"toy", 2};
  const auto on = [&](std::vector<double> times) {
    return changed(optimize, [&](OptimizeStepsizesSpec& s) { s.fine_time_grid = std::move(times); });
  };
  EXPECT_TRUE(ValidateSpec(on({0, 0.5, 1})).ok());
  EXPECT_EQ(field(on({0, 0.2, 0.5, 1})), "spec.fine_time_grid");
  EXPECT_EQ(field(on({0, 0.2, 0.9})), "spec.fine_time_grid");
  EXPECT_EQ(field(on({0, 1, 1})), "spec.fine_time_grid");
  EXPECT_EQ(field(on({0, 1 - 1e-9, 1})), "spec.fine_time_grid");  // 1 as float32
  EXPECT_EQ(field(changed(optimize, [](OptimizeStepsizesSpec& s) { s.schedule_set = "bellman-1"; })),
            "spec.schedule_set");
  EXPECT_EQ(field(changed(optimize, [](OptimizeStepsizesSpec& s) { s.schedule_set = "../up"; })), "spec.schedule_set");
  EXPECT_EQ(field(changed(distill, [](DistillSpec& s) { s.fine_time_grid = {0, 1}; })), "spec.fine_time_grid");
  EXPECT_EQ(field(changed(distill, [](DistillSpec& s) { s.steps = 101; })), "spec.steps");
  EXPECT_EQ(field(changed(distill, [](DistillSpec& s) { s.lora = LoraSpec{0, 1}; })), "spec.lora.rank");
  EXPECT_EQ(field(changed(distill, [](DistillSpec& s) { s.held_out_share = 0.6; })), "spec.held_out_share");
  EXPECT_EQ(field(changed(distill, [](DistillSpec& s) { s.evaluation.emplace().num_samples = 0; })),
            "spec.evaluation.num_samples");
  EXPECT_EQ(field(changed(evaluate, [](EvaluateSpec& s) { s.steps.clear(); })), "spec.steps");
  EXPECT_EQ(field(changed(evaluate, [](EvaluateSpec& s) { s.solver = SolverKind::kRk45; })), "spec.solver");
  EXPECT_EQ(field(changed(evaluate, [](EvaluateSpec& s) { s.fine_time_grid = {0, 1}; })), "spec.fine_time_grid");
  EXPECT_EQ(field(changed(evaluate, [](EvaluateSpec& s) { s.schedules.sets = {"a", "a"}; })), "spec.schedule_sets");
  EXPECT_EQ(field(changed(evaluate, [](EvaluateSpec& s) { s.schedules.time_grids = {{0, 0.5}}; })), "spec.time_grids");
  EXPECT_EQ(field(changed(evaluate, [](EvaluateSpec& s) { s.schedules = {.uniform = false, .bellman = false}; })),
            "spec.schedules");
}

}  // namespace
}  // namespace boss::server
