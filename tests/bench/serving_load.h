// A server to measure, and clients that keep it busy.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "boss/v1/sampling.grpc.pb.h"
#include "tests/support/server_process.h"
#include "tests/support/temp_folder.h"

namespace boss {

constexpr double kWindow = 4;  // seconds of one measurement

double SecondsSince(std::chrono::steady_clock::time_point start);

// Prints to stderr and ends the program.
[[noreturn]] void Fail(const std::string& what);

// \pre there are values; 0 <= share <= 1.
double Quantile(std::vector<double> values, double share);
double Median(const std::vector<double>& values);

// A bossd of its own, with the embedded model and a tiny one.
class Server {
 public:
  Server();

  std::shared_ptr<grpc::Channel> channel() const { return channel_; }
  double start_rss() const { return start_rss_; }
  double RssMebibytes() const;

 private:
  testing::TempFolder folder_;
  std::unique_ptr<testing::ServerProcess> process_;
  std::shared_ptr<grpc::Channel> channel_;
  double start_rss_ = 0;
};

v1::GenerateRequest Request(const std::string& model, int64_t samples, int steps, uint64_t seed);

// Velocity evaluations per sample that the request got; counts its samples.
int64_t Generate(v1::Sampler::Stub& sampler, const v1::GenerateRequest& request, int64_t& samples,
                 grpc::ClientContext* context = nullptr);

struct Load {
  double seconds = 0;
  int64_t samples = 0, evaluations = 0;
  std::vector<double> latencies;  // seconds of each request
};

// `clients` threads that each send request after request for a window.
Load Drive(const Server& server, int clients, const std::function<v1::GenerateRequest(uint64_t number)>& request,
           double window = kWindow);

}  // namespace boss
