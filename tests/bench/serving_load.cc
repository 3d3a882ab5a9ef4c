#include "tests/bench/serving_load.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "tests/support/tiny_models.h"

namespace boss {

using std::chrono::steady_clock;

double SecondsSince(steady_clock::time_point start) {
  return std::chrono::duration<double>(steady_clock::now() - start).count();
}

void Fail(const std::string& what) {
  std::fprintf(stderr, "%s\n", what.c_str());
  std::exit(1);
}

double Quantile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<size_t>(share * static_cast<double>(values.size())))];
}
double Median(const std::vector<double>& values) { return Quantile(values, 0.5); }

Server::Server() {
  std::filesystem::create_directories(folder_ / "seeds");
  std::filesystem::create_directory_symlink(BOSS_SOURCE_DIR "/deploy/models/fashion-mnist",
                                            folder_ / "seeds/fashion-mnist");
  testing::WriteSeedModel(folder_ / "seeds", "tiny", testing::kTinyVectorArchitecture);
  auto process = testing::ServerProcess::Start(
      BOSSD_BINARY, folder_.path(),
      {"--data=" + (folder_ / "data"), "--seed-models=" + (folder_ / "seeds"), "--max-samples-per-request=16384",
       "--max-queued-samples=65536", "--log-level=warn"});
  if (!process.ok()) Fail(process.status().ToString());
  process_ = *std::move(process);
  channel_ = grpc::CreateChannel(process_->address(), grpc::InsecureChannelCredentials());
  start_rss_ = RssMebibytes();
}

double Server::RssMebibytes() const {
  std::ifstream status("/proc/" + std::to_string(process_->pid()) + "/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmRSS:")) return std::atof(line.c_str() + 6) / 1024;
  }
  return 0;
}

v1::GenerateRequest Request(const std::string& model, int64_t samples, int steps, uint64_t seed) {
  v1::GenerateRequest request;
  request.set_model(model);
  request.set_num_samples(static_cast<int>(samples));
  request.set_steps(steps);
  request.set_seed(seed);
  return request;
}

int64_t Generate(v1::Sampler::Stub& sampler, const v1::GenerateRequest& request, int64_t& samples,
                 grpc::ClientContext* context) {
  grpc::ClientContext own;
  const auto stream = sampler.Generate(context != nullptr ? context : &own, request);
  int64_t nfe = 0;
  for (v1::GenerateResponse response; stream->Read(&response);) {
    samples += response.has_sample();
    if (response.has_summary()) nfe = static_cast<int64_t>(response.summary().nfe());
  }
  const grpc::Status status = stream->Finish();
  if (!status.ok() && status.error_code() != grpc::CANCELLED) Fail("Generate: " + status.error_message());
  return nfe;
}

Load Drive(const Server& server, int clients, const std::function<v1::GenerateRequest(uint64_t number)>& request,
           double window) {
  std::atomic<uint64_t> number = 0;
  std::vector<Load> loads(static_cast<size_t>(clients));
  std::vector<std::thread> threads;
  const auto start = steady_clock::now();
  for (Load& load : loads) {
    threads.emplace_back([&] {
      const auto sampler = v1::Sampler::NewStub(server.channel());
      while (SecondsSince(start) < window) {
        const v1::GenerateRequest next = request(number++);
        const auto begin = steady_clock::now();
        const int64_t nfe = Generate(*sampler, next, load.samples);
        load.latencies.push_back(SecondsSince(begin));
        load.evaluations += nfe * next.num_samples();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  Load sum;
  sum.seconds = SecondsSince(start);
  for (const Load& load : loads) {
    sum.samples += load.samples;
    sum.evaluations += load.evaluations;
    sum.latencies.insert(sum.latencies.end(), load.latencies.begin(), load.latencies.end());
  }
  return sum;
}

}  // namespace boss
