// What serving costs beside the bare network, and what those who share a server cost each other. Prints tables; every
// ratio is of numbers that were taken in turn in one run.
//
//   serving_bench [throughput] [mixed] [fairness] [memory] [multistep]      all of them by default
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "boss/v1/jobs.grpc.pb.h"
#include "boss/v1/models.grpc.pb.h"
#include "boss/v1/sampling.grpc.pb.h"
#include "core/base/clock.h"
#include "core/flow/noise.h"
#include "server/store/model_store.h"
#include "tests/bench/serving_load.h"
#include "tests/support/temp_folder.h"

namespace boss {
namespace {

using std::chrono::steady_clock;

constexpr char kModel[] = "fashion-mnist";
constexpr int kSteps = 8;
constexpr int kRounds = 3;  // of each side, in turn
// Where two sides are all but equal, many short windows say more than few long ones.
constexpr int kShortRounds = 31;
constexpr double kShortWindow = 1;
constexpr int64_t kTinyRequests = 100'000;
constexpr int64_t kFullBatch = 32;  // of a server on the CPU

// The network without anything around it: an Euler loop over a batch.
class Bare {
 public:
  Bare() {
    const RealClock clock;
    auto store = server::ModelStore::Open(folder_.path(), clock);
    if (!store.ok()) Fail(store.status().ToString());
    const auto key = (*store)->ImportFolder(BOSS_SOURCE_DIR "/deploy/models/fashion-mnist", kModel);
    if (!key.ok()) Fail(key.status().ToString());
    auto network = (*store)->LoadVersionModel(*key);
    if (!network.ok()) Fail(network.status().ToString());
    (*network)->PrepareForInference(at::kFloat);
    network_ = *std::move(network);
  }

  void Sample(int64_t batch) const {
    const c10::InferenceMode inference_mode;
    at::Tensor x = SampleNoise(1, 0, batch, network_->SampleShape());
    for (int step = 0; step < kSteps; ++step) {
      const at::Tensor t = at::full({batch}, static_cast<double>(step) / kSteps);
      x = at::add(x, network_->Velocity(x, t, {}), 1.0 / kSteps);
    }
  }
  double SamplesPerSecond(int64_t batch, double window) const {
    const auto start = steady_clock::now();
    int64_t samples = 0;
    do {
      Sample(batch);
      samples += batch;
    } while (SecondsSince(start) < window);
    return static_cast<double>(samples) / SecondsSince(start);
  }
  int64_t BestBatch() const {
    int64_t best = 1;
    double most = 0;
    std::printf("bare network, %d steps:", kSteps);
    for (const int64_t batch : {1, 4, 8, 16, 32, 64, 128}) {
      Sample(batch);
      const double rate = SamplesPerSecond(batch, 1.5);
      std::printf("  batch %ld: %.1f/s", static_cast<long>(batch), rate);
      if (rate > most) best = batch;
      most = std::max(most, rate);
    }
    std::printf("\n\n");
    return best;
  }

 private:
  testing::TempFolder folder_;
  std::unique_ptr<VelocityModel> network_;
};

void Throughput(const Server& server) {
  const Bare bare;
  const int64_t best = bare.BestBatch();
  std::printf("1. Server against the bare network, %d steps\n", kSteps);
  std::printf("%8s %8s %12s %18s %8s %14s\n", "clients", "samples", "server, /s", "bare best, /s", "ratio",
              "latency, ms");
  for (const int samples : {1, 64}) {
    for (const int clients : {1, 8, 32}) {
      const auto request = [&](uint64_t number) { return Request(kModel, samples, kSteps, number * 1000); };
      Drive(server, clients, request, 1);  // warm-up
      std::vector<double> ours, theirs, latencies;
      for (int round = 0; round < kRounds; ++round) {
        const Load load = Drive(server, clients, request);
        ours.push_back(static_cast<double>(load.samples) / load.seconds);
        latencies.insert(latencies.end(), load.latencies.begin(), load.latencies.end());
        theirs.push_back(bare.SamplesPerSecond(best, kWindow));
      }
      std::printf("%8d %8d %12.1f %18.1f %8.3f %14.2f\n", clients, samples, Median(ours), Median(theirs),
                  Median(ours) / Median(theirs), Median(latencies) * 1e3);
    }
  }
  std::vector<double> ours, theirs;
  const auto sampler = v1::Sampler::NewStub(server.channel());
  for (int i = 0; i < 60; ++i) {
    int64_t samples = 0;
    auto begin = steady_clock::now();
    Generate(*sampler, Request(kModel, 1, kSteps, static_cast<uint64_t>(i)), samples);
    ours.push_back(SecondsSince(begin));
    begin = steady_clock::now();
    bare.Sample(1);
    theirs.push_back(SecondsSince(begin));
  }
  std::printf("one client, one sample: %.2f ms, bare %.2f ms: %.2f ms more\n\n", Median(ours) * 1e3,
              Median(theirs) * 1e3, (Median(ours) - Median(theirs)) * 1e3);
}

void Mixed(const Server& server) {
  const auto mixed = [](uint64_t number) {
    v1::GenerateRequest request = Request(kModel, 1, 2 + static_cast<int>(number * 7 % 15), number);
    request.set_schedule(number % 2 == 0 ? v1::SCHEDULE_KIND_UNIFORM : v1::SCHEDULE_KIND_BELLMAN);
    return request;
  };
  const auto same = [](uint64_t number) { return Request(kModel, 1, kSteps, number); };
  Drive(server, 32, mixed, 1);
  std::vector<double> ours, theirs;
  for (int round = 0; round < kRounds; ++round) {
    const Load a = Drive(server, 32, mixed), b = Drive(server, 32, same);
    ours.push_back(static_cast<double>(a.evaluations) / a.seconds);
    theirs.push_back(static_cast<double>(b.evaluations) / b.seconds);
  }
  std::printf("2. 32 clients with K = 2..16 and both schedules, against one K\n");
  std::printf("%22s %22s %8s\n%22.1f %22.1f %8.3f\n\n", "mixed, evaluations/s", "K = 8, evaluations/s", "ratio",
              Median(ours), Median(theirs), Median(ours) / Median(theirs));
}

v1::DistillJobRequest LongJob() {
  v1::DistillJobRequest request;
  v1::DistillSpec& spec = *request.mutable_spec();
  spec.set_model(kModel);
  spec.set_output_model("bench");
  spec.set_steps(4);
  spec.set_num_noises(8);
  spec.set_regenerate_pairs(true);
  spec.mutable_training()->set_train_steps(1'000'000);
  spec.mutable_training()->set_batch_size(16);
  return request;
}

int64_t TrainStep(v1::Jobs::Stub& jobs, const std::string& name) {
  grpc::ClientContext context;
  v1::GetJobRequest request;
  request.set_name(name);
  v1::Job job;
  if (!jobs.GetJob(&context, request, &job).ok()) Fail("GetJob");
  return job.progress().train_step();
}

void PrintLatency(const char* what, const std::vector<double>& latencies) {
  std::printf("%-44s %10.1f %10.1f %8zu\n", what, Median(latencies) * 1e3, Quantile(latencies, 0.99) * 1e3,
              latencies.size());
}

void Fairness(const Server& server) {
  // Before the server works: what the bound is made of.
  double full_batch = 0;
  {
    const Bare bare;
    bare.Sample(kFullBatch);
    full_batch = kFullBatch / (bare.SamplesPerSecond(kFullBatch, kWindow) * kSteps);
  }
  const auto small = [](uint64_t number) { return Request(kModel, 1, kSteps, number); };
  std::printf("4. One sample (K = 8), alone and beside others\n%-44s %10s %10s %8s\n", "", "p50, ms", "p99, ms",
              "requests");
  Drive(server, 1, small, 1);
  const std::vector<double> alone = Drive(server, 1, small).latencies;
  PrintLatency("alone", alone);
  std::printf("%-44s %10.1f %10s\n", "bound: twice that and one full batch", (2 * Median(alone) + full_batch) * 1e3,
              "");
  {
    grpc::ClientContext context;
    std::thread large([&] {
      int64_t samples = 0;
      Generate(*v1::Sampler::NewStub(server.channel()), Request(kModel, 10000, kSteps, 1), samples, &context);
    });
    PrintLatency("beside a request of 10,000 samples", Drive(server, 1, small, 2 * kWindow).latencies);
    context.TryCancel();
    large.join();
  }
  const auto jobs = v1::Jobs::NewStub(server.channel());
  grpc::ClientContext context;
  v1::Job job;
  if (const grpc::Status status = jobs->DistillJob(&context, LongJob(), &job); !status.ok())
    Fail(status.error_message());
  while (TrainStep(*jobs, job.name()) == 0) std::this_thread::yield();
  PrintLatency("beside a DistillJob", Drive(server, 1, small, 2 * kWindow).latencies);
  const auto steps_per_second = [&](const std::function<void()>& meanwhile) {
    const int64_t before = TrainStep(*jobs, job.name());
    const auto start = steady_clock::now();
    meanwhile();
    return static_cast<double>(TrainStep(*jobs, job.name()) - before) / SecondsSince(start);
  };
  const double idle = steps_per_second([] { std::this_thread::sleep_for(std::chrono::seconds(12)); });
  const double full = steps_per_second([&] { Drive(server, 32, small, 20); });
  std::printf("training: %.2f train steps/s beside nothing, %.2f beside 32 clients: %.0f%%\n\n", idle, full,
              100 * full / idle);
  grpc::ClientContext cancel_context;
  v1::CancelJobRequest cancel;
  cancel.set_name(job.name());
  jobs->CancelJob(&cancel_context, cancel, &job);
}

void Memory(const Server& server) {
  const auto rss = [&] { return server.RssMebibytes(); };
  std::printf("6. Resident memory of the server, MiB\n%-44s %10.1f\n", "at the start", server.start_rss());
  int64_t samples = 0;
  const auto sampler = v1::Sampler::NewStub(server.channel());
  Generate(*sampler, Request(kModel, 1, kSteps, 1), samples);
  std::printf("%-44s %10.1f\n", "with the model loaded and one sample drawn", rss());
  Drive(server, 32, [](uint64_t number) { return Request(kModel, 1, kSteps, number); });
  std::printf("%-44s %10.1f\n", "after 32 clients", rss());
  const auto tiny = [](uint64_t number) { return Request("tiny", 1, 1, number); };
  Drive(server, 32, tiny, 2);
  std::printf("%-44s %10.1f\n", "after a warm-up with small requests", rss());
  int64_t requests = 0;
  while (requests < kTinyRequests) requests += static_cast<int64_t>(Drive(server, 32, tiny, 5).latencies.size());
  std::printf("after %-38ld %10.1f\n\n", static_cast<long>(requests), rss());
}

void Multistep(const Server& server) {
  v1::OptimizeStepsizesJobRequest search;
  search.mutable_spec()->set_model(kModel);
  const auto jobs = v1::Jobs::NewStub(server.channel());
  v1::Job job;
  grpc::ClientContext context, watch_context;
  if (const grpc::Status status = jobs->OptimizeStepsizesJob(&context, search, &job); !status.ok())
    Fail(status.error_message());
  v1::WatchJobRequest watch;
  watch.set_name(job.name());
  const auto events = jobs->WatchJob(&watch_context, watch);
  for (v1::JobEvent event; events->Read(&event);) continue;
  if (const grpc::Status status = events->Finish(); !status.ok()) Fail(status.error_message());
  std::printf(
      "8. Multistep against Euler, Bellman schedules of %d steps, %d windows of each: medians, and quartiles of the "
      "ratios\n%8s %8s %15s %11s %8s %17s\n",
      kSteps, kShortRounds, "clients", "samples", "multistep, /s", "Euler, /s", "ratio", "quartiles");
  for (const auto& [clients, samples] : std::vector<std::pair<int, int>>{{1, 1}, {32, 1}, {1, 64}, {8, 64}}) {
    const auto rate = [&, samples = samples, clients = clients](v1::Solver solver) {
      const Load load = Drive(
          server, clients,
          [&](uint64_t number) {
            v1::GenerateRequest request = Request(kModel, samples, kSteps, number * 1000);
            request.set_solver(solver);
            request.set_schedule(v1::SCHEDULE_KIND_BELLMAN);
            return request;
          },
          kShortWindow);
      return static_cast<double>(load.samples) / load.seconds;
    };
    rate(v1::SOLVER_MULTISTEP);  // warm-up
    std::vector<double> ours, theirs, ratios;
    for (int round = 0; round < kShortRounds; ++round) {
      // Who begins changes, so that what one window leaves to the next one is nobody's advantage.
      if (round % 2 == 0) ours.push_back(rate(v1::SOLVER_MULTISTEP));
      theirs.push_back(rate(v1::SOLVER_EULER));
      if (round % 2 != 0) ours.push_back(rate(v1::SOLVER_MULTISTEP));
      ratios.push_back(ours.back() / theirs.back());
    }
    std::printf("%8d %8d %15.1f %11.1f %8.3f %8.3f %8.3f\n", clients, samples, Median(ours), Median(theirs),
                Median(ratios), Quantile(ratios, 0.25), Quantile(ratios, 0.75));
  }
  std::printf("\n");
}

}  // namespace
}  // namespace boss

int main(int argc, char** argv) {
  const std::set<std::string> wanted(argv + 1, argv + argc);
  const auto runs = [&](const char* table) { return wanted.empty() || wanted.contains(table); };
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const boss::Server server;
  std::printf("%d threads\n", at::get_num_threads());
  if (runs("throughput")) boss::Throughput(server);
  if (runs("mixed")) boss::Mixed(server);
  if (runs("fairness")) boss::Fairness(server);
  if (runs("memory")) boss::Memory(server);
  if (runs("multistep")) boss::Multistep(server);
  return 0;
}
