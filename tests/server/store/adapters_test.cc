// Versions that are low-rank deltas on others.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "server/store/store_files.h"
#include "tests/server/store/store_fixture.h"

namespace boss::server::testing {
namespace {

class AdaptersTest : public StoreTest {
 protected:
  void SetUp() override { Open(); }

  // Rank 2, alpha 4, every delta far from zero.
  Safetensors Deltas(uint64_t seed) {
    const std::unique_ptr<VelocityModel> tuned = Network(1);
    EXPECT_TRUE(tuned->AttachLora({2, 4.0}, seed).ok());
    const c10::NoGradGuard no_grad;
    for (const auto& [name, tensor] : tuned->Parameters()) tensor.add_(0.125 * static_cast<double>(seed));
    return AdapterContents(*tuned, {2, 4.0});
  }
  VersionKey PublishDeltas(const VersionKey& base, const std::string& name, uint64_t seed) {
    Manifest manifest = PlainManifest();
    manifest.parent = base.ToString();
    manifest.adapter = AdapterInfo{base, 2, 4.0};
    manifest.job_id = "job";
    NativeSchedule native;
    native.kind = "uniform";
    native.schedule.time_grid = TimeGrid::Uniform(2);
    manifest.schedules = {native};
    const auto key = store_->Publish(name, manifest, Deltas(seed));
    EXPECT_TRUE(key.ok()) << key.status();
    return key.ok() ? *key : VersionKey{};
  }
  // What `model` computes with `deltas` merged.
  static at::Tensor Velocity(VelocityModel& model, const Safetensors* deltas) {
    if (deltas != nullptr) {
      EXPECT_TRUE(LoadAdapter(model, *deltas).ok());
      model.MergeLora();
    }
    const c10::NoGradGuard no_grad;
    return model.Velocity(at::linspace(-1, 1, 6).view({3, 2}), at::full({3}, 0.4), {});
  }
};

TEST_F(AdaptersTest, TheFileSaysWhatItsBaseIs) {
  const VersionKey base = Publish(1), key = PublishDeltas(base, "tuned", 3);
  const auto contents = ReadSafetensors(File(key, kAdapterFile));
  ASSERT_TRUE(contents.ok()) << contents.status();
  EXPECT_EQ(contents->metadata.at(kAdapterBaseMetadata), "toy@1");
  EXPECT_EQ(contents->metadata.at(kAdapterBaseDigestMetadata),
            store_->GetVersion(base)->manifest.sha256.at(kWeightsFile));
}

TEST_F(AdaptersTest, DeltasOnDeltasAreDeltasOnTheWeightsBelow) {
  const VersionKey base = Publish(1), lower = PublishDeltas(base, "lower", 3), upper = PublishDeltas(lower, "upper", 5);
  const auto one = store_->LoadAdapterWeights(lower), both = store_->LoadAdapterWeights(upper);
  ASSERT_TRUE(one.ok() && both.ok()) << one.status() << both.status();
  EXPECT_EQ(one->base, base);
  EXPECT_EQ(both->base, base);
  const at::Tensor of_lower = Velocity(*Network(1), &one->deltas), of_both = Velocity(*Network(1), &both->deltas);
  EXPECT_TRUE(at::allclose(of_lower, Velocity(**store_->LoadVersionModel(lower), nullptr), 1e-5, 1e-6));
  EXPECT_TRUE(at::allclose(of_both, Velocity(**store_->LoadVersionModel(upper), nullptr), 1e-5, 1e-6));
  EXPECT_FALSE(at::allclose(of_both, of_lower, 0.01, 0.01));
  EXPECT_TRUE(absl::IsFailedPrecondition(store_->LoadAdapterWeights(base).status()));
  ASSERT_TRUE(store_->DeleteVersion(base, /*force=*/true).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(store_->LoadAdapterWeights(upper).status()));
}

TEST_F(AdaptersTest, MergingGivesAVersionOfItsOwnWithTheSchedules) {
  const VersionKey base = Publish(1), key = PublishDeltas(base, "tuned", 3);
  ASSERT_TRUE(store_->AddScheduleSet(key, ScheduleSetOf(6, 1.0)).ok());
  const at::Tensor expected = Velocity(**store_->LoadVersionModel(key), nullptr);
  const auto merged = store_->MergeAdapter(key, "whole", "for the fair");
  ASSERT_TRUE(merged.ok()) << merged.status();
  EXPECT_EQ(*merged, (VersionKey{"whole", 1}));
  const Manifest manifest = store_->GetVersion(*merged)->manifest;
  EXPECT_FALSE(manifest.adapter.has_value());
  EXPECT_EQ(manifest.parent, "tuned@1");
  EXPECT_EQ(manifest.job_id, "");
  EXPECT_EQ(manifest.description, "for the fair");
  EXPECT_EQ(manifest.schedules.size(), 1);
  EXPECT_EQ(store_->ListScheduleSets(*merged)->size(), 1);
  // Nothing holds the adapter and its base for it, and another run of the server finds it whole.
  ASSERT_TRUE(store_->DeleteVersion(key, false).ok());
  ASSERT_TRUE(store_->DeleteVersion(base, false).ok());
  Open();
  EXPECT_TRUE(at::equal(Velocity(**store_->LoadVersionModel(*merged), nullptr), expected));
  EXPECT_EQ(store_->ListScheduleSets(*merged)->size(), 1);
  EXPECT_TRUE(absl::IsFailedPrecondition(store_->MergeAdapter(*merged, "again", "").status()));
}

TEST_F(AdaptersTest, DeltasThatDoNotFitAreRefused) {
  const VersionKey base = Publish(1);
  Manifest manifest = PlainManifest();
  manifest.adapter = AdapterInfo{base, 2, 4.0};
  Safetensors odd = Deltas(3);
  odd.tensors.pop_back();
  EXPECT_TRUE(absl::IsInvalidArgument(store_->Publish("tuned", manifest, odd).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(store_->Publish("tuned", manifest, Network(1)->State()).status()));
  manifest.adapter->base.version = 7;
  EXPECT_TRUE(absl::IsFailedPrecondition(store_->Publish("tuned", manifest, Deltas(3)).status()));
}

}  // namespace
}  // namespace boss::server::testing
