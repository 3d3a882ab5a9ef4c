// Networks that predict something else than our velocity: what to ask them at our time t, and what velocity their
// answer means.
//
// Ours is the path x_t = t x_1 + (1 - t) x_0 from noise x_0 (t = 0) to data x_1 (t = 1). A diffusion model knows the
// path x'_s = alpha(s) x_1 + sigma(s) x_0 in its own time s. Both are the same random variable up to a factor where
// their noise-to-signal ratios are equal: sigma(s) / alpha(s) = (1 - t) / t =: r. So
//
//   s  solves  sigma(s) / alpha(s) = r,
//   x'_s = (alpha(s) / t) x_t = x_t sqrt(alpha^2 + sigma^2) / sqrt(t^2 + (1 - t)^2),
//
// where the second form has no singularity at t = 0. The prediction at (x'_s, s) gives the posterior means of x_1 and
// x_0, either of which gives the other by x'_s = alpha x_1 + sigma x_0:
//
//   noise:     x_0 = e,                       x_1 = (x'_s - sigma e) / alpha
//   denoised:  x_1 = D,                       x_0 = (x'_s - alpha D) / sigma
//   v:         x_1 = alpha x'_s - sigma v,    x_0 = sigma x'_s + alpha v
//
// (v of Salimans and Ho, ICLR 2022, where alpha^2 + sigma^2 = 1),
// and the velocity of the probability-flow ODE in our time is d/dt E[x_t] = E[x_1 - x_0 | x_t] = x_1 - x_0. Written
// with the denoiser it is (D - x_t) / (1 - t), whose singularity at t = 1 is removable; so is that of (x_t - e) / t at
// t = 0. Outside the noise levels that the model was trained on, r in [r_min, r_max], alpha, sigma and s are those of
// the nearest end, so that nothing is divided by zero. For VP (Song et al., ICLR 2021) alpha^2 + sigma^2 = 1 and
// alpha^2 = exp(-(beta_max - beta_min) s^2 / 2 - beta_min s); for EDM (Karras et al., NeurIPS 2022) alpha = 1 and s =
// sigma; a flow model has alpha = t, sigma = 1 - t.
#pragma once

#include <ATen/core/Tensor.h>

#include "absl/status/statusor.h"
#include "core/nets/json_object.h"
#include "core/nets/network.h"

namespace boss {

class PredictionMap {
 public:
  // Of a network's "model" object the keys
  //   "parameterisation": "velocity" (the default), "noise", "denoised" or "v";
  //   "process": {"type": "flow"} (the default),
  //     {"type": "vp", "schedule": "continuous", "beta_min": 0.1, "beta_max": 20, "time_min": 0.001},
  //       with s in [time_min, 1],
  //     {"type": "vp", "schedule": "linear" or "scaled_linear", "beta_start": 0.0001, "beta_end": 0.02,
  //      "steps": 1000, "integer_time": false},
  //       with s in [0, steps - 1], rounded if the network takes whole steps only,
  //     {"type": "edm", "sigma_min": 0.002, "sigma_max": 80, "time_input": "sigma" or "c_noise"},
  //       with s = sigma or log(sigma) / 4;
  //   of flows alone "time_direction": "noise_to_data" (the default: s = t) or "data_to_noise" (s = 1 - t),
  //   and of velocities "velocity_sign": 1 (the default: data minus noise) or -1 (noise minus data).
  // `time_map` applies to s; of it diffusion processes take the scale alone. \error INVALID_ARGUMENT naming the key.
  static absl::StatusOr<PredictionMap> FromJson(const JsonObject& model, const TimeMap& time_map);

  struct Query {
    at::Tensor x;             // what the network gets in place of x_t
    at::Tensor t;             // float32 [B], or int64 for whole steps
    at::Tensor alpha, sigma;  // float32 [B, 1, ...]; undefined for velocities
  };
  // x_t: [B, ...] float32, t: [B].
  Query Ask(const at::Tensor& x_t, const at::Tensor& t) const;
  // The velocity at x_t that the answer to `query` means.
  at::Tensor Velocity(const Query& query, const at::Tensor& prediction) const;

  void To(at::Device device);

 private:
  enum class Prediction { kVelocity, kNoise, kDenoised, kV };
  enum class Process { kFlow, kContinuousVp, kDiscreteVp, kEdm };

  PredictionMap() = default;
  absl::Status ReadProcess(const JsonObject& process);
  absl::Status ReadDiscreteVp(const JsonObject& process, bool scaled);
  at::Tensor Time(const at::Tensor& log_ratio) const;

  TimeMap time_map_;
  Prediction prediction_ = Prediction::kVelocity;
  Process process_ = Process::kFlow;
  bool data_to_noise_ = false;
  double sign_ = 1;
  double log_ratio_min_ = 0, log_ratio_max_ = 0;  // of the noise levels that the model was trained on
  double beta_min_ = 0, beta_max_ = 0;
  bool integer_time_ = false, log_time_ = false;
  at::Tensor log_ratios_;  // float64 [steps], increasing: of the steps of a discrete VP process
};

}  // namespace boss
