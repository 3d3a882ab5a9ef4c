#include "server/rpc/convert_sampling.h"

#include <bit>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/error_details.h"
#include "core/base/status_macros.h"
#include "server/rpc/convert_common.h"

namespace boss::server {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors travel as little-endian bytes");

constexpr size_t kMaxRequestId = 63;

absl::Status CheckServed(const v1::GenerateRequest& proto) {
  if (!proto.conditions().empty()) return UnservedField("conditions", "conditioning tensors are not served");
  if (!proto.negative_conditions().empty())
    return UnservedField("negative_conditions", "conditioning tensors are not served");
  if (!proto.negative_class_labels().empty())
    return UnservedField("negative_class_labels", "guidance away from a label is not served");
  return absl::OkStatus();
}

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
    case v1::OUTPUT_FORMAT_LATENTS:  // no model here has a decoder, so these are the same
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

}  // namespace

absl::StatusOr<SampleRequest> SampleRequestFromProto(const v1::GenerateRequest& proto, absl::Time deadline,
                                                     uint64_t chosen_seed) {
  BOSS_RETURN_IF_ERROR(CheckServed(proto));
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
  if (proto.has_rtol()) request.rtol = proto.rtol();
  if (proto.has_atol()) request.atol = proto.atol();
  request.class_labels.assign(proto.class_labels().begin(), proto.class_labels().end());
  if (proto.has_guidance_scale()) request.guidance_scale = proto.guidance_scale();
  if (proto.has_initial_noise()) {
    BOSS_ASSIGN_OR_RETURN(request.initial_noise, FloatsFromProto(proto.initial_noise(), "initial_noise"));
    request.initial_noise_shape.assign(proto.initial_noise().shape().begin(), proto.initial_noise().shape().end());
    if (request.initial_noise_shape.empty()) return FieldError("initial_noise", "has no shape");
  }
  BOSS_ASSIGN_OR_RETURN(request.format, FormatFromProto(proto.output_format()));
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
