// Adapters of one base in one device's memory.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <vector>

#include "core/finetune/lora.h"
#include "tests/server/engine/engine_fixture.h"

namespace boss::server {
namespace {

using Model = std::shared_ptr<const LoadedModel>;

// The network that the server comes with.
constexpr char kFashionArchitecture[] = R"({
  "model": {"architecture": "ncsnpp", "image_size": 28, "channels": 1, "nf": 32, "ch_mult": [1, 2], "num_res_blocks": 1,
            "attn_resolutions": [7], "num_classes": 10, "patch_size": 2},
  "time": {"eps": 0.001, "scale": 999}})";

class AdapterMemoryTest : public testing::EngineTest {
 protected:
  // An adapter whose every delta is far from zero, as the next version of `name`.
  VersionKey PublishAdapter(const VersionKey& base, const std::string& name, uint64_t seed, int rank = 2) {
    const VersionInfo info = *store_->GetVersion(base);
    const auto network = *CreateModel(info.manifest.architecture_json, 1);
    EXPECT_TRUE(network->AttachLora({rank, 4.0}, seed).ok());
    at::Generator generator = at::detail::createCPUGenerator(seed);
    for (const auto& [tensor_name, tensor] : network->Parameters())
      tensor.detach().add_(at::randn(tensor.sizes(), generator), 0.2);
    Manifest manifest;
    manifest.architecture_json = info.manifest.architecture_json;
    manifest.parent = base.ToString();
    manifest.adapter = AdapterInfo{base, rank, 4.0};
    const auto key = store_->Publish(name, manifest, AdapterContents(*network, {rank, 4.0}));
    EXPECT_TRUE(key.ok()) << key.status();
    return key.ok() ? *key : VersionKey{};
  }

  absl::StatusOr<Model> Acquire(const VersionKey& key) {
    absl::Notification done;
    absl::StatusOr<Model> model = absl::UnknownError("");
    registry_->Acquire(key, [&](absl::StatusOr<Model> result) {
      model = std::move(result);
      done.Notify();
    });
    done.WaitForNotification();
    return model;
  }
  ModelState State(const VersionKey& key) const { return registry_->Status(key).state; }
  int64_t Bytes(const VersionKey& key) const { return registry_->Status(key).memory_bytes; }
  void NewRegistry(int64_t memory_budget) {
    engine_.reset();
    registry_ = std::make_unique<ModelRegistry>(*store_, ModelRegistryOptions{.memory_budget = memory_budget});
  }
  static at::Tensor VelocityOf(const VelocityModel& network) {
    const c10::InferenceMode inference_mode;
    const at::Tensor x = at::linspace(-1, 1, 6).view({3, 2}), t = at::full({3}, 0.3);
    return network.Velocity(x, t, {});
  }
  // What the version computes once it is merged.
  at::Tensor MergedVelocity(const VersionKey& key) { return VelocityOf(**store_->LoadVersionModel(key)); }
};

TEST_F(AdapterMemoryTest, FourAdaptersOfTheFashionNetworkTakeLittleBesideIt) {
  const VersionKey base = boss::testing::PublishTinyModel(*store_, "fashion", kFashionArchitecture);
  const int64_t alone = (*Acquire(base))->memory_bytes;
  std::vector<VersionKey> adapters;
  for (uint64_t seed = 1; seed <= 4; ++seed) adapters.push_back(PublishAdapter(base, "tuned", seed, /*rank=*/4));
  for (const VersionKey& key : adapters) ASSERT_TRUE(Acquire(key).ok());
  EXPECT_EQ(registry_->NumReady(), 5);
  EXPECT_EQ(Bytes(base), alone);
  EXPECT_GT(registry_->MemoryBytes(), alone);
  EXPECT_LT(static_cast<double>(registry_->MemoryBytes()), 1.3 * static_cast<double>(alone));
}

TEST_F(AdapterMemoryTest, AnAdapterBringsItsBaseAndComputesWhatTheMergedVersionDoes) {
  const VersionKey first = PublishAdapter(vectors_, "first", 1), second = PublishAdapter(vectors_, "second", 2);
  const auto a = Acquire(first), b = Acquire(second);
  ASSERT_TRUE(a.ok() && b.ok()) << a.status() << b.status();
  EXPECT_EQ(State(vectors_), ModelState::kReady);
  EXPECT_EQ((*a)->base, (*b)->base);
  EXPECT_EQ(*Acquire(vectors_), (*a)->base);
  EXPECT_TRUE(at::allclose(VelocityOf(*(*a)->network), MergedVelocity(first), 1e-5, 1e-6));
  EXPECT_TRUE(at::allclose(VelocityOf(*(*b)->network), MergedVelocity(second), 1e-5, 1e-6));
  EXPECT_TRUE(at::equal(VelocityOf(*(*a)->base->network), MergedVelocity(vectors_)));
  EXPECT_FALSE(at::allclose(MergedVelocity(first), MergedVelocity(second), 0.01, 0.01));
  // The description is the base's: what is trainable is not what is shared.
  EXPECT_EQ(registry_->Shape(first)->parameter_count, registry_->Shape(vectors_)->parameter_count);
}

TEST_F(AdapterMemoryTest, AnAdapterOfAnAdapterSharesTheSameWeights) {
  const VersionKey lower = PublishAdapter(vectors_, "lower", 1), upper = PublishAdapter(lower, "upper", 2, /*rank=*/3);
  const auto model = Acquire(upper);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ((*model)->base->key, vectors_);
  EXPECT_EQ(State(lower), ModelState::kUnloaded);
  EXPECT_TRUE(at::allclose(VelocityOf(*(*model)->network), MergedVelocity(upper), 1e-5, 1e-6));
}

TEST_F(AdapterMemoryTest, TheBaseStaysWhileAnAdapterIsInMemory) {
  const VersionKey adapter = PublishAdapter(vectors_, "tuned", 1), later = PublishAdapter(vectors_, "later", 2);
  const at::Tensor expected = MergedVelocity(adapter);
  ASSERT_TRUE(Acquire(adapter).ok());
  ASSERT_TRUE(registry_->Unload(vectors_).ok());
  EXPECT_EQ(State(vectors_), ModelState::kUnloading);
  EXPECT_GT(Bytes(vectors_), 0);
  // Another one finds what is still there.
  const int64_t before = registry_->MemoryBytes();
  ASSERT_TRUE(Acquire(later).ok());
  EXPECT_EQ(registry_->MemoryBytes(), before + Bytes(later));
  ASSERT_TRUE(registry_->Unload(later).ok());
  EXPECT_EQ(State(vectors_), ModelState::kUnloading);
  EXPECT_TRUE(at::allclose(VelocityOf(*(*Acquire(adapter))->network), expected, 1e-5, 1e-6));
  ASSERT_TRUE(registry_->Unload(adapter).ok());
  EXPECT_EQ(State(vectors_), ModelState::kUnloaded);
  EXPECT_EQ(registry_->MemoryBytes(), 0);
}

TEST_F(AdapterMemoryTest, ADeletedBaseServesTheAdaptersThatAreInMemory) {
  const VersionKey adapter = PublishAdapter(vectors_, "tuned", 1), later = PublishAdapter(vectors_, "later", 2);
  const at::Tensor expected = MergedVelocity(adapter);
  ASSERT_TRUE(Acquire(adapter).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(store_->DeleteVersion(vectors_, /*force=*/false)));
  ASSERT_TRUE(registry_->Unload(vectors_).ok());
  ASSERT_TRUE(store_->DeleteVersion(vectors_, /*force=*/true).ok());
  EXPECT_TRUE(at::allclose(VelocityOf(*(*Acquire(adapter))->network), expected, 1e-5, 1e-6));
  SampleRequest request = Request(2, 3);
  request.model = "tuned";
  EXPECT_TRUE(Run(request)->status.ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(Acquire(later).status()));
}

TEST_F(AdapterMemoryTest, WhatIsWrongWithTheBaseFailsTheAdapter) {
  const VersionKey adapter = PublishAdapter(vectors_, "tuned", 1);
  std::filesystem::resize_file(folder_ / "models/vectors/1/model.safetensors", 50);
  EXPECT_TRUE(absl::IsDataLoss(Acquire(adapter).status()));
  EXPECT_EQ(State(adapter), ModelState::kFailed);
  EXPECT_EQ(State(vectors_), ModelState::kFailed);
  EXPECT_EQ(registry_->MemoryBytes(), 0);
}

TEST_F(AdapterMemoryTest, IdleAdaptersAreEvictedBeforeTheirBase) {
  const VersionKey first = PublishAdapter(vectors_, "first", 1), second = PublishAdapter(vectors_, "second", 2);
  const VersionKey other = boss::testing::PublishTinyModel(*store_, "other", boss::testing::kTinyVectorArchitecture);
  ASSERT_TRUE(Acquire(first).ok() && Acquire(second).ok());
  const int64_t base = Bytes(vectors_), adapter = Bytes(first);
  ASSERT_LT(adapter, base);
  ASSERT_EQ(Bytes(second), adapter);

  // Room for the base and one adapter: the one that was used longest ago goes, the base stays for the other.
  NewRegistry(base + adapter);
  ASSERT_TRUE(Acquire(first).ok());
  ASSERT_TRUE(Acquire(second).ok());
  EXPECT_EQ(State(first), ModelState::kUnloaded);
  EXPECT_EQ(State(second), ModelState::kReady);
  EXPECT_EQ(State(vectors_), ModelState::kReady);
  EXPECT_EQ(registry_->MemoryBytes(), base + adapter);
  // A version of its own needs more than the adapter frees: with the adapter, its base is idle.
  ASSERT_TRUE(Acquire(other).ok());
  EXPECT_EQ(State(second), ModelState::kUnloaded);
  EXPECT_EQ(State(vectors_), ModelState::kUnloaded);
  EXPECT_EQ(registry_->MemoryBytes(), base);

  // While somebody samples from an adapter, its base is not idle.
  ASSERT_TRUE(registry_->Unload(other).ok());
  const auto user = Acquire(first);
  ASSERT_TRUE(user.ok()) << user.status();
  EXPECT_TRUE(absl::IsResourceExhausted(Acquire(other).status()));
  EXPECT_EQ(State(first), ModelState::kReady);
  EXPECT_EQ(State(vectors_), ModelState::kReady);
}

TEST_F(AdapterMemoryTest, RequestsForTheBaseAndForItsAdapterDoNotMeet) {
  const VersionKey adapter = PublishAdapter(vectors_, "tuned", 1);
  SampleRequest of_base = Request(4, 5), of_adapter = of_base;
  of_adapter.model = "tuned";
  const at::Tensor base_alone = Run(of_base)->Values(), adapter_alone = Run(of_adapter)->Values();
  EXPECT_FALSE(at::allclose(base_alone, adapter_alone, 0.01, 0.01));
  CloseDevice();
  const auto first = std::make_shared<testing::CollectingSink>(), second = std::make_shared<testing::CollectingSink>();
  Submit(of_base, first);
  Submit(of_adapter, second);
  OpenDevice();
  first->Wait();
  second->Wait();
  EXPECT_TRUE(at::allclose(first->Values(), base_alone, 1e-5, 1e-6));
  EXPECT_TRUE(at::allclose(second->Values(), adapter_alone, 1e-5, 1e-6));
}

}  // namespace
}  // namespace boss::server
