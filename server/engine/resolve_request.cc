#include "server/engine/resolve_request.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/error_details.h"
#include "core/base/status_macros.h"
#include "server/engine/resolve_grid.h"

namespace boss::server {
namespace {

std::string ShapeText(absl::Span<const int64_t> shape) { return absl::StrCat("[", absl::StrJoin(shape, ", "), "]"); }

// [num_samples] with the network's own index of 'no label'; undefined if none are given.
absl::StatusOr<at::Tensor> ResolveLabels(absl::string_view field, const std::vector<int64_t>& given,
                                         int64_t num_samples, int64_t num_classes) {
  if (given.empty()) return at::Tensor();
  if (num_classes == 0) return FieldError(field, absl::StrCat("the model takes no labels, got ", given.size()));
  if (given.size() != 1 && static_cast<int64_t>(given.size()) != num_samples) {
    return FieldError(
        field, absl::StrCat("there must be none, 1 or ", num_samples, " (num_samples) of them, got ", given.size()));
  }
  std::vector<int64_t> labels = given;
  for (int64_t& label : labels) {
    if (label < -1 || label >= num_classes) {
      return FieldError(field, absl::StrCat("must be in [0, ", num_classes, "), or -1 for no label, got ", label));
    }
    if (label == -1) label = num_classes;
  }
  labels.resize(num_samples, labels.front());
  return at::tensor(labels, at::kLong);
}

// [num_samples, ...]: one row for all is not copied.
absl::StatusOr<ConditioningTensors> ResolveTensors(absl::string_view field,
                                                   const std::map<std::string, at::Tensor>& given, int64_t num_samples,
                                                   const std::vector<ConditioningSpec>& specs) {
  ConditioningTensors tensors;
  for (const auto& [name, tensor] : given) {
    const std::string what = absl::StrCat("\"", absl::Utf8SafeCEscape(name), "\"");
    const auto spec = std::find_if(specs.begin(), specs.end(),
                                   [&name = name](const ConditioningSpec& each) { return each.name == name; });
    if (spec == specs.end()) {
      const auto append_name = [](std::string* out, const ConditioningSpec& each) { out->append(each.name); };
      return FieldError(
          field, absl::StrCat("the model takes ", specs.empty() ? "none" : absl::StrJoin(specs, ", ", append_name),
                              ", got ", what));
    }
    const bool fits_type =
        tensor.scalar_type() == spec->dtype || (tensor.is_floating_point() && at::isFloatingType(spec->dtype));
    if (!fits_type) {
      return FieldError(field, absl::StrCat(what, " must be of type ", at::toString(spec->dtype), ", got ",
                                            at::toString(tensor.scalar_type())));
    }
    std::vector<int64_t> expected = spec->shape;
    expected.insert(expected.begin(), num_samples);
    const bool one_for_all = tensor.dim() > 0 && tensor.size(0) == 1;
    if (one_for_all) expected[0] = 1;
    if (tensor.sizes() != expected) {
      return FieldError(field, absl::StrCat(what, " must have the shape ", ShapeText(expected),
                                            one_for_all ? "" : ", or 1 in place of num_samples", ", got ",
                                            ShapeText(tensor.sizes())));
    }
    if (tensor.is_floating_point() && !at::isfinite(tensor).all().item<bool>()) {
      return FieldError(field, absl::StrCat(what, " must be finite, got NaN or infinity"));
    }
    expected[0] = num_samples;
    tensors.emplace_back(name, tensor.to(spec->dtype).expand(expected));
  }
  return tensors;
}

absl::StatusOr<Condition> ResolveCondition(const SampleRequest& request, const VelocityModel& network) {
  Condition condition;
  const int64_t num_classes = network.NumClasses();
  const std::vector<ConditioningSpec> specs = network.ConditioningSpecs();
  BOSS_ASSIGN_OR_RETURN(condition.class_labels,
                        ResolveLabels("class_labels", request.class_labels, request.num_samples, num_classes));
  BOSS_ASSIGN_OR_RETURN(condition.tensors,
                        ResolveTensors("conditions", request.conditions, request.num_samples, specs));
  condition.guidance_scale = request.guidance_scale;
  if (request.guidance_scale == 1.0) return condition;
  if (!condition.class_labels.defined() && condition.tensors.empty()) {
    return FieldError("guidance_scale",
                      absl::StrCat("guidance needs ", specs.empty() ? "class_labels" : "class_labels or conditions",
                                   ", got a scale of ", request.guidance_scale, " and no ",
                                   specs.empty() ? "labels" : "labels or conditions"));
  }
  BOSS_ASSIGN_OR_RETURN(
      condition.negative_class_labels,
      ResolveLabels("negative_class_labels", request.negative_class_labels, request.num_samples, num_classes));
  BOSS_ASSIGN_OR_RETURN(condition.negative_tensors,
                        ResolveTensors("negative_conditions", request.negative_conditions, request.num_samples, specs));
  return condition;
}

absl::Status CheckConditionBytes(const SampleRequest& request, int64_t limit) {
  int64_t bytes = 0;
  for (const auto* conditions : {&request.conditions, &request.negative_conditions}) {
    for (const auto& [name, tensor] : *conditions) bytes += static_cast<int64_t>(tensor.nbytes());
  }
  if (bytes <= limit) return absl::OkStatus();
  return FieldError("conditions", absl::StrCat("must have at most ", limit, " bytes together, got ", bytes));
}

absl::StatusOr<at::Tensor> ResolveNoise(const SampleRequest& request, absl::Span<const int64_t> sample_shape) {
  if (request.initial_noise.empty() && request.initial_noise_shape.empty()) return at::Tensor();
  std::vector<int64_t> expected{request.num_samples};
  expected.insert(expected.end(), sample_shape.begin(), sample_shape.end());
  const int64_t elements = std::accumulate(expected.begin(), expected.end(), int64_t{1}, std::multiplies<>());
  if (request.initial_noise_shape != expected || static_cast<int64_t>(request.initial_noise.size()) != elements) {
    return FieldError("initial_noise", absl::StrCat("must have the shape ", ShapeText(expected), ", got ",
                                                    ShapeText(request.initial_noise_shape), " with ",
                                                    request.initial_noise.size(), " values"));
  }
  if (!std::all_of(request.initial_noise.begin(), request.initial_noise.end(),
                   [](float x) { return std::isfinite(x); })) {
    return FieldError("initial_noise", "must be finite, got NaN or infinity");
  }
  return at::tensor(request.initial_noise).reshape(expected);
}

absl::StatusOr<SampleFormat> ResolveFormat(SampleFormat format, absl::Span<const int64_t> sample_shape) {
  const bool is_image = sample_shape.size() == 3;
  const bool has_png = is_image && (sample_shape[0] == 1 || sample_shape[0] == 3);
  if (format == SampleFormat::kDefault) return has_png ? SampleFormat::kPng : SampleFormat::kFloat32;
  if (format == SampleFormat::kPng && !has_png) {
    return FieldError("output_format",
                      absl::StrCat("PNG needs samples of 1 or 3 channels, height and width; the model's are ",
                                   ShapeText(sample_shape)));
  }
  if (format == SampleFormat::kUint8 && !is_image) {
    return FieldError(
        "output_format",
        absl::StrCat("UINT8 needs samples of channels, height and width; the model's are ", ShapeText(sample_shape)));
  }
  return format;
}

absl::Status CheckPixels(const SampleRequest& request, absl::Span<const int64_t> sample_shape, int64_t limit) {
  const int64_t pixels = PixelsOf(sample_shape);
  const int64_t most = limit / std::max<int64_t>(pixels, 1);
  if (request.num_samples <= most) return absl::OkStatus();
  return FieldError("num_samples", absl::StrCat("must be at most ", most, " for samples of ", pixels,
                                                " pixels each: a request may have ", limit,
                                                " pixels together; got ", request.num_samples, " samples"));
}

}  // namespace

int64_t PixelsOf(absl::Span<const int64_t> sample_shape) {
  if (sample_shape.size() == 3) sample_shape.remove_prefix(1);
  return std::accumulate(sample_shape.begin(), sample_shape.end(), int64_t{1}, std::multiplies<>());
}

absl::Status CheckRequest(const SampleRequest& request, const SamplingLimits& limits) {
  if (request.model.empty()) return FieldError("model", "is required");
  if (request.num_samples < 1 || request.num_samples > limits.max_samples_per_request) {
    return FieldError("num_samples",
                      absl::StrCat("must be in [1, ", limits.max_samples_per_request, "], got ", request.num_samples));
  }
  const bool is_explicit = request.schedule == ScheduleSource::kExplicit;
  const int grid_steps = static_cast<int>(request.time_grid.size()) - 1;
  if (request.steps < 0 || std::max(request.steps, grid_steps) > limits.max_steps) {
    return FieldError("steps",
                      absl::StrCat("must be in [1, ", limits.max_steps, "], or 0 for the model's default, got ",
                                   std::max(request.steps, grid_steps)));
  }
  if (is_explicit && request.steps != 0 && request.steps != grid_steps) {
    return FieldError("steps", absl::StrCat("must be 0 or agree with time_grid, which has ", grid_steps, " steps, got ",
                                            request.steps));
  }
  if (!is_explicit && !request.time_grid.empty()) {
    return FieldError("time_grid", "is for SCHEDULE_KIND_EXPLICIT alone");
  }
  if (request.schedule == ScheduleSource::kNamed && request.schedule_set.empty()) {
    return FieldError("schedule_set", "is required for SCHEDULE_KIND_NAMED");
  }
  if (request.schedule != ScheduleSource::kNamed && !request.schedule_set.empty()) {
    return FieldError("schedule_set", "is for SCHEDULE_KIND_NAMED alone");
  }
  const bool has_schedule = request.schedule != ScheduleSource::kBest && request.schedule != ScheduleSource::kUniform;
  if (request.solver == SolverKind::kRk45 && has_schedule) {
    return FieldError("schedule", "rk45 chooses its own times and takes no schedule");
  }
  const bool is_multistep = request.solver == SolverKind::kMultistep;
  if (request.solver != SolverKind::kEuler && !is_multistep && request.schedule == ScheduleSource::kBellman) {
    return FieldError("solver", absl::StrCat("Bellman schedules are for euler and multistep, got ",
                                             std::string(SolverName(request.solver))));
  }
  if (is_multistep && (is_explicit || request.schedule == ScheduleSource::kUniform)) {
    return FieldError("schedule",
                      "multistep takes the times that its coefficients were fitted on, expected "
                      "SCHEDULE_KIND_BELLMAN, a named set or none");
  }
  if (!std::isfinite(request.guidance_scale) || request.guidance_scale < 0) {
    return FieldError("guidance_scale", absl::StrCat("must be finite and at least 0, got ", request.guidance_scale));
  }
  if (request.guidance_scale == 1.0) {
    constexpr char kNoGuidance[] = "is for guidance: the guidance_scale is 1";
    if (!request.negative_class_labels.empty()) return FieldError("negative_class_labels", kNoGuidance);
    if (!request.negative_conditions.empty()) return FieldError("negative_conditions", kNoGuidance);
  }
  BOSS_RETURN_IF_ERROR(CheckConditionBytes(request, limits.max_condition_bytes));
  if (!(request.rtol > 0 && std::isfinite(request.rtol))) {
    return FieldError("rtol", absl::StrCat("must be finite and above 0, got ", request.rtol));
  }
  if (!(request.atol > 0 && std::isfinite(request.atol))) {
    return FieldError("atol", absl::StrCat("must be finite and above 0, got ", request.atol));
  }
  if (request.preview_interval < 0) {
    return FieldError("preview_interval", absl::StrCat("must be at least 0, got ", request.preview_interval));
  }
  if (request.priority < -100 || request.priority > 100) {
    return FieldError("priority", absl::StrCat("must be in [-100, 100], got ", request.priority));
  }
  return absl::OkStatus();
}

absl::StatusOr<ResolvedRequest> ResolveRequest(const SampleRequest& request, std::shared_ptr<const LoadedModel> model,
                                               const ModelStore& store, const SamplingLimits& limits) {
  const std::vector<int64_t> sample_shape = model->network->SampleShape();
  ResolvedRequest resolved;
  BOSS_ASSIGN_OR_RETURN(resolved.condition, ResolveCondition(request, *model->network));
  BOSS_ASSIGN_OR_RETURN(resolved.initial_noise, ResolveNoise(request, sample_shape));
  resolved.decode = model->decoder != nullptr && !request.latents;
  const std::vector<int64_t> output_shape = resolved.decode ? model->decoder->decoded_shape() : sample_shape;
  BOSS_RETURN_IF_ERROR(CheckPixels(request, output_shape, limits.max_pixels_per_request));
  BOSS_ASSIGN_OR_RETURN(resolved.format, ResolveFormat(request.format, output_shape));
  BOSS_ASSIGN_OR_RETURN(ResolvedGrid grid, ResolveGrid(request, *model, store, limits.default_steps));

  AcceptedRequest& accepted = resolved.accepted;
  accepted.version = model->key;
  const SolverKind solver = grid.coefficients.empty() ? request.solver : SolverKind::kMultistep;
  accepted.solver = solver;
  accepted.guidance_scale = resolved.condition.guidance_scale;
  accepted.schedule = grid.schedule;
  accepted.schedule_set = std::move(grid.schedule_set);
  accepted.warnings = std::move(grid.warnings);
  accepted.sample_shape = output_shape;
  if (request.solver != SolverKind::kRk45) {
    const absl::Span<const double> times = grid.time_grid.times();
    accepted.time_grid.assign(times.begin(), times.end());
    accepted.steps = grid.time_grid.steps();
    const int64_t evaluations_per_step = request.solver == SolverKind::kHeun ? 2 : 1;
    accepted.nfe = accepted.steps * evaluations_per_step * EvaluationsPerCall(resolved.condition);
  }
  resolved.solver = {.solver = solver,
                     .time_grid = std::move(grid.time_grid),
                     .coefficients = std::move(grid.coefficients),
                     .rtol = request.rtol,
                     .atol = request.atol};
  resolved.model = std::move(model);
  return resolved;
}

}  // namespace boss::server
