// From what a client asked for to what the solver needs; every check of a sampling request is here.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/solver/solver.h"
#include "server/engine/model_registry.h"
#include "server/engine/sample_request.h"
#include "server/store/model_store.h"

namespace boss::server {

struct SamplingLimits {
  int64_t max_samples_per_request = 4096;
  int64_t max_pixels_per_request = 64 << 20;  // of all samples; see PixelsOf
  int max_steps = 1000;
  int default_steps = 20;                  // of a request and a version that name none
  int64_t max_condition_bytes = 32 << 20;  // of a request's conditioning tensors together
};

struct ResolvedRequest {
  std::shared_ptr<const LoadedModel> model;
  SolverOptions solver;
  Condition condition;       // of all samples, on the CPU
  at::Tensor initial_noise;  // [num_samples, ...] float32 on the CPU, or undefined: noise comes from the seed
  SampleFormat format = SampleFormat::kPng;  // never kDefault
  bool decode = false;                       // samples and previews go through the model's decoder
  AcceptedRequest accepted;                  // requests_before is the engine's to fill in
};

// Height x width of a sample [channels, height, width]; of another one its values.
int64_t PixelsOf(absl::Span<const int64_t> sample_shape);

// The checks that need no model. \error INVALID_ARGUMENT with the field (core/base/error_details.h).
absl::Status CheckRequest(const SampleRequest& request, const SamplingLimits& limits);

// \pre CheckRequest(request, limits) is OK. Reads schedules from `store`. \error INVALID_ARGUMENT with the field;
// FAILED_PRECONDITION with the reason SCHEDULE_MISSING, saying which job makes one; DATA_LOSS for corrupt schedules.
absl::StatusOr<ResolvedRequest> ResolveRequest(const SampleRequest& request, std::shared_ptr<const LoadedModel> model,
                                               const ModelStore& store, const SamplingLimits& limits);

}  // namespace boss::server
