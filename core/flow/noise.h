// Noise that depends on a sample's own seed and on nothing else.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace boss {

// The seed of sample `index` of a request with `seed`: their sum, modulo 2^64. So a request may be split at any sample, and a single sample is
// drawn again by its own seed.
inline uint64_t SampleSeed(uint64_t seed, int64_t index) { return seed + static_cast<uint64_t>(index); }

// Standard normal noise of the samples first_index .. first_index + count - 1 of a request with `seed`: [count, shape...] float32 on the CPU.
// Each sample comes from a generator of its own. Thread-safe.
at::Tensor SampleNoise(uint64_t seed, int64_t first_index, int64_t count, at::IntArrayRef shape);

}  // namespace boss
