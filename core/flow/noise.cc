#include "core/flow/noise.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <vector>

namespace boss {

at::Tensor SampleNoise(uint64_t seed, int64_t first_index, int64_t count, at::IntArrayRef shape) {
  std::vector<int64_t> batch_shape{count};
  batch_shape.insert(batch_shape.end(), shape.begin(), shape.end());
  at::Tensor noise = at::empty(batch_shape);
  for (int64_t i = 0; i < count; ++i) {
    at::Generator generator = at::detail::createCPUGenerator(SampleSeed(seed, first_index + i));
    noise[i].normal_(0.0, 1.0, generator);
  }
  return noise;
}

}  // namespace boss
