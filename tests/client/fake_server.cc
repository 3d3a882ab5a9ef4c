#include "tests/client/fake_server.h"

#include <zlib.h>

#include <algorithm>
#include <cmath>

#include "client/picture.h"

namespace boss::client {

using boss::v1::Job;
using boss::v1::JobEvent;

namespace {

constexpr size_t kChunk = 1000;

uint32_t Crc(const std::string& data) {
  return static_cast<uint32_t>(crc32(0, reinterpret_cast<const Bytef*>(data.data()), static_cast<uInt>(data.size())));
}

// OK once there are none.
grpc::Status TakeFirst(std::vector<grpc::Status>& statuses) {
  if (statuses.empty()) return grpc::Status::OK;
  const grpc::Status status = statuses.front();
  statuses.erase(statuses.begin());
  return status;
}

}  // namespace

grpc::Status FakeJobs::DistillJob(grpc::ServerContext*, const boss::v1::DistillJobRequest* request, Job* result) {
  distilled = *request;
  request_ids.push_back(request->request_id());
  *result = job;
  return grpc::Status::OK;
}

grpc::Status FakeJobs::OptimizeStepsizesJob(grpc::ServerContext*, const boss::v1::OptimizeStepsizesJobRequest* request,
                                            Job* result) {
  optimized = *request;
  *result = job;
  return grpc::Status::OK;
}

grpc::Status FakeJobs::EvaluateJob(grpc::ServerContext*, const boss::v1::EvaluateJobRequest* request, Job* result) {
  evaluated = *request;
  request_ids.push_back(request->request_id());
  *result = job;
  return grpc::Status::OK;
}

grpc::Status FakeJobs::GetJob(grpc::ServerContext* context, const boss::v1::GetJobRequest*, Job* result) {
  ++gets;
  const auto trace = context->client_metadata().find("traceparent");
  const bool has_trace = trace != context->client_metadata().end();
  trace_parent = has_trace ? std::string(trace->second.data(), trace->second.size()) : "";
  if (failing_gets != 0) {
    --failing_gets;
    return get_status;
  }
  *result = job;
  return grpc::Status::OK;
}

grpc::Status FakeJobs::DeleteJob(grpc::ServerContext*, const boss::v1::DeleteJobRequest*, google::protobuf::Empty*) {
  return TakeFirst(delete_statuses);
}

grpc::Status FakeJobs::ListJobs(grpc::ServerContext*, const boss::v1::ListJobsRequest* request,
                                boss::v1::ListJobsResponse* response) {
  const int first = request->page_token().empty() ? 0 : std::stoi(request->page_token());
  const int last = std::min(first + 2, list_total);
  for (int i = first; i < last; ++i) {
    *response->add_jobs() = job;
    response->mutable_jobs()->rbegin()->set_name("jobs/" + std::to_string(i));
  }
  if (last < list_total) response->set_next_page_token(std::to_string(last));
  return grpc::Status::OK;
}

grpc::Status FakeJobs::WatchJob(grpc::ServerContext* context, const boss::v1::WatchJobRequest* request,
                                grpc::ServerWriter<JobEvent>* writer) {
  StreamScript script;
  if (watched_from.size() < watch_scripts.size()) script = watch_scripts[watched_from.size()];
  watched_from.push_back(request->from_sequence());
  const int64_t from = request->from_sequence() - (replay_one_before ? 1 : 0);
  int sent = 0;
  for (const JobEvent& event : events) {
    if (event.sequence() < from) continue;
    if (script.count >= 0 && sent == script.count) break;
    writer->Write(event);
    ++sent;
  }
  while (hang && !context->IsCancelled()) {
    // Writing the last event again finds out that the stream is gone.
    if (!writer->Write(events.back())) break;
  }
  return script.status;
}

grpc::Status FakeModels::GetModel(grpc::ServerContext*, const boss::v1::GetModelRequest* request,
                                  boss::v1::Model* result) {
  const std::string name = request->model().substr(0, request->model().find('@'));
  if (name != model.name()) return {grpc::StatusCode::NOT_FOUND, "there is no model " + request->model()};
  *result = model;
  return grpc::Status::OK;
}

grpc::Status FakeModels::ListModels(grpc::ServerContext*, const boss::v1::ListModelsRequest* request,
                                    boss::v1::ListModelsResponse* response) {
  list_filter = request->filter();
  *response->add_models() = model;
  return grpc::Status::OK;
}

grpc::Status FakeModels::ImportModel(grpc::ServerContext*, grpc::ServerReader<boss::v1::ImportModelRequest>* reader,
                                     boss::v1::ImportModelResponse* response) {
  boss::v1::ImportModelRequest message;
  if (!reader->Read(&message) || !message.has_start()) return {grpc::StatusCode::INVALID_ARGUMENT, "start"};
  response->set_committed_bytes(static_cast<int64_t>(file.size()));
  if (message.start().query_upload()) {
    import_queries.push_back(message.start());
    return grpc::Status::OK;
  }
  import_start = message.start();
  StreamScript script;
  if (import_calls < static_cast<int>(import_scripts.size())) script = import_scripts[import_calls];
  ++import_calls;
  for (int received = 0; script.count < 0 || received < script.count; ++received) {
    if (!reader->Read(&message)) break;
    if (received == 0) import_offsets.push_back(message.chunk().offset());
    if (message.chunk().offset() != static_cast<int64_t>(file.size())) {
      return {grpc::StatusCode::INVALID_ARGUMENT, "chunk offset"};
    }
    if (message.chunk().crc32() != Crc(message.chunk().data())) return {grpc::StatusCode::DATA_LOSS, "chunk checksum"};
    file += message.chunk().data();
  }
  if (!script.status.ok()) return script.status;
  response->set_committed_bytes(static_cast<int64_t>(file.size()));
  if (!import_warning.empty()) response->add_warnings(import_warning);
  if (import_start.validate_only()) return grpc::Status::OK;
  response->mutable_version()->set_model(import_start.model());
  response->mutable_version()->set_version("1");
  return grpc::Status::OK;
}

grpc::Status FakeModels::ExportModel(grpc::ServerContext*, const boss::v1::ExportModelRequest* request,
                                     grpc::ServerWriter<boss::v1::ExportModelResponse>* writer) {
  StreamScript script;
  if (export_offsets.size() < export_scripts.size()) script = export_scripts[export_offsets.size()];
  export_offsets.push_back(request->offset());
  boss::v1::ExportModelResponse message;
  auto& header = *message.mutable_header();
  header.set_model("m@1");
  header.set_file_name("model.safetensors");
  header.set_total_bytes(static_cast<int64_t>(file.size()));
  header.set_sha256(sha256);
  writer->Write(message);
  int sent = 0;
  for (size_t offset = request->offset(); offset < file.size(); offset += kChunk) {
    if (script.count >= 0 && sent == script.count) break;
    auto& chunk = *message.mutable_chunk();
    chunk.set_offset(static_cast<int64_t>(offset));
    chunk.set_data(file.substr(offset, kChunk));
    chunk.set_crc32(Crc(chunk.data()) ^ (corrupt_chunk && sent == 1 ? 1 : 0));
    writer->Write(message);
    ++sent;
  }
  return script.status;
}

grpc::Status FakeModels::GetSchedule(grpc::ServerContext*, const boss::v1::GetScheduleRequest* request,
                                     boss::v1::ScheduleSet* set) {
  schedule_request = *request;
  if (!schedule_status.ok()) return schedule_status;
  const bool is_multistep = request->solver() == boss::v1::SOLVER_MULTISTEP;
  for (const boss::v1::ScheduleSet& own : own_schedules) {
    const bool fits = own.schedules(0).steps() == request->steps() &&
                      (own.solver() == boss::v1::SOLVER_MULTISTEP) == is_multistep && request->name().empty();
    if (!fits) continue;
    *set = own;
    return grpc::Status::OK;
  }
  *set = schedules;
  if (!request->include_cost_matrix()) set->clear_cost_matrix();
  if (request->steps() == 0) return grpc::Status::OK;
  set->clear_schedules();
  for (const auto& schedule : schedules.schedules()) {
    if (schedule.steps() == request->steps()) *set->add_schedules() = schedule;
  }
  return grpc::Status::OK;
}

grpc::Status FakeModels::ListSchedules(grpc::ServerContext*, const boss::v1::ListSchedulesRequest*,
                                       boss::v1::ListSchedulesResponse* response) {
  response->mutable_schedule_sets()->Add(listed_schedules.begin(), listed_schedules.end());
  return grpc::Status::OK;
}

grpc::Status FakeModels::ImportSchedule(grpc::ServerContext*, const boss::v1::ImportScheduleRequest* request,
                                        boss::v1::ScheduleSet* set) {
  imported_schedule = *request;
  set->set_name(request->name());
  set->set_model("flow@1");
  for (const auto& schedule : request->schedules()) set->add_schedules()->set_steps(schedule.time_grid_size() - 1);
  return grpc::Status::OK;
}

grpc::Status FakeModels::DeleteSchedule(grpc::ServerContext*, const boss::v1::DeleteScheduleRequest* request,
                                        google::protobuf::Empty*) {
  deleted_schedule = *request;
  return TakeFirst(delete_statuses);
}

grpc::Status FakeModels::MergeAdapter(grpc::ServerContext*, const boss::v1::MergeAdapterRequest* request,
                                      boss::v1::ModelVersion* version) {
  merged = *request;
  ++merges;
  if (!merge_status.ok()) return merge_status;
  version->set_model(request->output_model());
  version->set_version("9");
  return grpc::Status::OK;
}

grpc::Status FakeModels::DeleteVersion(grpc::ServerContext*, const boss::v1::DeleteVersionRequest*,
                                       google::protobuf::Empty*) {
  return TakeFirst(delete_statuses);
}

grpc::Status FakeModels::GetCapabilities(grpc::ServerContext*, const boss::v1::GetCapabilitiesRequest*,
                                         boss::v1::Capabilities* capabilities) {
  capabilities->set_server_version("1.2.3");
  capabilities->add_solvers(boss::v1::SOLVER_EULER);
  capabilities->add_solvers(boss::v1::SOLVER_RK45);
  auto* device = capabilities->add_devices();
  device->set_name("cpu");
  device->set_description("a processor");
  return grpc::Status::OK;
}

grpc::Status FakeSampler::Generate(grpc::ServerContext*, const boss::v1::GenerateRequest* received,
                                   grpc::ServerWriter<boss::v1::GenerateResponse>* writer) {
  ++calls;
  request = *received;
  if (failing_calls != 0) {
    --failing_calls;
    return status;
  }
  boss::v1::GenerateResponse response;
  auto& accepted = *response.mutable_accepted();
  accepted.set_model("m@1");
  for (const double t : {0.0, 0.25, 1.0}) accepted.add_time_grid(t);
  accepted.set_steps(2);
  accepted.set_schedule(boss::v1::SCHEDULE_KIND_BELLMAN);
  accepted.set_solver(boss::v1::SOLVER_EULER);
  accepted.set_seed(request.seed());
  accepted.set_guidance_scale(1);
  writer->Write(response);
  const int count = request.validate_only() ? 0 : request.num_samples();
  for (int i = 0; i < count; ++i) {
    const int index = reverse ? count - 1 - i : i;
    if (leave_out_last && index == count - 1) continue;
    auto& sample = *response.mutable_sample();
    sample.set_index(index);
    sample.set_seed(request.seed() + index);
    sample.set_format(boss::v1::OUTPUT_FORMAT_PNG);
    for (const int64_t side : {1, 2, 2}) sample.add_shape(side);
    Picture picture{2, 2, 1, std::vector<uint8_t>(4, static_cast<uint8_t>(10 * index))};
    sample.set_data(EncodePng(picture).value());
    writer->Write(response);
    sample.Clear();
  }
  if (!request.validate_only()) {
    auto& summary = *response.mutable_summary();
    summary.set_nfe(2);
    summary.set_device("cpu");
    summary.set_num_samples(count);
    summary.set_samples_per_second(50);
    writer->Write(response);
  }
  return grpc::Status::OK;
}

FakeServer::FakeServer() {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
  builder.RegisterService(&jobs);
  builder.RegisterService(&models);
  builder.RegisterService(&sampler);
  server_ = builder.BuildAndStart();
}

FakeServer::~FakeServer() { server_->Shutdown(); }

ClientOptions FakeServer::client_options() {
  ClientOptions options;
  options.address = address();
  options.retry.jitter = 0;
  options.retry.wait = [this](absl::Duration duration) { waits.push_back(duration); };
  return options;
}

std::vector<JobEvent> MakeEvents(int n, Job::State last) {
  std::vector<JobEvent> events(n);
  for (int i = 0; i < n; ++i) {
    events[i].set_sequence(i + 1);
    if (i == 0) {
      events[i].mutable_state_change()->set_from(Job::QUEUED);
      events[i].mutable_state_change()->set_to(Job::RUNNING);
    } else if (i == n - 1) {
      events[i].mutable_state_change()->set_from(Job::RUNNING);
      events[i].mutable_state_change()->set_to(last);
    } else {
      auto& metrics = *events[i].mutable_metrics();
      metrics.set_train_step(10 * i);
      metrics.set_loss(1.0 / i);
      if (i % 3 == 0) {
        metrics.set_held_out_loss(1.1 / i);
        metrics.add_segment_held_out_loss(1.0 / i);
        metrics.add_segment_held_out_loss(1.2 / i);
      }
    }
  }
  return events;
}

Job MakeDistillJob() {
  Job job;
  job.set_name("jobs/7");
  job.set_kind(Job::DISTILL);
  job.set_state(Job::SUCCEEDED);
  job.add_input_models("flow@1");
  job.set_output_model("flow@2");
  job.mutable_distill()->set_steps(4);
  job.mutable_distill()->mutable_training()->set_train_steps(2000);
  job.mutable_distill()->mutable_training()->set_batch_size(64);
  auto& result = *job.mutable_result();
  result.set_schedule_set("bellman-euler-g1");
  result.set_schedule_model("flow@1");
  const struct {
    int steps;
    const char* label;
    double error, distance;
  } rows[] = {{2, "uniform", 0.5, 40}, {2, "bellman", 0.4, 30}, {4, "uniform", 0.3, 20}, {4, "bellman", 0.25, 21}};
  for (const auto& row : rows) {
    auto& added = *result.add_evaluation();
    added.set_model("flow@2");
    added.set_steps(row.steps);
    added.set_label(row.label);
    added.set_solver(boss::v1::SOLVER_EULER);
    added.set_nfe(row.steps);
    added.set_trajectory_error(row.error);
    added.set_frechet_distance(row.distance);
    added.set_samples_per_second(123.45);
    added.set_num_samples(1000);
    added.set_baseline("flow@1");
    added.set_baseline_steps(100);
    added.set_feature_network("classifier");
  }
  return job;
}

boss::v1::ScheduleSet MakeScheduleSet() {
  constexpr int kMax = 8;
  boss::v1::ScheduleSet set;
  set.set_name("bellman-euler-g1");
  set.set_model("flow@1");
  set.set_kind(boss::v1::SCHEDULE_KIND_BELLMAN);
  set.set_k_max(kMax);
  set.set_num_samples(100);
  set.set_guidance_scale(1);
  set.set_solver(boss::v1::SOLVER_EULER);
  for (int k = 1; k <= kMax; ++k) {
    auto& schedule = *set.add_schedules();
    schedule.set_steps(k);
    schedule.set_total_cost(1.0 / k);
    for (int i = 0; i <= k; ++i) {
      const int knot = i == k ? kMax : i;
      schedule.add_knots(knot);
      schedule.add_time_grid(static_cast<double>(knot) / kMax);
    }
  }
  for (int i = 0; i <= kMax; ++i) {
    for (int j = 0; j <= kMax; ++j) set.add_cost_matrix(j > i ? std::pow(j - i, 3) / 512 : 0);
  }
  return set;
}

}  // namespace boss::client
