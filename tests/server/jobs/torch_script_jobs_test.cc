// Jobs on networks that come with their own code.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <string>

#include "core/base/error_details.h"
#include "core/flow/noise.h"
#include "tests/server/jobs/job_fixture.h"
#include "tests/support/script_modules.h"

namespace boss::server {
namespace {

using boss::testing::kScriptVectorArchitecture;

class TorchScriptJobsTest : public testing::JobTest {
 protected:
  TorchScriptJobsTest() {
    store_options_.allow_torchscript = true;
    Start();
  }
  VersionKey PublishScript(const std::string& architecture, const VersionFiles& others = {}) {
    Manifest manifest;
    manifest.architecture_json = architecture;
    const auto key =
        store_->PublishArchive("teacher", std::move(manifest), *boss::testing::ScriptVectorArchive(), others);
    EXPECT_TRUE(key.ok()) << key.status();
    return *key;
  }
};

TEST_F(TorchScriptJobsTest, AModuleGetsSchedulesAndIsStraightened) {
  const VersionKey teacher_key = PublishScript(kScriptVectorArchitecture);
  OptimizeStepsizesSpec search;
  search.model = "teacher";
  search.k_max = 8;
  search.num_samples = 16;
  RunToSuccess(search);
  const auto set = store_->FindScheduleSet(teacher_key, 1.0);
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_EQ((*set)->set.schedules.size(), 8u);

  DistillSpec spec = ToyDistillation("student");
  spec.training.trainer.learning_rate = 1e-2;
  spec.training.trainer.ema_rate = 0;
  const Job job = RunToSuccess(spec);
  const auto teacher = store_->LoadVersionModel(teacher_key);
  ASSERT_TRUE(teacher.ok()) << teacher.status();
  const std::unique_ptr<VelocityModel> student = Output(job);
  const auto before = (*teacher)->Parameters(), after = student->Parameters();
  ASSERT_EQ(before.size(), after.size());
  for (size_t i = 0; i < before.size(); ++i) EXPECT_FALSE(before[i].second.equal(after[i].second)) << before[i].first;
  // The new archive carries its code: it computes without the old one.
  ASSERT_TRUE(store_->DeleteVersion(teacher_key, /*force=*/true).ok());
  const at::Tensor noise = SampleNoise(1, 0, 4, {2});
  EXPECT_TRUE(
      Output(job)->Velocity(noise, at::full({4}, 0.5), {}).equal(student->Velocity(noise, at::full({4}, 0.5), {})));
}

TEST_F(TorchScriptJobsTest, AnAdapterIsRefusedAtOnce) {
  PublishScript(kScriptVectorArchitecture);
  DistillSpec spec = ToyDistillation("student");
  spec.lora = LoraSpec{};
  const absl::Status status = manager_->Submit(spec, {}).status();
  EXPECT_TRUE(absl::IsUnimplemented(status)) << status;
  EXPECT_EQ(FieldOf(status), "spec.lora");
}

TEST_F(TorchScriptJobsTest, WhatIsNotTrainableIsNotTrained) {
  PublishScript(R"({"model": {"architecture": "torchscript", "sample_shape": [2], "trainable": false}})");
  const absl::Status status = manager_->Submit(ToyDistillation("student"), {}).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_EQ(FieldOf(status), "spec.model");
  // Schedules it gets.
  OptimizeStepsizesSpec search;
  search.model = "teacher";
  search.k_max = 4;
  search.num_samples = 8;
  RunToSuccess(search);
}

TEST_F(TorchScriptJobsTest, AStudentKeepsTheDecoder) {
  const auto decoder = boss::testing::ScriptDecoderArchive();
  PublishScript(
      R"({"model": {"architecture": "torchscript", "sample_shape": [2]}, "decoder": {"decoded_shape": [1, 4, 4]}})",
      {{"decoder.torchscript", *decoder}});
  const Job job = RunToSuccess(ToyDistillation("student"));
  const auto loaded = store_->LoadVersionDecoder(*store_->Resolve(job.output_version));
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  ASSERT_NE(*loaded, nullptr);
  EXPECT_EQ((*loaded)->decoded_shape(), (std::vector<int64_t>{1, 4, 4}));
}

}  // namespace
}  // namespace boss::server
