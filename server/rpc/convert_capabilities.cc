#include "server/rpc/convert_capabilities.h"

#include <utility>

#include "core/nets/presets.h"
#include "server/jobs/job_spec.h"
#include "server/rpc/convert_common.h"

namespace boss::server {
namespace {

constexpr int64_t kMaxFineGrid = 1000;  // as jobs.proto states

}  // namespace

v1::Capabilities ToProto(const ServerDescription& description) {
  v1::Capabilities proto;
  proto.set_server_version(description.version);
  for (const DeviceDescription& device : description.devices) {
    v1::Capabilities::Device& added = *proto.add_devices();
    added.set_name(device.name);
    added.set_description(device.description);
    added.set_memory_bytes(device.memory_bytes);
    added.set_uuid(device.uuid);
  }
  for (const SolverKind solver : {SolverKind::kEuler, SolverKind::kHeun, SolverKind::kRk45, SolverKind::kMultistep})
    proto.add_solvers(ToProto(solver));
  for (const v1::ScheduleKind kind :
       {v1::SCHEDULE_KIND_BELLMAN, v1::SCHEDULE_KIND_UNIFORM, v1::SCHEDULE_KIND_EXPLICIT, v1::SCHEDULE_KIND_NAMED}) {
    proto.add_schedules(kind);
  }
  for (const char* format : {"PNG", "UINT8", "FLOAT32", "LATENTS"}) proto.add_output_formats(format);
  for (const char* architecture : {"ncsnpp", "dit", "mlp"}) proto.add_architectures(architecture);
  if (description.allow_torchscript) proto.add_architectures("torchscript");
  for (std::string& preset : PresetNames()) proto.add_presets(std::move(preset));
  for (const std::string& dataset : description.datasets) proto.add_datasets(dataset);
  for (const JobKind kind : {JobKind::kTrain, JobKind::kOptimizeStepsizes, JobKind::kDistill, JobKind::kEvaluate}) {
    proto.add_job_kinds(std::string(JobKindName(kind)));
  }
  for (const std::string& network : description.feature_networks) proto.add_feature_networks(network);
  v1::Capabilities::Limits& limits = *proto.mutable_limits();
  limits.set_max_samples_per_request(description.max_samples_per_request);
  limits.set_max_steps(description.max_steps);
  limits.set_max_k_max(kMaxFineGrid);
  limits.set_max_message_bytes(description.max_message_bytes);
  limits.set_max_import_bytes(description.max_import_bytes);
  limits.set_max_queued_jobs(description.max_queued_jobs);
  limits.set_max_queued_samples(description.max_queued_samples);
  limits.set_max_pixels_per_request(description.max_pixels_per_request);
  if (description.max_request_time != absl::InfiniteDuration()) {
    *limits.mutable_max_request_time() = ToProto(description.max_request_time);
  }
  limits.set_max_streams_per_connection(description.max_streams_per_connection);
  *proto.mutable_start_time() = ToProto(description.start_time);
  return proto;
}

}  // namespace boss::server
