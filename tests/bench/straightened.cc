#include "tests/bench/straightened.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "core/finetune/objectives.h"
#include "core/finetune/trainer.h"
#include "core/flow/noise.h"
#include "core/io/safetensors.h"
#include "core/nets/factory.h"
#include "core/solver/record_trajectory.h"
#include "tests/bench/embedded_model.h"

namespace boss {
namespace {

constexpr int64_t kNoises = 768, kHeldOut = 76;
constexpr int64_t kTrainSteps = 800, kTrainBatch = 32, kSaveInterval = 50;
constexpr int64_t kBatch = 32;
constexpr uint64_t kPairSeed = 10'000'000;
constexpr TrainerOptions kTrainer{.learning_rate = 2e-4, .warmup_steps = 100, .seed = 1};
constexpr char kStates[] = "states";

}  // namespace

std::vector<int> Straightening::AllKnots() const {
  std::set<int> points;
  for (const std::vector<int>& knots : knots_) points.insert(knots.begin(), knots.end());
  return {points.begin(), points.end()};
}

absl::StatusOr<at::Tensor> Straightening::States() {
  const std::lock_guard<std::mutex> lock(states_mutex_);
  if (states_.defined()) return states_;
  const StudyOptions& options = study_.options();
  const std::string path = options.results.empty()
                               ? ""
                               : absl::StrFormat("%s.pairs-%s-g%g-k%d-n%d.safetensors", options.results, name_,
                                                 options.guidance_scale, options.k_max, options.fit);
  if (!path.empty()) {
    const absl::StatusOr<Safetensors> stored = ReadSafetensors(path);
    if (stored.ok()) return states_ = stored->Find(kStates);
    if (!absl::IsNotFound(stored.status())) return stored.status();
  }
  const std::vector<int> points = AllKnots();
  const at::Tensor rows = at::tensor(std::vector<int64_t>(points.begin(), points.end()), at::kLong);
  std::vector<at::Tensor> parts(static_cast<size_t>(kNoises / kBatch));
  BOSS_RETURN_IF_ERROR(ParallelFor(options.threads, kNoises / kBatch, [&](int64_t i) -> absl::Status {
    const int64_t begin = i * kBatch, end = begin + kBatch;
    InlineExecutor executor;
    BOSS_ASSIGN_OR_RETURN(
        const Trajectory trajectory,
        RecordTrajectory(study_.model(), SampleNoise(kPairSeed, begin, kBatch, study_.model().SampleShape()),
                         study_.ConditionOf(begin, end), study_.fine_grid(), executor));
    parts[static_cast<size_t>(i)] = trajectory.states.index_select(0, rows);
    return absl::OkStatus();
  }));
  states_ = at::cat(parts, 1);
  if (!path.empty()) BOSS_RETURN_IF_ERROR(WriteSafetensors(path, {{{kStates, states_}}, {}}));
  return states_;
}

absl::StatusOr<at::Tensor> Straightening::StatesOf(int steps) {
  BOSS_ASSIGN_OR_RETURN(const at::Tensor states, States());
  const std::vector<int> points = AllKnots();
  std::vector<int64_t> rows;
  for (const int knot : knots(steps))
    rows.push_back(std::lower_bound(points.begin(), points.end(), knot) - points.begin());
  return states.index_select(0, at::tensor(rows, at::kLong));
}

absl::StatusOr<at::Tensor> Straightening::HeldOutStates(int steps) {
  BOSS_ASSIGN_OR_RETURN(const at::Tensor states, StatesOf(steps));
  return states.slice(1, kNoises - kHeldOut).contiguous();
}

Condition Straightening::HeldOutCondition() const { return study_.ConditionOf(kNoises - kHeldOut, kNoises); }

absl::StatusOr<std::unique_ptr<VelocityModel>> Straightening::Train(int steps, const std::string& path) {
  BOSS_ASSIGN_OR_RETURN(const at::Tensor all, StatesOf(steps));
  const at::Tensor states = all.slice(1, 0, kNoises - kHeldOut);
  const int64_t count = states.size(1);
  BOSS_ASSIGN_OR_RETURN(const TimeGrid grid, study_.fine_grid().At(knots(steps)));
  std::vector<float> times(grid.times().begin(), grid.times().end());
  const at::Tensor t = at::tensor(times);
  SegmentPairs pairs;
  pairs.x_start = states.slice(0, 0, steps).flatten(0, 1).contiguous();
  pairs.x_end = states.slice(0, 1).flatten(0, 1).contiguous();
  pairs.t_start = t.slice(0, 0, steps).repeat_interleave(count);
  pairs.t_end = t.slice(0, 1).repeat_interleave(count);
  pairs.segment = at::arange(steps, at::kLong).repeat_interleave(count);
  pairs.class_labels = study_.ConditionOf(0, count).class_labels.repeat({steps});
  StraighteningObjective objective(std::move(pairs), kTrainBatch, study_.options().guidance_scale);
  BOSS_ASSIGN_OR_RETURN(std::unique_ptr<VelocityModel> model, LoadEmbeddedModel());
  Trainer trainer(std::move(model), kTrainer);
  const std::string state_path = path.empty() ? "" : path + ".training";
  if (!path.empty()) {
    const absl::StatusOr<Safetensors> state = ReadSafetensors(state_path);
    if (state.ok()) BOSS_RETURN_IF_ERROR(trainer.RestoreState(state->tensors));
    if (!state.ok() && !absl::IsNotFound(state.status())) return state.status();
  }
  while (trainer.step() < kTrainSteps) {
    BOSS_RETURN_IF_ERROR(trainer.Step(objective).status());
    if (!path.empty() && trainer.step() % kSaveInterval == 0)
      BOSS_RETURN_IF_ERROR(WriteSafetensors(state_path, {trainer.SaveState(), {}}));
  }
  return trainer.EmaModel();
}

absl::StatusOr<const VelocityModel*> Straightening::Model(int steps) {
  const std::lock_guard<std::mutex> lock(mutexes_[static_cast<size_t>(steps)]);
  std::unique_ptr<VelocityModel>& model = models_[static_cast<size_t>(steps)];
  if (model != nullptr) return model.get();
  const StudyOptions& options = study_.options();
  const std::string path = options.results.empty()
                               ? ""
                               : absl::StrFormat("%s.straightened-%s-g%g-k%d-n%d-steps%d.safetensors", options.results, name_,
                                                 options.guidance_scale, options.k_max, options.fit, steps);
  absl::StatusOr<Safetensors> stored = absl::NotFoundError("");
  if (!path.empty()) stored = ReadSafetensors(path);
  if (stored.ok()) {
    BOSS_ASSIGN_OR_RETURN(model, LoadEmbeddedModel());
    BOSS_RETURN_IF_ERROR(LoadWeights(*model, stored->tensors));
  } else if (absl::IsNotFound(stored.status())) {
    BOSS_ASSIGN_OR_RETURN(model, Train(steps, path));
    if (!path.empty()) {
      Safetensors weights;
      for (const auto& [name, tensor] : model->State()) weights.tensors.emplace_back(name, tensor.detach());
      BOSS_RETURN_IF_ERROR(WriteSafetensors(path, weights));
      std::filesystem::remove(path + ".training");
    }
  } else {
    return stored.status();
  }
  model->PrepareForInference(at::kFloat);
  return model.get();
}

}  // namespace boss
