// Draws four samples of a model and writes each as a PNG file.
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <string>

#include "client/boss_client.h"

int main() {
  const char* const address = std::getenv("BOSS_ADDRESS");
  boss::client::Client client({.address = address != nullptr ? address : "127.0.0.1:50051"});

  boss::v1::GenerateRequest request;
  request.set_model("fashion-mnist");
  request.set_steps(4);
  request.set_num_samples(4);
  request.set_seed(42);
  const auto result = client.GenerateAll(request);
  if (!result.ok()) {
    std::cerr << result.status() << "\n";
    return 1;
  }
  for (const boss::v1::Sample& sample : result->samples) {
    std::ofstream("sample-" + std::to_string(sample.index()) + ".png", std::ios::binary) << sample.data();
  }
}
