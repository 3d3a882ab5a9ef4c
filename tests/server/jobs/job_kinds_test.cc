// Each kind of job from its submission to what it leaves.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "core/evaluate/classifier.h"
#include "core/io/atomic_file.h"
#include "core/io/png.h"
#include "core/io/safetensors.h"
#include "server/jobs/noise_source.h"
#include "tests/server/jobs/job_fixture.h"

namespace boss::server {
namespace {

using testing::ExpectSameWeights;
using testing::PayloadsOf;

class JobKindsTest : public testing::JobTest {
 protected:
  DistillSpec ToyDistillation() {
    DistillSpec spec;
    spec.model = "teacher";
    spec.output_model = "student";
    spec.steps = 2;
    spec.k_max = 10;
    spec.num_samples = 32;
    spec.num_noises = 100;
    spec.training.train_steps = 150;
    spec.training.batch_size = 32;
    spec.training.checkpoint_interval = 50;
    spec.training.metrics_interval = 50;
    spec.training.trainer.learning_rate = 2e-3;
    spec.training.trainer.ema_rate = 0.9;
    spec.seed = 5;
    return spec;
  }

  std::vector<JobStage> Stages(const std::string& id) {
    std::vector<JobStage> stages;
    for (const StageChange& change : PayloadsOf<StageChange>(Follow(id))) stages.push_back(change.to);
    return stages;
  }

  // A class-conditional network of 8 x 8 pictures with a classifier beside it.
  VersionKey ImportPictureModel() {
    const std::string architecture =
        R"({"model":{"architecture":"ncsnpp","image_size":8,"channels":1,"nf":16,"ch_mult":[1],"num_res_blocks":1,"attn_resolutions":[],)"
        R"("num_classes":2,"patch_size":2},"time":{"eps":0.001,"scale":999}})";
    boss::testing::TempFolder source;
    const auto model = CreateModel(architecture, 1);
    EXPECT_TRUE(model.ok()) << model.status();
    Safetensors weights;
    for (const auto& [name, tensor] : (*model)->State()) weights.tensors.emplace_back(name, tensor.detach());
    EXPECT_TRUE(WriteSafetensors(source / "model.safetensors", weights).ok());
    Manifest manifest;
    manifest.architecture_json = architecture;
    manifest.label_names = {"dark", "bright"};
    EXPECT_TRUE(WriteFileAtomically(source / "manifest.json", ManifestToJson(manifest)).ok());
    EXPECT_TRUE(Classifier(1, 8, 4, 2, 1).Save(source / "classifier.safetensors").ok());
    const auto key = store_->ImportFolder(source.path(), "pictures");
    EXPECT_TRUE(key.ok()) << key.status();
    return *key;
  }

  // 40 pictures of 8 x 8 pixels with labels 0 and 1.
  std::string PictureDataset() {
    std::vector<uint8_t> pixels, labels;
    for (int i = 0; i < 40; ++i) {
      labels.push_back(static_cast<uint8_t>(i % 2));
      for (int pixel = 0; pixel < 64; ++pixel) pixels.push_back(static_cast<uint8_t>((i % 2) * 150 + (i * pixel) % 90));
    }
    testing::WriteIdx(folder_ / "data/images.idx", {40, 8, 8}, pixels);
    testing::WriteIdx(folder_ / "data/labels.idx", {40}, labels);
    return "idx:" + (folder_ / "data/images.idx") + "," + (folder_ / "data/labels.idx");
  }
};

TEST_F(JobKindsTest, TrainingPublishesAveragedWeightsAndReportsItsLoss) {
  TrainSpec spec = ToyTraining();
  spec.output_alias = "newest";
  spec.default_steps = 12;
  spec.description = "a circle";
  spec.training.train_steps = 200;
  spec.training.trainer.learning_rate = 5e-3;
  const Job job = RunToSuccess(spec);
  EXPECT_EQ(job.output_version, "toy@1");
  EXPECT_EQ(store_->Resolve("toy@newest")->version, 1);
  const VersionInfo info = *store_->GetVersion({"toy", 1});
  EXPECT_EQ(info.manifest.job_id, job.id);
  EXPECT_EQ(info.manifest.default_steps, 12);
  EXPECT_EQ(info.manifest.description, "a circle");
  const auto metrics = PayloadsOf<JobMetrics>(Follow(job.id));
  // Asked for every 5 train steps, that is every 50 ms; given no more often than every 200 ms, besides at checkpoints.
  ASSERT_GE(metrics.size(), 10);
  ASSERT_LE(metrics.size(), 10 + 200 / 7 + 1);
  EXPECT_EQ(metrics.back().train_step, 200);
  EXPECT_LT(metrics.back().loss, metrics.front().loss);
  EXPECT_GT(metrics.back().gradient_norm, 0);
  EXPECT_EQ(job.metrics.train_step, 200);
  EXPECT_GT(job.result.velocity_evaluations, 0);

  // Another job goes on from it.
  TrainSpec more = ToyTraining();
  more.architecture_json.clear();
  more.init_model = "toy@newest";
  const Job second = RunToSuccess(more);
  EXPECT_EQ(second.input_versions, std::vector<std::string>{"toy@1"});
  EXPECT_EQ(second.output_version, "toy@2");
  EXPECT_EQ(store_->GetVersion({"toy", 2})->manifest.parent, "toy@1");
  EXPECT_EQ(store_->GetVersion({"toy", 2})->manifest.default_steps, 12);
}

TEST_F(JobKindsTest, TrainingRefusesPicturesOfAnotherShape) {
  TrainSpec spec = ToyTraining();
  spec.dataset = PictureDataset();
  const Job job = Finish(Submit(spec).id);
  EXPECT_EQ(job.state, JobState::kFailed);
  EXPECT_EQ(job.error.code(), absl::StatusCode::kFailedPrecondition) << job.error;
}

TEST_F(JobKindsTest, ASearchAttachesTheScheduleOfEveryNumberOfSteps) {
  const VersionKey key = PublishTeacher();
  OptimizeStepsizesSpec spec{"teacher", 12, 20};
  spec.batch_size = 8;
  spec.seed = 4;
  const Job job = RunToSuccess(spec);
  EXPECT_EQ(job.result.schedule_version, "teacher@1");
  EXPECT_EQ(job.result.schedule_set, "bellman-euler-g1-k12");
  EXPECT_EQ(job.result.velocity_evaluations, 12 * 20);
  const auto stored = store_->FindScheduleSet(key, 1.0);
  ASSERT_TRUE(stored.ok()) << stored.status();
  EXPECT_EQ((*stored)->job_id, job.id);
  const ScheduleSet& set = (*stored)->set;
  EXPECT_EQ(set.num_samples, 20);
  ASSERT_EQ(set.schedules.size(), 12);
  for (int steps = 2; steps <= 12; ++steps)
    EXPECT_LE(set.schedules[steps - 1].total_cost, set.schedules[steps - 2].total_cost);
  EXPECT_EQ(Stages(job.id), (std::vector<JobStage>{JobStage::kPreparing, JobStage::kTrajectories, JobStage::kCostMatrix,
                                                   JobStage::kSchedule}));
}

TEST_F(JobKindsTest, GuidanceNeedsLabels) {
  PublishTeacher();
  OptimizeStepsizesSpec spec{"teacher", 4, 4};
  spec.guidance_scale = 2;
  const Job job = Finish(Submit(spec).id);
  EXPECT_EQ(job.state, JobState::kFailed);
  EXPECT_EQ(job.error.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(std::string(job.error.message()).find("guidance_scale"), std::string::npos);
}

TEST_F(JobKindsTest, DistillationGoesThroughBothStages) {
  const VersionKey teacher = PublishTeacher();
  DistillSpec spec = ToyDistillation();
  EvaluateSpec& evaluation = spec.evaluation.emplace();
  evaluation.steps = {};
  evaluation.num_samples = 50;
  evaluation.k_max = 10;
  evaluation.measure_straightness = true;
  const Job job = RunToSuccess(spec);
  EXPECT_EQ(Stages(job.id), (std::vector<JobStage>{JobStage::kPreparing, JobStage::kTrajectories, JobStage::kCostMatrix,
                                                   JobStage::kSchedule, JobStage::kPairs, JobStage::kStraightening,
                                                   JobStage::kEvaluation, JobStage::kPublishing}));
  EXPECT_TRUE(store_->FindScheduleSet(teacher, 1.0, TimeGrid::Uniform(10)).ok());
  ASSERT_TRUE(job.result.schedule.has_value());
  EXPECT_EQ(job.result.schedule->time_grid.steps(), 2);

  // The held-out loss falls, over both segments.
  std::vector<JobMetrics> held_out;
  for (const JobMetrics& metrics : PayloadsOf<JobMetrics>(Follow(job.id))) {
    if (metrics.held_out_loss) held_out.push_back(metrics);
  }
  ASSERT_EQ(held_out.size(), 3);
  EXPECT_EQ(held_out.back().segment_held_out_loss.size(), 2);
  EXPECT_LT(*held_out.back().held_out_loss, *held_out.front().held_out_loss);

  const std::vector<EvaluationRow>& rows = job.result.evaluation;
  ASSERT_EQ(rows.size(), 4);
  EXPECT_EQ(rows[0].label, "fine");
  EXPECT_EQ(rows[0].trajectory_error, 0);
  EXPECT_EQ(rows[0].nfe, 10);
  EXPECT_EQ(rows[1].label, "uniform");
  EXPECT_EQ(rows[2].label, "bellman");
  EXPECT_EQ(rows[3].label, "straightened");
  for (size_t i = 1; i < rows.size(); ++i) {
    EXPECT_EQ(rows[i].steps, 2);
    EXPECT_EQ(rows[i].nfe, 2);
    EXPECT_EQ(rows[i].num_samples, 50);
    EXPECT_GT(rows[i].trajectory_error, 0);
    EXPECT_GT(rows[i].samples_per_second, 0);
    EXPECT_TRUE(rows[i].straightness.has_value());
    EXPECT_FALSE(rows[i].frechet_distance.has_value());
  }
  // Search, pairs and training; then the fine samples, three rows of two steps, and the straightness of all four.
  EXPECT_EQ(job.result.velocity_evaluations, 32 * 10 + 100 * 10 + 150 * 32 + 50 * 10 + 3 * 50 * 2 + 4 * 50 * 10);
  // What straightening is for.
  EXPECT_LT(rows[3].trajectory_error, rows[1].trajectory_error);
  EXPECT_EQ(rows[3].version, "student@1");

  // The student samples on its schedule by default.
  const VersionInfo student = *store_->GetVersion({"student", 1});
  EXPECT_EQ(student.manifest.default_steps, 2);
  EXPECT_EQ(student.manifest.parent, "teacher@1");
  EXPECT_EQ(student.manifest.evaluation.size(), 4);
  EXPECT_EQ(store_->FindSchedule({"student", 1}, 2, 1.0)->schedule.knots, job.result.schedule->knots);
}

TEST_F(JobKindsTest, DistillationReusesTheTeachersSchedulesUnlessAskedForFreshOnes) {
  PublishTeacher();
  const Job search = RunToSuccess(OptimizeStepsizesSpec{"teacher", 10, 32});
  DistillSpec spec = ToyDistillation();
  spec.training.train_steps = 5;
  const std::vector<JobStage> reusing = Stages(RunToSuccess(spec).id);
  EXPECT_EQ(std::count(reusing.begin(), reusing.end(), JobStage::kTrajectories), 0);
  EXPECT_EQ((*store_->FindScheduleSet({"teacher", 1}, 1.0))->job_id, search.id);
  spec.fresh_schedule = true;
  const Job fresh = RunToSuccess(spec);
  const std::vector<JobStage> searching = Stages(fresh.id);
  EXPECT_EQ(std::count(searching.begin(), searching.end(), JobStage::kTrajectories), 1);
  EXPECT_EQ((*store_->FindScheduleSet({"teacher", 1}, 1.0))->job_id, fresh.id);
}

TEST_F(JobKindsTest, LowRankDistillationPublishesAnAdapter) {
  PublishTeacher();
  DistillSpec spec = ToyDistillation();
  spec.lora = LoraSpec{2, 4};
  const Job job = RunToSuccess(spec);
  const VersionInfo info = *store_->GetVersion({"student", 1});
  ASSERT_TRUE(info.manifest.adapter.has_value());
  EXPECT_EQ(info.manifest.adapter->base.ToString(), "teacher@1");
  EXPECT_EQ(info.manifest.sha256.count("adapter.safetensors"), 1);
  // Merged, it has the teacher's tensors with other values.
  const auto student = Output(job), teacher = *store_->LoadVersionModel({"teacher", 1});
  const auto student_state = student->State(), teacher_state = teacher->State();
  ASSERT_EQ(student_state.size(), teacher_state.size());
  bool changed = false;
  for (size_t i = 0; i < student_state.size(); ++i) {
    EXPECT_EQ(student_state[i].first, teacher_state[i].first);
    changed = changed || !at::equal(student_state[i].second, teacher_state[i].second);
  }
  EXPECT_TRUE(changed);
}

TEST_F(JobKindsTest, ReflowIsTrainedAndSampledOnUniformSteps) {
  PublishTeacher();
  DistillSpec spec = ToyDistillation();
  spec.method = DistillMethod::kReflow;
  spec.steps = 3;
  spec.evaluation.emplace().num_samples = 20;
  spec.evaluation->steps = {3};
  const Job job = RunToSuccess(spec);
  // Stage 1 is not needed, so there is no Bellman row either.
  const std::vector<JobStage> stages = Stages(job.id);
  EXPECT_EQ(std::count(stages.begin(), stages.end(), JobStage::kTrajectories), 0);
  std::vector<std::string> labels;
  for (const EvaluationRow& row : job.result.evaluation) labels.push_back(row.label);
  EXPECT_EQ(labels, (std::vector<std::string>{"fine", "uniform", "reflow"}));
  EXPECT_EQ(job.metrics.segment_held_out_loss.size(), 3);
  const NativeSchedule native = *store_->FindSchedule({"student", 1}, 3, 1.0);
  EXPECT_EQ(native.kind, "uniform");
  EXPECT_EQ(native.schedule.time_grid, TimeGrid::Uniform(3));
}

TEST_F(JobKindsTest, AnEvaluationComparesVersionsOnTheSameNoises) {
  PublishTeacher();
  RunToSuccess(OptimizeStepsizesSpec{"teacher", 10, 32});
  DistillSpec distill = ToyDistillation();
  RunToSuccess(distill);
  EvaluateSpec spec;
  spec.model = "teacher";
  spec.other_models = {"student"};
  spec.steps = {2, 5};
  spec.num_samples = 30;
  spec.batch_size = 16;
  spec.k_max = 10;
  spec.include_fine = true;
  const Job job = RunToSuccess(spec);
  EXPECT_EQ(job.input_versions, (std::vector<std::string>{"teacher@1", "student@1", "teacher@1"}));
  std::vector<std::string> rows;
  for (const EvaluationRow& row : job.result.evaluation) {
    rows.push_back(row.version + " " + row.label + " " + std::to_string(row.steps));
    EXPECT_EQ(row.baseline, "teacher@1");
  }
  EXPECT_EQ(rows, (std::vector<std::string>{"teacher@1 fine 10", "teacher@1 uniform 2", "teacher@1 uniform 5",
                                            "teacher@1 bellman 2", "teacher@1 bellman 5", "student@1 fine 10",
                                            "student@1 straightened 2"}));
  EXPECT_EQ(job.result.evaluation[0].trajectory_error, 0);
  EXPECT_GT(job.result.evaluation[1].trajectory_error, job.result.evaluation[2].trajectory_error);
  EXPECT_EQ(PayloadsOf<EvaluationRow>(Follow(job.id)).size(), rows.size());

  // A version is judged against its parent unless another baseline is named.
  spec.model = "student";
  spec.other_models = {};
  EXPECT_EQ(RunToSuccess(spec).result.evaluation[0].baseline, "teacher@1");
  spec.baseline = "student";
  EXPECT_EQ(RunToSuccess(spec).result.evaluation[0].baseline, "student@1");

  // A row that must be there and cannot be.
  spec.model = "teacher";
  spec.guidance_scale = 1;
  spec.steps = {11};
  spec.schedules.require_bellman = true;
  const Job too_many = Finish(Submit(spec).id);
  EXPECT_EQ(too_many.error.code(), absl::StatusCode::kFailedPrecondition) << too_many.error;
  PublishTeacher("bare");
  spec.model = "bare";
  spec.baseline = "";
  const Job missing = Finish(Submit(spec).id);
  EXPECT_EQ(missing.error.code(), absl::StatusCode::kFailedPrecondition) << missing.error;
  EXPECT_NE(std::string(missing.error.message()).find("OptimizeStepsizesJob"), std::string::npos);
}

TEST_F(JobKindsTest, PicturesGivePreviewsAndAFrechetDistance) {
  ImportPictureModel();
  TrainSpec train;
  train.dataset = PictureDataset();
  train.init_model = "pictures";
  train.output_model = "pictures";
  train.default_steps = 3;
  train.training.train_steps = 4;
  train.training.batch_size = 4;
  train.training.preview_interval = 2;
  train.training.preview_samples = 5;
  const Job trained = RunToSuccess(train);
  const auto previews = PayloadsOf<JobPreview>(Follow(trained.id));
  ASSERT_EQ(previews.size(), 2);
  EXPECT_EQ(previews[1].train_step, 4);
  const auto image = DecodePng(previews[1].png);
  ASSERT_TRUE(image.ok()) << image.status();
  EXPECT_EQ(image->width, 3 * 8);
  EXPECT_EQ(image->height, 2 * 8);
  EXPECT_EQ(store_->GetVersion({"pictures", 2})->manifest.label_names, (std::vector<std::string>{"dark", "bright"}));

  EvaluateSpec evaluate;
  evaluate.model = "pictures@2";
  evaluate.steps = {2};
  evaluate.num_samples = 12;
  evaluate.k_max = 3;
  evaluate.guidance_scale = 1.5;
  evaluate.include_fine = true;
  evaluate.reference_dataset = train.dataset;
  const Job judged = RunToSuccess(evaluate);
  ASSERT_EQ(judged.result.evaluation.size(), 2);
  for (const EvaluationRow& row : judged.result.evaluation) {
    ASSERT_TRUE(row.frechet_distance.has_value());
    EXPECT_TRUE(std::isfinite(*row.frechet_distance) && *row.frechet_distance >= 0);
    EXPECT_NE(row.features.find("4 features"), std::string::npos) << row.features;
    EXPECT_EQ(row.nfe, 2 * row.steps);  // guidance evaluates twice
  }
  // Without a named reference there is none of that shape.
  evaluate.reference_dataset.reset();
  EXPECT_FALSE(RunToSuccess(evaluate).result.evaluation[0].frechet_distance.has_value());
  // A named one needs features.
  PublishTeacher();
  EvaluateSpec toy;
  toy.model = "teacher";
  toy.num_samples = 4;
  toy.reference_dataset = train.dataset;
  EXPECT_EQ(Finish(Submit(toy).id).error.code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(JobKindsTest, ASamplerThatDivergesHasNoFrechetDistance) {
  const Manifest manifest = store_->GetVersion(ImportPictureModel())->manifest;
  NamedTensors weights = (*CreateModel(manifest.architecture_json, 1))->State();
  for (auto& [name, tensor] : weights) tensor = at::full_like(tensor, std::nan(""));
  ASSERT_TRUE(store_->Publish("nan", manifest, weights).ok());
  EvaluateSpec spec;
  spec.model = "pictures";
  spec.other_models = {"nan"};
  spec.steps = {2};
  spec.num_samples = 4;
  spec.k_max = 3;
  spec.reference_dataset = PictureDataset();
  const Job job = RunToSuccess(spec);
  ASSERT_EQ(job.result.evaluation.size(), 2u);
  EXPECT_TRUE(job.result.evaluation[0].frechet_distance.has_value());
  EXPECT_FALSE(job.result.evaluation[1].frechet_distance.has_value());
  const std::vector<JobMessage> messages = PayloadsOf<JobMessage>(Follow(job.id));
  EXPECT_NE(messages.back().text.find("no Frechet distance"), std::string::npos) << messages.back().text;
}

TEST(TrajectoryBatchSizeTest, NoRequestTakesAllMemory) {
  EXPECT_EQ(TrajectoryBatchSize(0, {2}, 100), 64);
  EXPECT_EQ(TrajectoryBatchSize(100, {1, 28, 28}, 100), 100);
  const int64_t bytes_each = 3 * 64 * 64 * 2001 * 4;
  EXPECT_EQ(TrajectoryBatchSize(65536, {3, 64, 64}, 1000), (int64_t{2} << 30) / bytes_each);
  EXPECT_EQ(TrajectoryBatchSize(65536, {3, 4096, 4096}, 1000), 1);
}

}  // namespace
}  // namespace boss::server
