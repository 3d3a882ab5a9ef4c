#include "server/engine/model_registry.h"

#include <filesystem>
#include <fstream>

#include <c10/core/InferenceMode.h>

#include "core/flow/noise.h"
#include "core/nets/prepared_convolution.h"
#include "tests/server/engine/engine_fixture.h"

namespace boss::server {
namespace {

using Model = std::shared_ptr<const LoadedModel>;

class ModelRegistryTest : public testing::EngineTest {
 protected:
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
};

TEST(ModelStateTest, FollowsTheTableAndNothingElse) {
  using enum ModelState;
  using Row = std::tuple<ModelState, ModelEvent, ModelState>;
  const std::vector<Row> allowed = {
      {kUnloaded, ModelEvent::kLoad, kLoading},      {kLoading, ModelEvent::kLoaded, kReady},
      {kLoading, ModelEvent::kFailed, kFailed},      {kFailed, ModelEvent::kLoad, kLoading},
      {kFailed, ModelEvent::kUnload, kUnloaded},     {kReady, ModelEvent::kUnload, kUnloading},
      {kUnloading, ModelEvent::kReleased, kUnloaded}};
  for (const ModelState state : {kUnloaded, kLoading, kReady, kUnloading, kFailed}) {
    for (const ModelEvent event :
         {ModelEvent::kLoad, ModelEvent::kLoaded, ModelEvent::kFailed, ModelEvent::kUnload, ModelEvent::kReleased}) {
      std::optional<ModelState> expected;
      for (const auto& [from, with, to] : allowed) {
        if (from == state && with == event) expected = to;
      }
      EXPECT_EQ(NextModelState(state, event), expected);
    }
  }
}

TEST_F(ModelRegistryTest, LoadsAVersionOnce) {
  EXPECT_EQ(State(vectors_), ModelState::kUnloaded);
  const auto first = Acquire(vectors_), second = Acquire(vectors_);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(*first, *second);
  EXPECT_EQ((*first)->key, vectors_);
  EXPECT_GT((*first)->memory_bytes, 0);
  EXPECT_EQ(State(vectors_), ModelState::kReady);
  EXPECT_EQ(registry_->NumReady(), 1);
}

TEST_F(ModelRegistryTest, ServesInThePrecisionThatWasChosen) {
  if (!SupportsBfloat16(at::kCPU)) GTEST_SKIP() << "this processor has no bfloat16 instructions";
  const VersionKey images =
      boss::testing::PublishTinyModel(*store_, "images", boss::testing::kTinyImageArchitecture);
  const auto velocity = [&] {
    const auto model = Acquire(images);
    EXPECT_TRUE(model.ok()) << model.status();
    const c10::InferenceMode inference_mode;
    return (*model)->runner->Velocity(SampleNoise(1, 0, 4, (*model)->network->SampleShape()), at::full({4}, 0.5), {});
  };
  const at::Tensor exact = velocity();
  registry_ = std::make_unique<ModelRegistry>(*store_, ModelRegistryOptions{.precision = Precision::kBfloat16});
  const at::Tensor rounded = velocity();
  EXPECT_FALSE(at::equal(rounded, exact));
  EXPECT_LT(((rounded - exact).norm() / exact.norm()).item<double>(), 0.05);
}

TEST_F(ModelRegistryTest, AnUnloadedVersionLivesUntilItsLastUserIsDone) {
  auto user = Acquire(vectors_);
  ASSERT_TRUE(user.ok()) << user.status();
  ASSERT_TRUE(registry_->Unload(vectors_).ok());
  EXPECT_EQ(State(vectors_), ModelState::kUnloading);
  EXPECT_EQ((*user)->network->NumClasses(), 3);
  EXPECT_TRUE(absl::IsUnavailable(Acquire(vectors_).status()));
  user = absl::UnknownError("");
  EXPECT_EQ(State(vectors_), ModelState::kUnloaded);
  EXPECT_EQ(registry_->Status(vectors_).memory_bytes, 0);
  EXPECT_TRUE(Acquire(vectors_).ok());
}

TEST_F(ModelRegistryTest, ACorruptVersionFailsAlone) {
  const VersionKey corrupt =
      boss::testing::PublishTinyModel(*store_, "corrupt", boss::testing::kTinyVectorArchitecture);
  const std::string path = folder_ / "models/corrupt/1/model.safetensors";
  const auto whole = std::filesystem::file_size(path);
  std::filesystem::resize_file(path, whole / 2);
  // It is tried again when it is asked for again.
  for (int attempt = 0; attempt < 2; ++attempt) {
    const absl::Status status = Acquire(corrupt).status();
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_EQ(State(corrupt), ModelState::kFailed);
    EXPECT_TRUE(absl::IsDataLoss(registry_->Status(corrupt).error));
    EXPECT_TRUE(Acquire(vectors_).ok());
  }
  EXPECT_TRUE(store_->DeleteVersion(corrupt, false).ok());  // what could not be loaded is not in use
}

TEST_F(ModelRegistryTest, AVersionInMemoryIsInUse) {
  auto user = Acquire(vectors_);
  ASSERT_TRUE(user.ok()) << user.status();
  const absl::Status refused = store_->DeleteVersion(vectors_, false);
  EXPECT_TRUE(absl::IsFailedPrecondition(refused)) << refused;
  EXPECT_NE(std::string(refused.message()).find("loaded"), std::string::npos) << refused;
  ASSERT_TRUE(registry_->Unload(vectors_).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(store_->DeleteVersion(vectors_, false)));  // somebody still samples from it
  user = absl::UnknownError("");
  EXPECT_TRUE(store_->DeleteVersion(vectors_, false).ok());
}

TEST_F(ModelRegistryTest, UnloadingWhatIsNotLoadedChangesNothing) {
  EXPECT_TRUE(registry_->Unload(vectors_).ok());
  EXPECT_EQ(State(vectors_), ModelState::kUnloaded);
}

TEST_F(ModelRegistryTest, TellsTheShapeWithoutLoading) {
  const auto shape = registry_->Shape(vectors_);
  ASSERT_TRUE(shape.ok()) << shape.status();
  EXPECT_EQ(shape->sample_shape, std::vector<int64_t>{2});
  EXPECT_EQ(shape->num_classes, 3);
  EXPECT_EQ(shape->parameter_count,
            ParameterCount(*boss::testing::TinyModel(boss::testing::kTinyVectorArchitecture, 1)));
  EXPECT_EQ(State(vectors_), ModelState::kUnloaded);
}

TEST_F(ModelRegistryTest, ABudgetEvictsTheLeastRecentlyUsedOfTheIdle) {
  const VersionKey a = vectors_;
  const VersionKey b = boss::testing::PublishTinyModel(*store_, "b", boss::testing::kTinyVectorArchitecture);
  const VersionKey c = boss::testing::PublishTinyModel(*store_, "c", boss::testing::kTinyVectorArchitecture);
  const int64_t bytes = (*Acquire(a))->memory_bytes;
  engine_.reset();
  registry_ = std::make_unique<ModelRegistry>(*store_, ModelRegistryOptions{.memory_budget = 2 * bytes});
  ASSERT_TRUE(Acquire(a).ok() && Acquire(b).ok() && Acquire(a).ok());
  ASSERT_TRUE(Acquire(c).ok());  // b is the one that was used longest ago
  EXPECT_EQ(State(a), ModelState::kReady);
  EXPECT_EQ(State(b), ModelState::kUnloaded);
  EXPECT_EQ(State(c), ModelState::kReady);
  EXPECT_EQ(registry_->MemoryBytes(), 2 * bytes);

  // Those in use stay, and what does not fit beside them is refused.
  const auto user_a = Acquire(a), user_c = Acquire(c);
  const absl::Status refused = Acquire(b).status();
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  EXPECT_EQ(State(b), ModelState::kFailed);
  EXPECT_EQ(registry_->MemoryBytes(), 2 * bytes);
  EXPECT_EQ((*user_a)->network->NumClasses(), 3);
}

TEST_F(ModelRegistryTest, AVersionThatWasRefusedLoadsOnceThereIsRoom) {
  const VersionKey b = boss::testing::PublishTinyModel(*store_, "b", boss::testing::kTinyVectorArchitecture);
  const int64_t bytes = (*Acquire(vectors_))->memory_bytes;
  engine_.reset();
  registry_ = std::make_unique<ModelRegistry>(*store_, ModelRegistryOptions{.memory_budget = bytes});
  auto user = Acquire(vectors_);
  ASSERT_TRUE(absl::IsResourceExhausted(Acquire(b).status()));
  user = absl::UnknownError("");
  EXPECT_TRUE(Acquire(b).ok());
  EXPECT_EQ(State(vectors_), ModelState::kUnloaded);
}

TEST_F(ModelRegistryTest, AModelMayOutliveTheRegistry) {
  auto user = Acquire(vectors_);
  ASSERT_TRUE(user.ok());
  engine_.reset();
  registry_.reset();
  EXPECT_EQ((*user)->network->NumClasses(), 3);
}

}  // namespace
}  // namespace boss::server
