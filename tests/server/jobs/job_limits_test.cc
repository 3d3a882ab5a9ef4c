// What a job may ask for, and how much it may tell.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "core/base/error_details.h"
#include "tests/server/jobs/job_fixture.h"
#include "tests/support/scripted_disk.h"
#include "tests/support/tiny_models.h"

namespace boss::server {
namespace {

using ::testing::HasSubstr;
using testing::PayloadsOf;
using testing::WriteIdx;

class JobLimitsTest : public testing::JobTest {
 protected:
  void ExpectRefused(JobSpec spec, const std::string& field, const SubmitOptions& options = {}) {
    const absl::Status status = manager_->Submit(std::move(spec), options).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << field << ": " << status;
    EXPECT_EQ(FieldOf(status), field) << status;
  }
};

TEST_F(JobLimitsTest, AnAliasThatCannotBeSetIsRefusedBeforeTheJobRuns) {
  PublishTeacher();
  for (const char* const alias : {"latest", "7x", "2024", "A"}) {
    TrainSpec train = ToyTraining();
    train.output_alias = alias;
    ExpectRefused(train, "spec.output_alias");
    DistillSpec distill = ToyDistillation("student");
    distill.output_alias = alias;
    ExpectRefused(distill, "spec.output_alias");
  }
}

TEST_F(JobLimitsTest, AJobWhoseAliasCannotBeWrittenNamesItsVersion) {
  manager_.reset();
  boss::testing::ScriptedDisk disk;
  std::atomic<int> failures = 0;
  disk.before = [&](const std::string& operation, const std::string& path) {
    const bool fails = operation == "create" && absl::StrContains(path, "aliases.json") && failures.fetch_add(1) == 0;
    return fails ? absl::ResourceExhaustedError("no space left in the test") : absl::OkStatus();
  };
  store_ = *ModelStore::Open(folder_.path(), clock_, disk);
  StartManager();
  TrainSpec spec = ToyTraining();
  spec.output_alias = "best";
  const Job job = Finish(Submit(spec).id);
  EXPECT_EQ(job.state, JobState::kFailed);
  EXPECT_EQ(job.error, absl::ResourceExhaustedError("no space left in the test"));
  EXPECT_EQ(job.output_version, "toy@1");
  EXPECT_TRUE(store_->GetVersion({"toy", 1}).ok());
  manager_.reset();  // before the disk
  store_.reset();
}

TEST_F(JobLimitsTest, TrainingTakesTextsOfABoundedSize) {
  struct Limit {
    const char* field;
    std::function<void(TrainSpec& spec, size_t excess)> fill;
  };
  const std::vector<Limit> limits = {
      {"spec.description",
       [](TrainSpec& spec, size_t excess) { spec.description = std::string(4096 + excess, 'd'); }},
      {"spec.label_names",
       [](TrainSpec& spec, size_t excess) { spec.label_names.assign(1000 + excess, "name"); }},
      {"spec.label_names",
       [](TrainSpec& spec, size_t excess) { spec.label_names = {"a", std::string(63 + excess, 'b')}; }},
      {"spec.architecture_json",
       [](TrainSpec& spec, size_t excess) {
         spec.architecture_json.resize(size_t{64} << 10, ' ');
         spec.architecture_json.append(excess, ' ');
       }},
  };
  for (const Limit& limit : limits) {
    SubmitOptions check;
    check.validate_only = true;
    TrainSpec spec = ToyTraining();
    limit.fill(spec, 0);
    const absl::Status taken = manager_->Submit(spec, check).status();
    EXPECT_TRUE(taken.ok()) << limit.field << ": " << taken;
    spec = ToyTraining();
    limit.fill(spec, 1);
    ExpectRefused(spec, limit.field);
  }
  TrainSpec spec = ToyTraining();
  spec.dataset = "png:" + std::string(8192, '/');
  ExpectRefused(spec, "spec.dataset");
  PublishTeacher();
  DistillSpec distill = ToyDistillation("student");
  distill.description = std::string(4097, 'd');
  ExpectRefused(distill, "spec.description");
}

TEST_F(JobLimitsTest, EvaluationsTakeListsOfABoundedLength) {
  struct Limit {
    std::string field;
    std::function<void(EvaluateSpec& spec, size_t count)> fill;
  };
  const std::vector<Limit> limits = {
      {"steps", [](EvaluateSpec& spec, size_t count) { spec.steps.assign(count, 2); }},
      {"other_models", [](EvaluateSpec& spec, size_t count) { spec.other_models.assign(count, "teacher"); }},
      {"schedule_sets",
       [](EvaluateSpec& spec, size_t count) {
         for (size_t i = 0; i < count; ++i) spec.schedules.sets.push_back(absl::StrCat("set-", i));
       }},
      {"time_grids", [](EvaluateSpec& spec, size_t count) { spec.schedules.time_grids.assign(count, {0, 0.5, 1}); }},
  };
  PublishTeacher();
  for (const Limit& limit : limits) {
    EvaluateSpec spec;
    spec.model = "teacher";
    limit.fill(spec, 64);
    const absl::Status taken = ValidateSpec(spec);
    EXPECT_TRUE(taken.ok()) << limit.field << ": " << taken;
    spec = {};
    spec.model = "teacher";
    limit.fill(spec, 65);
    ExpectRefused(spec, "spec." + limit.field);
    DistillSpec distill = ToyDistillation("student");
    distill.evaluation = spec;
    ExpectRefused(distill, "spec.evaluation." + limit.field);
  }
  EvaluateSpec spec;
  spec.model = "teacher";
  spec.reference_dataset = "png:" + std::string(8192, '/');
  ExpectRefused(spec, "spec.reference_dataset");
}

TEST_F(JobLimitsTest, NoJobIsKeptForLongerThanTheServerKeepsThem) {
  options_.retention = absl::Hours(2);
  Start();
  SubmitOptions options;
  options.retention = absl::Hours(2) + absl::Seconds(1);
  ExpectRefused(ToyTraining(), "options.retention", options);
  options.retention = absl::Hours(2);
  EXPECT_EQ(Submit(ToyTraining(), options).retention, absl::Hours(2));
}

TEST_F(JobLimitsTest, AJobOfManyPreviewsAndCheckpointsTellsNoMoreThanOthers) {
  std::vector<uint8_t> pixels(8 * 64), labels(8);
  for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<uint8_t>(i);
  WriteIdx(folder_ / "data/images.idx", {8, 8, 8}, pixels);
  WriteIdx(folder_ / "data/labels.idx", {8}, labels);
  TrainSpec spec = ToyTraining();
  spec.dataset = "idx:" + (folder_ / "data/images.idx") + "," + (folder_ / "data/labels.idx");
  spec.architecture_json = boss::testing::kTinyImageArchitecture;
  spec.default_steps = 1;
  spec.training.train_steps = 100;
  spec.training.batch_size = 1;
  spec.training.checkpoint_interval = 1;
  spec.training.preview_interval = 1;
  spec.training.preview_samples = 1;
  executor_.set_unit_time(absl::ZeroDuration());
  const Job job = RunToSuccess(spec);
  const std::vector<JobEvent> events = Follow(job.id);
  EXPECT_LT(events.size(), 20);
  // The first and the last of each.
  const auto previews = PayloadsOf<JobPreview>(events);
  ASSERT_EQ(previews.size(), 2);
  EXPECT_EQ(previews[0].train_step, 1);
  EXPECT_EQ(previews[1].train_step, 100);
  const auto metrics = PayloadsOf<JobMetrics>(events);
  ASSERT_EQ(metrics.size(), 2);
  EXPECT_EQ(metrics[0].train_step, 1);
  EXPECT_EQ(metrics[1].train_step, 100);
}

}  // namespace
}  // namespace boss::server
