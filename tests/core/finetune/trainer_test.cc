#include "core/finetune/trainer.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>

#include "absl/strings/match.h"
#include "core/nets/factory.h"

namespace boss {
namespace {

std::unique_ptr<VelocityModel> SmallModel() {
  return *CreateModel(R"({"model": {"architecture": "mlp", "dim": 2, "hidden": 16, "layers": 2}})", 1);
}

// Fits v(x, t) = -x on random points; a loss that is not finite on demand.
class FitMinusX final : public TrainingObjective {
 public:
  explicit FitMinusX(int64_t batch_size = 8) : batch_size_(batch_size) {}
  at::Tensor Loss(const VelocityModel& model, at::Generator& generator) override {
    const at::Tensor x = at::randn({batch_size_, 2}, generator), t = at::rand({batch_size_}, generator);
    const at::Tensor loss = (model.Velocity(x, t, {}) + x).square().mean();
    return poisoned ? loss * std::numeric_limits<double>::quiet_NaN() : loss;
  }
  int64_t batch_size() const override { return batch_size_; }
  bool poisoned = false;

 private:
  int64_t batch_size_;
};

TrainerOptions Options() {
  TrainerOptions options;
  options.learning_rate = 1e-2;
  options.warmup_steps = 5;
  options.ema_rate = 0.9;
  options.seed = 11;
  return options;
}

bool SameState(const Trainer& a, const Trainer& b) {
  const TrainerState left = a.SaveState(), right = b.SaveState();
  for (size_t i = 0; i < left.size(); ++i) {
    if (left[i].first != right[i].first || !at::equal(left[i].second, right[i].second)) return false;
  }
  return left.size() == right.size();
}

TEST(TrainerTest, Learns) {
  Trainer trainer(SmallModel(), Options());
  FitMinusX objective(64);
  double first = 0, last = 0;
  for (int i = 0; i < 300; ++i) {
    const auto metrics = trainer.Step(objective);
    ASSERT_TRUE(metrics.ok()) << metrics.status();
    if (i == 0) first = metrics->loss;
    last = metrics->loss;
  }
  EXPECT_LT(last, 0.05 * first);
  EXPECT_EQ(trainer.step(), 300);
}

TEST(TrainerTest, RestoredStateContinuesBitForBit) {
  FitMinusX objective;
  Trainer undisturbed(SmallModel(), Options()), first(SmallModel(), Options());
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(undisturbed.Step(objective).ok());
  for (int i = 0; i < 7; ++i) ASSERT_TRUE(first.Step(objective).ok());
  Trainer second(SmallModel(), Options());
  ASSERT_TRUE(second.RestoreState(first.SaveState()).ok());
  for (int i = 7; i < 20; ++i) ASSERT_TRUE(second.Step(objective).ok());
  EXPECT_TRUE(SameState(undisturbed, second));
  EXPECT_FALSE(SameState(undisturbed, first));
}

TEST(TrainerTest, RefusesStateThatDoesNotFitAndStaysAsItWas) {
  FitMinusX objective;
  Trainer trainer(SmallModel(), Options()), copy(SmallModel(), Options());
  ASSERT_TRUE(trainer.Step(objective).ok());
  ASSERT_TRUE(copy.RestoreState(trainer.SaveState()).ok());

  TrainerState missing = trainer.SaveState();
  missing.erase(missing.begin());
  TrainerState reshaped = trainer.SaveState();
  reshaped[1].second = at::zeros({1});
  TrainerState unknown = trainer.SaveState();
  unknown.emplace_back("extra", at::zeros({1}));
  for (const auto& [state, expected] : {std::pair{missing, "is missing"}, std::pair{reshaped, "has shape [1]"}, std::pair{unknown, "extra is unknown"}}) {
    const absl::Status status = trainer.RestoreState(state);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_TRUE(absl::StrContains(status.message(), expected)) << status;
    EXPECT_TRUE(SameState(trainer, copy));
  }
}

TEST(TrainerTest, WarmsUpAndDecays) {
  TrainerOptions options = Options();
  options.warmup_steps = 4;
  options.decay_steps = 8;
  Trainer trainer(SmallModel(), options);
  FitMinusX objective;
  std::vector<double> rates;
  for (int i = 0; i < 9; ++i) rates.push_back(trainer.Step(objective)->learning_rate);
  for (int i = 0; i < 4; ++i) EXPECT_DOUBLE_EQ(rates[i], 1e-2 * i / 4);
  EXPECT_DOUBLE_EQ(rates[4], 1e-2);
  EXPECT_NEAR(rates[6], 0.5e-2, 1e-12);
  EXPECT_NEAR(rates[8], 0, 1e-12);
}

TEST(TrainerTest, ANonFiniteLossStopsAndChangesNothing) {
  Trainer trainer(SmallModel(), Options()), control(SmallModel(), Options());
  FitMinusX objective;
  ASSERT_TRUE(trainer.Step(objective).ok());
  ASSERT_TRUE(control.Step(objective).ok());
  objective.poisoned = true;
  const auto metrics = trainer.Step(objective);
  EXPECT_EQ(metrics.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(absl::StrContains(metrics.status().message(), "train step 1")) << metrics.status();
  EXPECT_TRUE(SameState(trainer, control));
  objective.poisoned = false;
  ASSERT_TRUE(trainer.Step(objective).ok());
  ASSERT_TRUE(control.Step(objective).ok());
  EXPECT_TRUE(SameState(trainer, control));
}

TEST(TrainerTest, ClippingBoundsTheStepAndReportsTheNormBefore) {
  // With plain Adam the size of a gradient hardly matters, so the bound is seen in the first moment.
  TrainerOptions options = Options();
  options.gradient_clip = 1e-3;
  Trainer trainer(SmallModel(), options);
  FitMinusX objective;
  const auto metrics = trainer.Step(objective);
  ASSERT_TRUE(metrics.ok());
  EXPECT_GT(metrics->gradient_norm, 1e-2);
  double squared = 0;
  for (const auto& [name, tensor] : trainer.SaveState()) {
    if (absl::StartsWith(name, "first_moment.")) squared += tensor.square().sum().item<double>();
  }
  EXPECT_NEAR(std::sqrt(squared), 0.1 * 1e-3, 1e-6);
}

// Eight fixed points in turn, a part of them a batch.
class FixedPoints final : public TrainingObjective {
 public:
  explicit FixedPoints(int64_t batch_size) : points_(at::linspace(-1, 1, 16).view({8, 2})), batch_size_(batch_size) {}
  at::Tensor Loss(const VelocityModel& model, at::Generator&) override {
    const at::Tensor x = points_.slice(0, next_, next_ + batch_size_);
    next_ = (next_ + batch_size_) % 8;
    return (model.Velocity(x, at::zeros({batch_size_}), {}) + x).square().mean();
  }
  int64_t batch_size() const override { return batch_size_; }

 private:
  at::Tensor points_;
  int64_t batch_size_, next_ = 0;
};

TEST(TrainerTest, AccumulatedBatchesEqualOneLargeBatch) {
  TrainerOptions options = Options();
  options.warmup_steps = 0;
  Trainer whole(SmallModel(), options);
  options.accumulation_steps = 4;
  Trainer parts(SmallModel(), options);
  FixedPoints eight(8), two(2);
  for (int i = 0; i < 3; ++i) {
    const auto a = whole.Step(eight), b = parts.Step(two);
    ASSERT_TRUE(a.ok() && b.ok());
    EXPECT_NEAR(a->loss, b->loss, 1e-5 * a->loss);
  }
  const auto a = whole.model().Parameters(), b = parts.model().Parameters();
  for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(at::allclose(a[i].second, b[i].second, 1e-3, 1e-5)) << a[i].first;
}

TEST(TrainerTest, TheEmaModelLagsBehind) {
  Trainer trainer(SmallModel(), Options());
  FitMinusX objective;
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(trainer.Step(objective).ok());
  const auto ema = trainer.EmaModel()->Parameters(), weights = trainer.model().Parameters(), start = SmallModel()->Parameters();
  EXPECT_FALSE(at::equal(ema[0].second, weights[0].second));
  const double from_start = (ema[0].second - start[0].second).norm().item<double>();
  EXPECT_GT(from_start, 0);
  EXPECT_LT(from_start, (weights[0].second - start[0].second).norm().item<double>());
}

}  // namespace
}  // namespace boss
