#include "core/nets/norm_kernel.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

namespace boss {
namespace {

// Loops over channels are written for the compiler to vectorise; the widest instruction set that the processor has is
// chosen at run time.
#define BOSS_INLINE inline __attribute__((always_inline))

// Channels that are summed in registers, and pixels whose sum is added to the others' at a time, so that float32 is
// enough.
constexpr int64_t kWidth = 32, kBlock = 128;
// Elements that are worth more than one thread.
constexpr int64_t kGrain = 16384;

BOSS_INLINE float Load(const float* p) { return *p; }
BOSS_INLINE float Load(const at::BFloat16* p) { return std::bit_cast<float>(static_cast<uint32_t>(p->x) << 16); }
BOSS_INLINE void Store(float value, float* p) { *p = value; }
BOSS_INLINE void Store(float value, at::BFloat16* p) {
  // To the nearest, ties to even.
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  p->x = static_cast<uint16_t>(value == value ? rounded : 0x7fc0);
}

// exp(x) for |x| <= 87 to 2 units in the last place: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2] (Cephes' expf).
BOSS_INLINE float Exp(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const float shifted = x * 1.44269504f + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return p * std::bit_cast<float>((std::bit_cast<int32_t>(shifted) + 127) << 23);
}

BOSS_INLINE float Swish(float x) {
  const float bounded = x < -87.0f ? -87.0f : x > 87.0f ? 87.0f : x;
  return x / (1.0f + Exp(-bounded));
}

template <typename T>
struct Task {
  const T* x;
  T* y;
  const float* offset;  // null: none
  const float* weight;
  const float* bias;
  int64_t channels, pixels;
  NormOptions options;
};

// The sums over pixels of f(x) for `width` channels from `x` on.
template <typename T, typename Function>
BOSS_INLINE void SumPixels(const T* x, int64_t pixels, int64_t stride, int64_t width, float* sums, Function f) {
  for (int64_t c = 0; c < width; ++c) sums[c] = 0;
  for (int64_t begin = 0; begin < pixels; begin += kBlock) {
    const int64_t end = begin + kBlock < pixels ? begin + kBlock : pixels;
    float block[kWidth] = {};
    for (int64_t p = begin; p < end; ++p) {
      for (int64_t c = 0; c < width; ++c) block[c] += f(Load(x + p * stride + c), c);
    }
    for (int64_t c = 0; c < width; ++c) sums[c] += block[c];
  }
}

// One group range of one sample: channels [first, first + width), whole groups, width <= kWidth.
template <typename T>
BOSS_INLINE void NormChannels(const Task<T>& task, int64_t sample, int64_t first, int64_t width) {
  const int64_t group = task.channels / task.options.groups;
  const T* x = task.x + sample * task.pixels * task.channels + first;
  T* y = task.y + sample * task.pixels * task.channels + first;
  float mean[kWidth], squares[kWidth], scale[kWidth], shift[kWidth], offset[kWidth] = {};
  if (task.offset != nullptr) {
    for (int64_t c = 0; c < width; ++c) offset[c] = task.offset[sample * task.channels + first + c];
  }
  const auto pixels = static_cast<float>(task.pixels);
  SumPixels(
      x, task.pixels, task.channels, width, mean,
      [](float value, int64_t) __attribute__((always_inline)) { return value; });
  for (int64_t g = 0; g < width; g += group) {
    float sum = 0;
    for (int64_t c = g; c < g + group; ++c) sum += mean[c] / pixels + offset[c];
    // What is taken from x itself, so that the offset is never added to it.
    for (int64_t c = g; c < g + group; ++c) mean[c] = sum / static_cast<float>(group) - offset[c];
  }
  SumPixels(
      x, task.pixels, task.channels, width, squares, [&mean](float value, int64_t c) __attribute__((always_inline)) {
        return (value - mean[c]) * (value - mean[c]);
      });
  for (int64_t g = 0; g < width; g += group) {
    float sum = 0;
    for (int64_t c = g; c < g + group; ++c) sum += squares[c];
    const float variance = sum / (static_cast<float>(group) * pixels);
    const float factor = 1.0f / std::sqrt(variance + static_cast<float>(task.options.eps));
    for (int64_t c = g; c < g + group; ++c) {
      scale[c] = factor * task.weight[first + c];
      shift[c] = task.bias[first + c] - mean[c] * scale[c];
    }
  }
  if (task.options.activate) {
    for (int64_t p = 0; p < task.pixels; ++p) {
      for (int64_t c = 0; c < width; ++c) {
        Store(Swish(Load(x + p * task.channels + c) * scale[c] + shift[c]), y + p * task.channels + c);
      }
    }
  } else {
    for (int64_t p = 0; p < task.pixels; ++p) {
      for (int64_t c = 0; c < width; ++c) {
        Store(Load(x + p * task.channels + c) * scale[c] + shift[c], y + p * task.channels + c);
      }
    }
  }
}

template <typename T>
BOSS_INLINE void NormRange(const Task<T>& task, int64_t sample, int64_t first, int64_t width) {
  if (width == kWidth) {
    NormChannels(task, sample, first, kWidth);  // a constant, so that the loops unroll
  } else {
    NormChannels(task, sample, first, width);
  }
}

template <typename T>
using Kernel = void (*)(const Task<T>& task, int64_t sample, int64_t first, int64_t width);

template <typename T>
void Portable(const Task<T>& task, int64_t sample, int64_t first, int64_t width) {
  NormRange(task, sample, first, width);
}

#if defined(__x86_64__)
template <typename T>
__attribute__((target("avx2,fma"))) void Avx2(const Task<T>& task, int64_t sample, int64_t first, int64_t width) {
  NormRange(task, sample, first, width);
}
template <typename T>
__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512"))) void Avx512(const Task<T>& task,
                                                                                                  int64_t sample,
                                                                                                  int64_t first,
                                                                                                  int64_t width) {
  NormRange(task, sample, first, width);
}
#endif

template <typename T>
Kernel<T> Choose() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    return Avx512<T>;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Avx2<T>;
#endif
  return Portable<T>;
}

template <typename T>
at::Tensor Norm(const at::Tensor& x, const at::Tensor& offset, const at::Tensor& weight, const at::Tensor& bias,
                const NormOptions& options) {
  static const Kernel<T> kernel = Choose<T>();
  const int64_t channels = x.size(1), group = channels / options.groups;
  at::Tensor y = at::empty_like(x, at::MemoryFormat::ChannelsLast);
  const Task<T> task{.x = x.const_data_ptr<T>(),
                     .y = y.mutable_data_ptr<T>(),
                     .offset = offset.defined() ? offset.const_data_ptr<float>() : nullptr,
                     .weight = weight.const_data_ptr<float>(),
                     .bias = bias.const_data_ptr<float>(),
                     .channels = channels,
                     .pixels = x.size(2) * x.size(3),
                     .options = options};
  const int64_t width = kWidth / group * group;
  const int64_t ranges = (channels + width - 1) / width;
  const int64_t tasks = x.size(0) * ranges;
  // Not at::parallel_for: compiled into a program, it would set the calling thread's number of threads to the process's
  // default once, whatever that thread has chosen.
#pragma omp parallel for if (x.numel() > kGrain)
  for (int64_t i = 0; i < tasks; ++i) {
    const int64_t first = i % ranges * width;
    kernel(task, i / ranges, first, std::min(width, channels - first));
  }
  return y;
}

}  // namespace

at::Tensor ChannelsLastNorm(const at::Tensor& x, const at::Tensor& offset, const at::Tensor& weight,
                            const at::Tensor& bias, const NormOptions& options) {
  TORCH_CHECK_VALUE(x.dim() == 4 && x.is_cpu() && x.size(1) % options.groups == 0 && weight.numel() == x.size(1) &&
                        bias.numel() == x.size(1) && (!offset.defined() || offset.numel() == x.size(0) * x.size(1)),
                    "channels-last norm of ", x.sizes(), " in ", options.groups, " groups");
  const at::Tensor input = x.contiguous(at::MemoryFormat::ChannelsLast);
  if (x.size(1) / options.groups > kWidth) {
    const at::Tensor sum = offset.defined() ? input + offset.view({x.size(0), x.size(1), 1, 1}) : input;
    const at::Tensor y = at::group_norm(sum.to(at::kFloat), options.groups, weight, bias, options.eps);
    return (options.activate ? at::silu(y) : y).to(x.scalar_type());
  }
  const at::Tensor o = offset.defined() ? offset.contiguous() : offset, w = weight.contiguous(), b = bias.contiguous();
  return x.scalar_type() == at::kBFloat16 ? Norm<at::BFloat16>(input, o, w, b, options)
                                          : Norm<float>(input, o, w, b, options);
}

}  // namespace boss
