// What an evaluation costs the engine beside the network: one step of lanes of Euler and of multistep at 8 steps, on a
// network that does nothing, in turn in one run; and what the embedded model's evaluation of as many samples takes.
//
//   lanes_bench [--threads=N] [--rounds=N]
//
// One thread a core and 400 rounds by default; medians over the rounds.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <memory>
#include <numeric>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"
#include "core/base/status_macros.h"
#include "core/flow/multistep.h"
#include "core/flow/noise.h"
#include "server/engine/lane_group.h"
#include "tests/bench/embedded_model.h"
#include "tests/support/analytic_models.h"

namespace boss::server {
namespace {

constexpr int kSteps = 8;
constexpr int64_t kLanes[] = {1, 8, 32, 64};
constexpr int kNetworkRounds = 15;

struct Options {
  int threads = static_cast<int>(std::thread::hardware_concurrency());
  int rounds = 400;
};

double Median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

template <typename Work>
double Seconds(const Work& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Samples of one solver that move on together.
class Lanes {
 public:
  Lanes(std::shared_ptr<const LoadedModel> model, SolverKind solver, int64_t count)
      : group_(model, count), noises_(SampleNoise(1, 0, count, model->network->SampleShape())), lanes_(count) {
    request_.model = std::move(model);
    request_.solver = {.solver = solver, .time_grid = TimeGrid::Uniform(kSteps)};
    if (solver == SolverKind::kMultistep)
      request_.solver.coefficients = AdamsBashforth(request_.solver.time_grid, kMaxMultistepOrder);
    for (Lane& lane : lanes_) {
      slots_.push_back(group_.TakeSlot());
      pointers_.push_back(&lane);
    }
  }

  // Seconds of one evaluation, from noise to samples.
  absl::StatusOr<double> Run() {
    for (size_t i = 0; i < lanes_.size(); ++i)
      lanes_[i] = {.request = &request_, .index = static_cast<int64_t>(i), .slot = slots_[i], .started = true};
    BOSS_RETURN_IF_ERROR(group_.Start(slots_, noises_));
    absl::Status status;
    const double seconds = Seconds([&] {
      for (int step = 0; step < kSteps; ++step) status.Update(group_.Evaluate(pointers_));
    });
    BOSS_RETURN_IF_ERROR(status);
    return seconds / kSteps;
  }

 private:
  LaneGroup group_;
  ResolvedRequest request_;
  const at::Tensor noises_;
  std::vector<Lane> lanes_;
  std::vector<Lane*> pointers_;
  std::vector<int64_t> slots_;
};

std::shared_ptr<const LoadedModel> Loaded(std::shared_ptr<const VelocityModel> network) {
  auto model = std::make_shared<LoadedModel>();
  model->network = network;
  model->runner = std::make_shared<VelocityRunner>(std::move(network), VelocityRunnerOptions{});
  return model;
}

absl::Status Run(const Options& options) {
  at::set_num_threads(options.threads);
  BOSS_ASSIGN_OR_RETURN(const std::unique_ptr<VelocityModel> network, LoadEmbeddedModel());
  network->PrepareForInference(at::kFloat);
  const std::vector<int64_t> shape = network->SampleShape();
  const int64_t elements = std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
  std::printf("| lanes | Euler, us | multistep, us | the network, us | multistep beyond Euler |\n");
  std::printf("| --- | --- | --- | --- | --- |\n");
  for (const int64_t count : kLanes) {
    const at::Tensor velocity = SampleNoise(2, 0, count, {elements});
    const auto copy = [velocity](const at::Tensor&, const at::Tensor&, const Condition&) { return velocity.clone(); };
    const auto model = Loaded(std::make_shared<boss::testing::FunctionModel>(copy, elements));
    Lanes euler(model, SolverKind::kEuler, count), multistep(model, SolverKind::kMultistep, count);
    std::vector<double> euler_seconds, multistep_seconds, network_seconds;
    for (int round = 0; round <= options.rounds; ++round) {
      BOSS_ASSIGN_OR_RETURN(const double of_euler, euler.Run());
      BOSS_ASSIGN_OR_RETURN(const double of_multistep, multistep.Run());
      if (round == 0) continue;  // warm-up
      euler_seconds.push_back(of_euler);
      multistep_seconds.push_back(of_multistep);
    }
    const at::Tensor x = SampleNoise(1, 0, count, shape), t = at::full({count}, 0.5);
    for (int round = 0; round <= kNetworkRounds; ++round) {
      const c10::InferenceMode inference_mode;
      const double seconds = Seconds([&] { network->Velocity(x, t, {}); });
      if (round > 0) network_seconds.push_back(seconds);
    }
    const double of_euler = Median(euler_seconds), of_multistep = Median(multistep_seconds),
                 of_network = Median(network_seconds);
    std::printf("| %ld | %.1f | %.1f | %.0f | %.2f%% |\n", static_cast<long>(count), of_euler * 1e6, of_multistep * 1e6,
                of_network * 1e6, 100 * (of_multistep - of_euler) / (of_network + of_euler));
    std::fflush(stdout);
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace boss::server

int main(int argc, char** argv) {
  boss::server::Options options;
  bool ok = true;
  for (int i = 1; i < argc; ++i) {
    absl::string_view argument = argv[i];
    if (absl::ConsumePrefix(&argument, "--threads=")) {
      ok = ok && absl::SimpleAtoi(argument, &options.threads) && options.threads >= 1;
    } else if (absl::ConsumePrefix(&argument, "--rounds=")) {
      ok = ok && absl::SimpleAtoi(argument, &options.rounds) && options.rounds >= 1;
    } else {
      ok = false;
    }
  }
  if (!ok) {
    std::fprintf(stderr, "usage: %s [--threads=N] [--rounds=N]\n", argv[0]);
    return 2;
  }
  const absl::Status status = boss::server::Run(options);
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
