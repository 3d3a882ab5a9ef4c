#include "core/nets/diffusion.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace boss {
namespace {

// How near a flow model that predicts noise or data is asked at the ends of its path.
constexpr double kFlowMargin = 1e-3;

double LogRatio(double alpha_bar) { return 0.5 * std::log((1 - alpha_bar) / alpha_bar); }

// log(sigma / alpha) of the continuous VP process at the time s.
double LogRatioAt(double s, double beta_min, double beta_max) {
  const double exponent = (beta_max - beta_min) * s * s / 2 + beta_min * s;
  return 0.5 * std::log(std::expm1(exponent));
}

absl::StatusOr<double> Positive(const JsonObject& json, const char* key, double fallback) {
  BOSS_ASSIGN_OR_RETURN(const double value, json.NumberOr(key, fallback));
  if (value > 0 && std::isfinite(value)) return value;
  return absl::InvalidArgumentError(absl::StrCat("process.", key, ": got ", value, ", expected a positive number"));
}

at::Tensor PerSample(const at::Tensor& values, const at::Tensor& like) {
  std::vector<int64_t> shape(like.dim(), 1);
  shape[0] = values.size(0);
  return values.to(like.scalar_type()).view(shape);
}

}  // namespace

absl::StatusOr<PredictionMap> PredictionMap::FromJson(const JsonObject& model, const TimeMap& time_map) {
  PredictionMap map;
  map.time_map_ = time_map;
  BOSS_ASSIGN_OR_RETURN(const std::string prediction,
                        model.ChoiceOr("parameterisation", {"velocity", "noise", "denoised", "v"}));
  map.prediction_ = prediction == "noise"      ? Prediction::kNoise
                    : prediction == "denoised" ? Prediction::kDenoised
                    : prediction == "v"        ? Prediction::kV
                                               : Prediction::kVelocity;
  if (model.Has("process")) {
    BOSS_ASSIGN_OR_RETURN(const JsonObject process, model.Object("process"));
    BOSS_RETURN_IF_ERROR(map.ReadProcess(process));
    BOSS_RETURN_IF_ERROR(process.CheckAllRead());
  }
  const bool is_flow = map.process_ == Process::kFlow,
             is_vp = map.process_ == Process::kContinuousVp || map.process_ == Process::kDiscreteVp;
  if (map.prediction_ == Prediction::kVelocity && !is_flow)
    return absl::InvalidArgumentError(
        "parameterisation: got \"velocity\", expected \"noise\", \"denoised\" or \"v\" for a diffusion process");
  if (map.prediction_ == Prediction::kV && !is_vp)
    return absl::InvalidArgumentError("parameterisation: \"v\" is of a vp process");
  if (is_flow) {
    map.log_ratio_min_ = std::log(kFlowMargin / (1 - kFlowMargin));
    map.log_ratio_max_ = -map.log_ratio_min_;
    BOSS_ASSIGN_OR_RETURN(const std::string direction,
                          model.ChoiceOr("time_direction", {"noise_to_data", "data_to_noise"}));
    map.data_to_noise_ = direction == "data_to_noise";
  } else if (time_map.eps != 0) {
    return absl::InvalidArgumentError("time.eps: a diffusion process has its own times, expected 0");
  }
  if (map.prediction_ == Prediction::kVelocity) {
    BOSS_ASSIGN_OR_RETURN(map.sign_, model.NumberOr("velocity_sign", 1));
    if (map.sign_ != 1 && map.sign_ != -1)
      return absl::InvalidArgumentError(absl::StrCat("velocity_sign: got ", map.sign_, ", expected 1 or -1"));
  }
  return map;
}

absl::Status PredictionMap::ReadProcess(const JsonObject& process) {
  BOSS_ASSIGN_OR_RETURN(const std::string type, process.ChoiceOr("type", {"flow", "vp", "edm"}));
  if (type == "flow") return absl::OkStatus();
  if (type == "edm") {
    process_ = Process::kEdm;
    BOSS_ASSIGN_OR_RETURN(const double sigma_min, Positive(process, "sigma_min", 0.002));
    BOSS_ASSIGN_OR_RETURN(const double sigma_max, Positive(process, "sigma_max", 80));
    BOSS_ASSIGN_OR_RETURN(const std::string input, process.ChoiceOr("time_input", {"sigma", "c_noise"}));
    if (sigma_min >= sigma_max) return absl::InvalidArgumentError("process.sigma_min: expected less than sigma_max");
    log_time_ = input == "c_noise";
    log_ratio_min_ = std::log(sigma_min);
    log_ratio_max_ = std::log(sigma_max);
    return absl::OkStatus();
  }
  BOSS_ASSIGN_OR_RETURN(const std::string schedule,
                        process.ChoiceOr("schedule", {"continuous", "linear", "scaled_linear"}));
  if (schedule != "continuous") return ReadDiscreteVp(process, schedule == "scaled_linear");
  process_ = Process::kContinuousVp;
  BOSS_ASSIGN_OR_RETURN(beta_min_, Positive(process, "beta_min", 0.1));
  BOSS_ASSIGN_OR_RETURN(beta_max_, Positive(process, "beta_max", 20));
  BOSS_ASSIGN_OR_RETURN(const double time_min, Positive(process, "time_min", 1e-3));
  if (time_min >= 1)
    return absl::InvalidArgumentError(absl::StrCat("process.time_min: got ", time_min, ", expected less than 1"));
  log_ratio_min_ = LogRatioAt(time_min, beta_min_, beta_max_);
  log_ratio_max_ = LogRatioAt(1, beta_min_, beta_max_);
  if (!std::isfinite(log_ratio_max_)) return absl::InvalidArgumentError("process.beta_max: too large");
  return absl::OkStatus();
}

absl::Status PredictionMap::ReadDiscreteVp(const JsonObject& process, bool scaled) {
  process_ = Process::kDiscreteVp;
  BOSS_ASSIGN_OR_RETURN(const double start, Positive(process, "beta_start", 1e-4));
  BOSS_ASSIGN_OR_RETURN(const double end, Positive(process, "beta_end", 0.02));
  BOSS_ASSIGN_OR_RETURN(const int64_t steps, process.IntegerOr("steps", 1000, 2, 100'000));
  BOSS_ASSIGN_OR_RETURN(integer_time_, process.BooleanOr("integer_time", false));
  if (std::max(start, end) >= 1) return absl::InvalidArgumentError("process.beta_end: expected betas below 1");
  std::vector<double> ratios;
  double alpha_bar = 1;
  for (int64_t k = 0; k < steps; ++k) {
    const double share = static_cast<double>(k) / static_cast<double>(steps - 1);
    const double beta =
        scaled ? std::pow(std::lerp(std::sqrt(start), std::sqrt(end), share), 2) : std::lerp(start, end, share);
    alpha_bar *= 1 - beta;
    ratios.push_back(LogRatio(alpha_bar));
  }
  if (!std::isfinite(ratios.back()))
    return absl::InvalidArgumentError("process.beta_end: no signal is left at the last step");
  log_ratio_min_ = ratios.front();
  log_ratio_max_ = ratios.back();
  log_ratios_ = at::tensor(ratios, at::kDouble);
  return absl::OkStatus();
}

at::Tensor PredictionMap::Time(const at::Tensor& log_ratio) const {
  switch (process_) {
    case Process::kFlow: {
      const at::Tensor noise = log_ratio.sigmoid();  // r / (1 + r) = 1 - t
      return data_to_noise_ ? noise : 1 - noise;
    }
    case Process::kEdm:
      return log_time_ ? log_ratio / 4 : log_ratio.exp();
    case Process::kContinuousVp: {
      // -log(alpha^2) = log(1 + r^2) = (beta_max - beta_min) s^2 / 2 + beta_min s, solved without cancellation.
      const at::Tensor exponent = at::softplus(2 * log_ratio, 1, 100);
      return 2 * exponent / (beta_min_ + (beta_min_ * beta_min_ + 2 * (beta_max_ - beta_min_) * exponent).sqrt());
    }
    case Process::kDiscreteVp: {
      const int64_t last = log_ratios_.size(0) - 1;
      const at::Tensor upper = at::searchsorted(log_ratios_, log_ratio).clamp(1, last), lower = upper - 1;
      const at::Tensor below = log_ratios_.index_select(0, lower), above = log_ratios_.index_select(0, upper);
      const at::Tensor index = lower + ((log_ratio - below) / (above - below)).clamp(0, 1);
      return integer_time_ ? index.round() : index;
    }
  }
  return {};
}

PredictionMap::Query PredictionMap::Ask(const at::Tensor& x_t, const at::Tensor& t) const {
  Query query;
  if (prediction_ == Prediction::kVelocity) {
    query.x = x_t;
    query.t = time_map_.Apply(data_to_noise_ ? 1 - t : t);
    return query;
  }
  const at::Tensor our_t = t.to(at::kDouble);
  at::Tensor log_ratio = ((1 - our_t) / our_t).log().clamp(log_ratio_min_, log_ratio_max_);
  at::Tensor s = Time(log_ratio);
  // A rounded step has a noise level of its own.
  if (integer_time_) log_ratio = log_ratios_.index_select(0, s.to(at::kLong));
  at::Tensor alpha, sigma;
  if (process_ == Process::kEdm) {
    alpha = at::ones_like(log_ratio);
    sigma = log_ratio.exp();
  } else if (process_ == Process::kFlow) {
    sigma = log_ratio.sigmoid();
    alpha = 1 - sigma;
  } else {
    sigma = (2 * log_ratio).sigmoid().sqrt();
    alpha = (-2 * log_ratio).sigmoid().sqrt();
  }
  const at::Tensor norm = ((alpha.square() + sigma.square()) / (our_t.square() + (1 - our_t).square())).sqrt();
  query.x = x_t * PerSample(norm, x_t);
  query.t = integer_time_ ? (s * time_map_.scale).to(at::kLong) : time_map_.Apply(s).to(at::kFloat);
  query.alpha = PerSample(alpha, x_t);
  query.sigma = PerSample(sigma, x_t);
  return query;
}

at::Tensor PredictionMap::Velocity(const Query& query, const at::Tensor& prediction) const {
  switch (prediction_) {
    case Prediction::kVelocity:
      return sign_ == 1 ? prediction : -prediction;
    case Prediction::kNoise:
      return (query.x - query.sigma * prediction) / query.alpha - prediction;
    case Prediction::kDenoised:
      return prediction - (query.x - query.alpha * prediction) / query.sigma;
    case Prediction::kV:
      return (query.alpha - query.sigma) * query.x - (query.alpha + query.sigma) * prediction;
  }
  return {};
}

void PredictionMap::To(at::Device device) {
  if (log_ratios_.defined()) log_ratios_ = log_ratios_.to(device);
}

}  // namespace boss
