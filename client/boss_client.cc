#include "client/boss_client.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/status.h"

namespace boss::client {
namespace {

using boss::v1::Job;

std::shared_ptr<grpc::Channel> MakeChannel(const ClientOptions& options, const ChannelSecurity& security) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(options.max_message_bytes);
  arguments.SetMaxSendMessageSize(options.max_message_bytes);
  // Less than the pauses between our own attempts, or an attempt would find no new connection.
  // GRPC_ARG_MIN_RECONNECT_BACKOFF_MS stays as it is: it also bounds the time that a connection may take to be made.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 5000);
  if (!security.server_name.empty()) arguments.SetSslTargetNameOverride(security.server_name);
  return grpc::CreateCustomChannel(options.address, security.channel, arguments);
}

// A file that cannot be read for a moment, while it is replaced, is what it was at first.
CallControl::TokenSource MakeTokenSource(ChannelSecurity security) {
  if (security.token.empty()) return nullptr;
  return [token = std::move(security.token), path = std::move(security.token_file)] {
    return path.empty() ? token : ReadToken(path).value_or(token);
  };
}

template <typename Request>
Request WithRequestId(Request request) {
  if (request.request_id().empty() && !request.validate_only()) request.set_request_id(Client::NewId());
  return request;
}

template <typename Request>
Request Named(const std::string& name) {
  Request request;
  request.set_name(name);
  return request;
}

}  // namespace

std::string Client::NewId() { return NewRandomId(); }

Client::Client(ClientOptions options)
    : Client(MakeChannel(options, {.channel = grpc::InsecureChannelCredentials()}), options) {}

Client::Client(std::shared_ptr<grpc::Channel> channel, ClientOptions options)
    : Client(std::move(channel), std::move(options), /*token=*/nullptr) {}

absl::StatusOr<std::unique_ptr<Client>> Client::Connect(ClientOptions options, const Credentials& credentials) {
  absl::StatusOr<ChannelSecurity> security = ResolveCredentials(credentials, options.address);
  if (!security.ok()) return security.status();
  std::shared_ptr<grpc::Channel> channel = MakeChannel(options, *security);
  return std::unique_ptr<Client>(
      new Client(std::move(channel), std::move(options), MakeTokenSource(*std::move(security))));
}

Client::Client(std::shared_ptr<grpc::Channel> channel, ClientOptions options, CallControl::TokenSource token)
    : control_(channel, options.timeout, options.retry, std::move(token), options.trace_parent),
      sampler_(boss::v1::Sampler::NewStub(channel)),
      jobs_(boss::v1::Jobs::NewStub(channel)),
      models_(boss::v1::Models::NewStub(channel)),
      health_(grpc::health::v1::Health::NewStub(channel)) {}

template <typename Stub, typename Request, typename Response>
absl::StatusOr<Response> Client::Unary(Stub& stub,
                                       grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                                       const Request& request, Repeat repeat) {
  CallControl::Attempts attempts(control_, /*resumable=*/false);
  for (bool is_first = true;; is_first = false) {
    Response response;
    absl::Status status;
    {
      CallControl::Call call(control_, /*with_deadline=*/true);
      status = call.End((stub.*method)(&call.context(), request, &response));
    }
    if (status.ok()) return response;
    if (repeat == Repeat::kNotFound && !is_first && absl::IsNotFound(status)) return response;
    if (repeat == Repeat::kTwice || !attempts.Again(status)) return status;
  }
}

absl::Status Client::Generate(const boss::v1::GenerateRequest& request,
                              absl::FunctionRef<absl::Status(const boss::v1::GenerateResponse&)> on_response) {
  CallControl::Attempts attempts(control_, /*resumable=*/false);
  while (true) {
    bool received = false;
    absl::Status status;
    {
      CallControl::Call call(control_, /*with_deadline=*/false);
      const auto reader = sampler_->Generate(&call.context(), request);
      boss::v1::GenerateResponse response;
      absl::Status stop;
      while (reader->Read(&response)) {
        received = true;
        stop = on_response(response);
        if (!stop.ok()) {
          call.context().TryCancel();
          break;
        }
      }
      status = call.End(reader->Finish());
      if (!stop.ok()) return stop;
    }
    if (status.ok() || received || !attempts.Again(status)) return status;
  }
}

absl::StatusOr<GenerateResult> Client::GenerateAll(const boss::v1::GenerateRequest& request) {
  GenerateResult result;
  const absl::Status status = Generate(request, [&](const boss::v1::GenerateResponse& response) {
    switch (response.event_case()) {
      case boss::v1::GenerateResponse::kAccepted:
        result.accepted = response.accepted();
        break;
      case boss::v1::GenerateResponse::kSample:
        result.samples.push_back(response.sample());
        break;
      case boss::v1::GenerateResponse::kSummary:
        result.summary = response.summary();
        break;
      default:
        break;
    }
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  std::sort(result.samples.begin(), result.samples.end(),
            [](const auto& a, const auto& b) { return a.index() < b.index(); });
  const int expected = request.validate_only() ? 0 : std::max(request.num_samples(), 1);
  bool complete = static_cast<int>(result.samples.size()) == expected;
  for (int i = 0; complete && i < expected; ++i) complete = result.samples[i].index() == i;
  if (!complete) {
    return absl::InternalError(
        absl::StrCat("the server sent ", result.samples.size(), " samples, expected ", expected, ", each index once"));
  }
  return result;
}

absl::StatusOr<Job> Client::TrainJob(boss::v1::TrainJobRequest request) {
  return Unary(*jobs_, &boss::v1::Jobs::Stub::TrainJob, WithRequestId(std::move(request)));
}

absl::StatusOr<Job> Client::OptimizeStepsizesJob(boss::v1::OptimizeStepsizesJobRequest request) {
  return Unary(*jobs_, &boss::v1::Jobs::Stub::OptimizeStepsizesJob, WithRequestId(std::move(request)));
}

absl::StatusOr<Job> Client::DistillJob(boss::v1::DistillJobRequest request) {
  return Unary(*jobs_, &boss::v1::Jobs::Stub::DistillJob, WithRequestId(std::move(request)));
}

absl::StatusOr<Job> Client::EvaluateJob(boss::v1::EvaluateJobRequest request) {
  return Unary(*jobs_, &boss::v1::Jobs::Stub::EvaluateJob, WithRequestId(std::move(request)));
}

absl::StatusOr<Job> Client::GetJob(const std::string& name) {
  return Unary(*jobs_, &boss::v1::Jobs::Stub::GetJob, Named<boss::v1::GetJobRequest>(name));
}

Client::JobPager Client::ListJobs(boss::v1::ListJobsRequest request) {
  return JobPager(
      std::move(request),
      [this](const boss::v1::ListJobsRequest& page) { return Unary(*jobs_, &boss::v1::Jobs::Stub::ListJobs, page); },
      [](boss::v1::ListJobsResponse& page) { return page.mutable_jobs(); });
}

absl::StatusOr<Job> Client::CancelJob(const std::string& name) {
  return Unary(*jobs_, &boss::v1::Jobs::Stub::CancelJob, Named<boss::v1::CancelJobRequest>(name));
}

absl::StatusOr<Job> Client::PauseJob(const std::string& name) {
  return Unary(*jobs_, &boss::v1::Jobs::Stub::PauseJob, Named<boss::v1::PauseJobRequest>(name));
}

absl::StatusOr<Job> Client::ResumeJob(const std::string& name) {
  return Unary(*jobs_, &boss::v1::Jobs::Stub::ResumeJob, Named<boss::v1::ResumeJobRequest>(name));
}

absl::Status Client::DeleteJob(const std::string& name) {
  return Unary(*jobs_, &boss::v1::Jobs::Stub::DeleteJob, Named<boss::v1::DeleteJobRequest>(name), Repeat::kNotFound)
      .status();
}

absl::Status Client::WatchJob(boss::v1::WatchJobRequest request,
                              absl::FunctionRef<absl::Status(const boss::v1::JobEvent&)> on_event) {
  int64_t next = std::max<int64_t>(request.from_sequence(), 1);
  CallControl::Attempts attempts(control_, /*resumable=*/true);
  while (true) {
    request.set_from_sequence(next);
    absl::Status status;
    {
      CallControl::Call call(control_, /*with_deadline=*/false);
      const auto reader = jobs_->WatchJob(&call.context(), request);
      boss::v1::JobEvent event;
      absl::Status stop;
      while (stop.ok() && reader->Read(&event)) {
        if (event.sequence() < next) continue;  // seen before the connection was lost
        if (event.sequence() > next) {
          stop =
              absl::DataLossError(absl::StrCat(request.name(), ": got event ", event.sequence(), ", expected ", next));
        } else {
          ++next;
          attempts.Progress();
          stop = on_event(event);
        }
      }
      if (!stop.ok()) call.context().TryCancel();
      status = call.End(reader->Finish());
      if (!stop.ok()) return stop;
    }
    if (status.ok() || !attempts.Again(status)) return status;
  }
}

Client::ModelPager Client::ListModels(boss::v1::ListModelsRequest request) {
  return ModelPager(
      std::move(request),
      [this](const boss::v1::ListModelsRequest& page) {
        return Unary(*models_, &boss::v1::Models::Stub::ListModels, page);
      },
      [](boss::v1::ListModelsResponse& page) { return page.mutable_models(); });
}

absl::StatusOr<boss::v1::Model> Client::GetModel(const std::string& model) {
  boss::v1::GetModelRequest request;
  request.set_model(model);
  return Unary(*models_, &boss::v1::Models::Stub::GetModel, request);
}

absl::StatusOr<boss::v1::ModelVersion> Client::LoadModel(const boss::v1::LoadModelRequest& request) {
  return Unary(*models_, &boss::v1::Models::Stub::LoadModel, request);
}

absl::StatusOr<boss::v1::ModelVersion> Client::UnloadModel(const std::string& model) {
  boss::v1::UnloadModelRequest request;
  request.set_model(model);
  return Unary(*models_, &boss::v1::Models::Stub::UnloadModel, request);
}

absl::StatusOr<boss::v1::Model> Client::SetAlias(const boss::v1::SetAliasRequest& request) {
  return Unary(*models_, &boss::v1::Models::Stub::SetAlias, request);
}

absl::StatusOr<boss::v1::ModelVersion> Client::MergeAdapter(const boss::v1::MergeAdapterRequest& request) {
  return Unary(*models_, &boss::v1::Models::Stub::MergeAdapter, request, Repeat::kTwice);
}

absl::Status Client::DeleteVersion(const boss::v1::DeleteVersionRequest& request) {
  return Unary(*models_, &boss::v1::Models::Stub::DeleteVersion, request, Repeat::kNotFound).status();
}

absl::StatusOr<boss::v1::ScheduleSet> Client::GetSchedule(const boss::v1::GetScheduleRequest& request) {
  return Unary(*models_, &boss::v1::Models::Stub::GetSchedule, request);
}

Client::SchedulePager Client::ListSchedules(boss::v1::ListSchedulesRequest request) {
  return SchedulePager(
      std::move(request),
      [this](const boss::v1::ListSchedulesRequest& page) {
        return Unary(*models_, &boss::v1::Models::Stub::ListSchedules, page);
      },
      [](boss::v1::ListSchedulesResponse& page) { return page.mutable_schedule_sets(); });
}

absl::StatusOr<boss::v1::ScheduleSet> Client::ImportSchedule(const boss::v1::ImportScheduleRequest& request) {
  return Unary(*models_, &boss::v1::Models::Stub::ImportSchedule, request);
}

absl::Status Client::DeleteSchedule(const boss::v1::DeleteScheduleRequest& request) {
  return Unary(*models_, &boss::v1::Models::Stub::DeleteSchedule, request, Repeat::kNotFound).status();
}

absl::StatusOr<boss::v1::Capabilities> Client::GetCapabilities() {
  return Unary(*models_, &boss::v1::Models::Stub::GetCapabilities, boss::v1::GetCapabilitiesRequest());
}

absl::StatusOr<grpc::health::v1::HealthCheckResponse::ServingStatus> Client::CheckHealth(const std::string& service) {
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(service);
  auto response = Unary(*health_, &grpc::health::v1::Health::Stub::Check, request);
  if (!response.ok()) return response.status();
  return response->status();
}

}  // namespace boss::client
