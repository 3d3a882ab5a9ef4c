#include "server/rpc/convert_sampling.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <iterator>
#include <map>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/error_details.h"
#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"
#include "server/rpc/convert_common.h"

namespace boss::server {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors travel as little-endian bytes");

constexpr size_t kMaxRequestId = 63;
constexpr int kMaxDimensions = 16;

absl::StatusOr<ScheduleSource> ScheduleFromProto(v1::ScheduleKind kind) {
  switch (kind) {
    case v1::SCHEDULE_KIND_UNSPECIFIED:
      return ScheduleSource::kBest;
    case v1::SCHEDULE_KIND_BELLMAN:
      return ScheduleSource::kBellman;
    case v1::SCHEDULE_KIND_UNIFORM:
      return ScheduleSource::kUniform;
    case v1::SCHEDULE_KIND_EXPLICIT:
      return ScheduleSource::kExplicit;
    case v1::SCHEDULE_KIND_NAMED:
      return ScheduleSource::kNamed;
    default:
      return FieldError("schedule", absl::StrCat("unknown value ", static_cast<int>(kind)));
  }
}

v1::ScheduleKind ToProto(ScheduleSource source) {
  switch (source) {
    case ScheduleSource::kBest:
      return v1::SCHEDULE_KIND_UNSPECIFIED;
    case ScheduleSource::kBellman:
      return v1::SCHEDULE_KIND_BELLMAN;
    case ScheduleSource::kUniform:
      return v1::SCHEDULE_KIND_UNIFORM;
    case ScheduleSource::kExplicit:
      return v1::SCHEDULE_KIND_EXPLICIT;
    case ScheduleSource::kNamed:
      return v1::SCHEDULE_KIND_NAMED;
  }
  return v1::SCHEDULE_KIND_UNSPECIFIED;
}

absl::StatusOr<SampleFormat> FormatFromProto(v1::OutputFormat format) {
  switch (format) {
    case v1::OUTPUT_FORMAT_UNSPECIFIED:
      return SampleFormat::kDefault;
    case v1::OUTPUT_FORMAT_PNG:
      return SampleFormat::kPng;
    case v1::OUTPUT_FORMAT_UINT8:
      return SampleFormat::kUint8;
    case v1::OUTPUT_FORMAT_FLOAT32:
    case v1::OUTPUT_FORMAT_LATENTS:
      return SampleFormat::kFloat32;
    default:
      return FieldError("output_format", absl::StrCat("unknown value ", static_cast<int>(format)));
  }
}

v1::OutputFormat ToProto(SampleFormat format, v1::OutputFormat requested) {
  switch (format) {
    case SampleFormat::kDefault:
      return v1::OUTPUT_FORMAT_UNSPECIFIED;
    case SampleFormat::kPng:
      return v1::OUTPUT_FORMAT_PNG;
    case SampleFormat::kUint8:
      return v1::OUTPUT_FORMAT_UINT8;
    case SampleFormat::kFloat32:
      return requested == v1::OUTPUT_FORMAT_LATENTS ? v1::OUTPUT_FORMAT_LATENTS : v1::OUTPUT_FORMAT_FLOAT32;
  }
  return v1::OUTPUT_FORMAT_UNSPECIFIED;
}

absl::StatusOr<std::vector<float>> FloatsFromProto(const v1::Tensor& tensor, absl::string_view field) {
  if (tensor.dtype() != v1::Tensor::DATA_TYPE_FLOAT32) {
    return FieldError(field, absl::StrCat("must be FLOAT32, got dtype ", static_cast<int>(tensor.dtype())));
  }
  if (tensor.data().size() % sizeof(float) != 0) {
    return FieldError(field,
                      absl::StrCat("data must be a whole number of floats, got ", tensor.data().size(), " bytes"));
  }
  std::vector<float> values(tensor.data().size() / sizeof(float));
  if (!values.empty()) std::memcpy(values.data(), tensor.data().data(), tensor.data().size());
  return values;
}

struct ElementType {
  v1::Tensor::DataType proto;
  at::ScalarType type;
};
constexpr ElementType kElementTypes[] = {
    {v1::Tensor::DATA_TYPE_FLOAT32, at::kFloat}, {v1::Tensor::DATA_TYPE_FLOAT64, at::kDouble},
    {v1::Tensor::DATA_TYPE_FLOAT16, at::kHalf},  {v1::Tensor::DATA_TYPE_BFLOAT16, at::kBFloat16},
    {v1::Tensor::DATA_TYPE_INT64, at::kLong},    {v1::Tensor::DATA_TYPE_UINT8, at::kByte},
};

absl::StatusOr<at::Tensor> TensorFromProto(const v1::Tensor& proto) {
  const auto* const element = std::find_if(std::begin(kElementTypes), std::end(kElementTypes),
                                           [&](const ElementType& each) { return each.proto == proto.dtype(); });
  if (element == std::end(kElementTypes)) {
    return absl::InvalidArgumentError(absl::StrCat("has an unknown dtype, ", static_cast<int>(proto.dtype())));
  }
  if (proto.shape_size() > kMaxDimensions) {
    return absl::InvalidArgumentError(
        absl::StrCat("must have at most ", kMaxDimensions, " dimensions, got ", proto.shape_size()));
  }
  const auto element_size = static_cast<int64_t>(at::elementSize(element->type));
  const auto available = static_cast<int64_t>(proto.data().size()) / element_size;
  int64_t elements = 1;
  for (const int64_t size : proto.shape()) {
    // Also keeps the product from overflowing.
    if (size < 1 || size > available / elements) elements = 0;
    if (elements == 0) break;
    elements *= size;
  }
  if (elements == 0 || elements * element_size != static_cast<int64_t>(proto.data().size())) {
    return absl::InvalidArgumentError(absl::StrCat("must have as many elements of ", element_size,
                                                   " bytes as its shape says, got ", proto.data().size(),
                                                   " bytes for [", absl::StrJoin(proto.shape(), ", "), "]"));
  }
  return GuardTorch("reading the conditions", [&] {
    at::Tensor tensor =
        at::empty(at::IntArrayRef(proto.shape().data(), static_cast<size_t>(proto.shape_size())), element->type);
    std::memcpy(tensor.data_ptr(), proto.data().data(), proto.data().size());
    return tensor;
  });
}

absl::StatusOr<std::map<std::string, at::Tensor>> TensorsFromProto(
    const google::protobuf::Map<std::string, v1::Tensor>& proto, absl::string_view field) {
  std::map<std::string, at::Tensor> tensors;
  for (const auto& [name, tensor] : proto) {
    absl::StatusOr<at::Tensor> converted = TensorFromProto(tensor);
    if (absl::IsResourceExhausted(converted.status())) return converted.status();
    if (!converted.ok()) {
      return FieldError(field, absl::StrCat("\"", absl::Utf8SafeCEscape(name), "\" ", converted.status().message()));
    }
    tensors[name] = *std::move(converted);
  }
  return tensors;
}

}  // namespace

absl::StatusOr<SampleRequest> SampleRequestFromProto(const v1::GenerateRequest& proto, absl::Time deadline,
                                                     uint64_t chosen_seed) {
  if (proto.request_id().size() > kMaxRequestId) {
    return FieldError("request_id", absl::StrCat("must have at most ", kMaxRequestId, " characters, got ",
                                                 proto.request_id().size()));
  }
  SampleRequest request;
  request.model = proto.model();
  request.steps = proto.steps();
  request.num_samples = proto.num_samples() == 0 ? 1 : proto.num_samples();
  request.seed = proto.has_seed() ? proto.seed() : chosen_seed;
  BOSS_ASSIGN_OR_RETURN(request.schedule, ScheduleFromProto(proto.schedule()));
  request.time_grid.assign(proto.time_grid().begin(), proto.time_grid().end());
  request.schedule_set = proto.schedule_set();
  BOSS_ASSIGN_OR_RETURN(request.solver, SolverFromProto(proto.solver(), "solver"));
  request.default_solver = proto.solver() == v1::SOLVER_UNSPECIFIED;
  if (proto.has_rtol()) request.rtol = proto.rtol();
  if (proto.has_atol()) request.atol = proto.atol();
  request.class_labels.assign(proto.class_labels().begin(), proto.class_labels().end());
  request.negative_class_labels.assign(proto.negative_class_labels().begin(), proto.negative_class_labels().end());
  BOSS_ASSIGN_OR_RETURN(request.conditions, TensorsFromProto(proto.conditions(), "conditions"));
  BOSS_ASSIGN_OR_RETURN(request.negative_conditions,
                        TensorsFromProto(proto.negative_conditions(), "negative_conditions"));
  if (proto.has_guidance_scale()) request.guidance_scale = proto.guidance_scale();
  if (proto.has_initial_noise()) {
    BOSS_ASSIGN_OR_RETURN(request.initial_noise, FloatsFromProto(proto.initial_noise(), "initial_noise"));
    request.initial_noise_shape.assign(proto.initial_noise().shape().begin(), proto.initial_noise().shape().end());
    if (request.initial_noise_shape.empty()) return FieldError("initial_noise", "has no shape");
  }
  BOSS_ASSIGN_OR_RETURN(request.format, FormatFromProto(proto.output_format()));
  request.latents = proto.output_format() == v1::OUTPUT_FORMAT_LATENTS;
  request.preview_interval = proto.preview_interval();
  request.priority = proto.priority();
  request.deterministic = proto.deterministic();
  request.deadline = deadline;
  request.validate_only = proto.validate_only();
  return request;
}

v1::Accepted ToProto(const AcceptedRequest& accepted, const SampleRequest& request, absl::Time accept_time) {
  v1::Accepted proto;
  proto.set_model(accepted.version.ToString());
  proto.mutable_time_grid()->Add(accepted.time_grid.begin(), accepted.time_grid.end());
  proto.set_schedule(ToProto(accepted.schedule));
  proto.set_solver(ToProto(accepted.solver));
  proto.set_steps(accepted.steps);
  proto.set_nfe(accepted.nfe);
  proto.set_seed(request.seed);
  proto.set_queue_position(accepted.requests_before);
  proto.set_num_samples(static_cast<int>(request.num_samples));
  proto.set_guidance_scale(accepted.guidance_scale);
  proto.set_schedule_set(accepted.schedule_set);
  proto.mutable_warnings()->Add(accepted.warnings.begin(), accepted.warnings.end());
  *proto.mutable_accept_time() = ToProto(accept_time);
  return proto;
}

v1::Progress ToProto(const SampleProgress& progress) {
  v1::Progress proto;
  proto.set_solver_steps(progress.solver_steps);
  proto.set_total_solver_steps(progress.total_solver_steps);
  proto.set_samples_done(static_cast<int>(progress.samples_done));
  return proto;
}

v1::Sample SampleToProto(EncodedSample sample, v1::OutputFormat requested) {
  v1::Sample proto;
  proto.set_index(static_cast<int>(sample.index));
  proto.set_seed(sample.seed);
  proto.mutable_shape()->Add(sample.shape.begin(), sample.shape.end());
  proto.set_format(ToProto(sample.format, requested));
  proto.set_data(std::move(sample.data));
  if (sample.class_label) proto.set_class_label(*sample.class_label);
  return proto;
}

v1::Preview PreviewToProto(EncodedSample preview, v1::OutputFormat requested) {
  v1::Preview proto;
  proto.set_sample_index(static_cast<int>(preview.index));
  proto.set_step(preview.solver_steps);
  proto.set_t(preview.t);
  proto.mutable_shape()->Add(preview.shape.begin(), preview.shape.end());
  proto.set_format(ToProto(preview.format, requested));
  proto.set_data(std::move(preview.data));
  return proto;
}

v1::Summary ToProto(const SampleSummary& summary) {
  v1::Summary proto;
  *proto.mutable_queue_time() = ToProto(summary.queue_time);
  *proto.mutable_compute_time() = ToProto(summary.compute_time);
  *proto.mutable_output_time() = ToProto(summary.output_time);
  proto.set_nfe(summary.nfe);
  proto.set_device(summary.device);
  proto.set_num_samples(static_cast<int>(summary.num_samples));
  const double seconds = absl::ToDoubleSeconds(summary.compute_time);
  if (seconds > 0) proto.set_samples_per_second(static_cast<double>(summary.num_samples) / seconds);
  return proto;
}

}  // namespace boss::server
