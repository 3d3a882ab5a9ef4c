#include "tests/soak/traffic.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <random>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "boss/v1/sampling.grpc.pb.h"
#include "client/boss_client.h"
#include "client/status.h"
#include "core/io/safetensors.h"
#include "inference/grpc_service.grpc.pb.h"
#include "tests/soak/soak_client.h"
#include "tests/support/hostile_traffic.h"
#include "tests/support/http_get.h"
#include "tests/support/tiny_models.h"

namespace boss::testing {
namespace {

using Random = std::mt19937_64;

constexpr char kGenerate[] = "/boss.v1.Sampler/Generate";
constexpr absl::Duration kSlowReadersPause = absl::Milliseconds(50);

v1::GenerateRequest SmallRequest(Random& random) {
  v1::GenerateRequest request;
  request.set_model(random() % 2 == 0 ? "vectors" : "pictures");
  request.set_num_samples(1 + static_cast<int>(random() % 4));
  request.set_steps(1 + static_cast<int>(random() % 8));
  if (random() % 2 == 0) request.add_class_labels(static_cast<int64_t>(random() % 3));
  if (request.class_labels_size() > 0 && random() % 2 == 0) request.set_guidance_scale(2);
  request.set_solver(random() % 2 == 0 ? v1::SOLVER_UNSPECIFIED : v1::SOLVER_HEUN);
  return request;
}

void GenerateSmall(const SoakRun& run, client::Client& client, Random& random) {
  const v1::GenerateRequest request = SmallRequest(random);
  const int64_t epoch = run.server.Epoch();
  const absl::Time start = absl::Now();
  const absl::Status status = client.GenerateAll(request).status();
  const absl::Duration latency = absl::Now() - start;
  if (status.ok() && !run.server.WasDisturbed(epoch)) run.ledger.AddLatency(latency);
  CountCall(run, "good: Generate", epoch, status);
}

// With the solvers that are less alike.
void GenerateOtherwise(const SoakRun& run, client::Client& client, Random& random) {
  v1::GenerateRequest request;
  request.set_model("vectors");
  request.set_num_samples(2);
  request.set_steps(4);
  const bool is_multistep = random() % 2 == 0;
  request.set_solver(is_multistep ? v1::SOLVER_MULTISTEP : v1::SOLVER_RK45);
  const int64_t epoch = run.server.Epoch();
  const absl::Status status = client.GenerateAll(request).status();
  // Before a job has made such schedules there are none.
  const bool may_fail = is_multistep && absl::IsFailedPrecondition(status);
  CountCall(run, "good: rk45 and multistep", epoch, status, may_fail);
}

void Infer(const SoakRun& run, inference::GRPCInferenceService::Stub& stub) {
  inference::ModelInferRequest request;
  request.set_model_name("vectors");
  (*request.mutable_parameters())["steps"].set_int64_param(3);
  grpc::ClientContext context;
  inference::ModelInferResponse response;
  const int64_t epoch = run.server.Epoch();
  CountCall(run, "good: ModelInfer", epoch, client::FromGrpcStatus(stub.ModelInfer(&context, request, &response)));
}

void Read(const SoakRun& run, client::Client& client) {
  int64_t epoch = run.server.Epoch();
  CountCall(run, "good: GetModel", epoch, client.GetModel("vectors").status());
  epoch = run.server.Epoch();
  CountCall(run, "good: GetCapabilities", epoch, client.GetCapabilities().status());
  epoch = run.server.Epoch();
  // A connection that has asked nothing yet makes room for a hostile client's hundred.
  bool is_there = false;
  for (int attempt = 0; attempt < 3 && !is_there; ++attempt) {
    is_there = absl::StartsWith(HttpGet(run.server.metrics_port(), "/metrics"), "HTTP/1.1 200 ");
  }
  CountCall(run, "good: GET /metrics", epoch, is_there ? absl::OkStatus() : absl::UnavailableError("no page"));
}

// Long, and 256 KiB a sample.
v1::GenerateRequest LargeRequest() {
  v1::GenerateRequest request;
  request.set_model("wide");
  request.set_num_samples(4);
  request.set_steps(20);
  request.set_preview_interval(1);
  return request;
}

}  // namespace

void RunGoodClient(const SoakRun& run, uint64_t seed) {
  Random random(seed);
  const auto channel = SoakChannel(run.server);
  client::Client client(channel, SoakClientOptions());
  const auto infer = inference::GRPCInferenceService::NewStub(channel);
  while (!run.stop.HasBeenNotified()) {
    switch (random() % 10) {
      case 0:
        GenerateOtherwise(run, client, random);
        break;
      case 1:
        Infer(run, *infer);
        break;
      case 2:
        Read(run, client);
        break;
      default:
        GenerateSmall(run, client, random);
    }
  }
}

void RunSlowReader(const SoakRun& run, uint64_t seed) {
  Random random(seed);
  const auto sampler = v1::Sampler::NewStub(SoakChannel(run.server));
  while (!run.stop.HasBeenNotified()) {
    grpc::ClientContext context;
    const int64_t epoch = run.server.Epoch();
    const auto stream = sampler->Generate(&context, LargeRequest());
    v1::GenerateResponse response;
    const size_t enough = 10 + random() % 100;
    bool is_left = false;
    for (size_t messages = 0; stream->Read(&response); ++messages) {
      if (messages == enough || run.stop.WaitForNotificationWithTimeout(kSlowReadersPause)) {
        is_left = true;
        context.TryCancel();
      }
    }
    const absl::Status status = client::FromGrpcStatus(stream->Finish());
    CountCall(run, "slow: Generate", epoch, status, is_left && absl::IsCancelled(status));
    if (!status.ok()) run.stop.WaitForNotificationWithTimeout(kSlowReadersPause);
  }
}

void RunImpatientClient(const SoakRun& run, uint64_t seed) {
  Random random(seed);
  const auto sampler = v1::Sampler::NewStub(SoakChannel(run.server));
  while (!run.stop.HasBeenNotified()) {
    v1::GenerateRequest request;
    request.set_model(random() % 2 == 0 ? "pictures" : "vectors");
    request.set_num_samples(1 + static_cast<int>(random() % 16));
    request.set_steps(1 + static_cast<int>(random() % 500));
    const bool has_deadline = random() % 2 == 0;
    size_t messages = random() % 6;
    grpc::ClientContext context;
    if (has_deadline)
      context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(random() % 200));
    const int64_t epoch = run.server.Epoch();
    const auto stream = sampler->Generate(&context, request);
    v1::GenerateResponse response;
    while (stream->Read(&response)) {
      if (!has_deadline && messages-- == 0) context.TryCancel();
    }
    const absl::Status status = client::FromGrpcStatus(stream->Finish());
    // CANCELLED also where the server saw the deadline a moment before the client did.
    CountCall(run, has_deadline ? "impatient: with a deadline" : "impatient: cancelling", epoch, status,
              absl::IsCancelled(status) || (has_deadline && absl::IsDeadlineExceeded(status)));
    run.stop.WaitForNotificationWithTimeout(absl::Milliseconds(20));
  }
}

void RunHostileClient(const SoakRun& run, uint64_t seed) {
  Random random(seed);
  const std::string preface = Http2Preface();
  const std::vector<std::string> http = MalformedHttpRequests(), http2 = Http2Garbage();
  const auto channel = SoakChannel(run.server);
  const auto sampler = v1::Sampler::NewStub(channel);
  while (!run.stop.HasBeenNotified()) {
    const int grpc_port = run.server.grpc_port(), metrics_port = run.server.metrics_port();
    switch (random() % 9) {
      case 0:
        RawConnection(metrics_port).Send(http[random() % http.size()]);
        break;
      case 1:
        RawConnection(grpc_port).Send(http2[random() % http2.size()]);
        break;
      case 2:
        FloodWithSettings(grpc_port);
        break;
      case 3:
        FloodWithPings(grpc_port);
        break;
      case 4:
        FloodWithResets(grpc_port, kGenerate);
        break;
      case 5:
        SendEndlessHeaders(grpc_port, kGenerate);
        break;
      case 6:
        SendEndlessMessage(grpc_port, "/boss.v1.Models/ImportModel");
        break;
      case 7: {
        const auto held = HoldConnections(random() % 2 == 0 ? grpc_port : metrics_port, 100,
                                          preface.substr(0, random() % (preface.size() + 1)));
        run.stop.WaitForNotificationWithTimeout(absl::Milliseconds(200));
        break;
      }
      default:
        for (int i = 0; i < 100; ++i) {
          grpc::ClientContext context;
          const auto stream = sampler->Generate(&context, LargeRequest());
          context.TryCancel();
          stream->Finish();
        }
    }
    run.ledger.Count("hostile: attacks", absl::OkStatus(), /*expected=*/true);
    run.stop.WaitForNotificationWithTimeout(absl::Milliseconds(100));
  }
}

void RunModelClient(const SoakRun& run, uint64_t seed) {
  const std::string file = run.server.folder() / "upload.safetensors", copy = run.server.folder() / "copy.safetensors";
  client::Client client(SoakChannel(run.server), SoakClientOptions());
  const auto call = [&](absl::string_view kind, auto function, auto... may_fail) {
    const int64_t epoch = run.server.Epoch();
    const absl::Status status = function();
    CountCall(run, kind, epoch, status, (may_fail(status) || ...));
    return status.ok();
  };
  std::string last;
  while (!run.stop.HasBeenNotified()) {
    const Safetensors weights = {.tensors = TinyModel(kTinyVectorArchitecture, seed++)->State(),
                                 .metadata = {{"architecture", kTinyVectorArchitecture}}};
    if (const absl::Status status = WriteSafetensors(file, weights); !status.ok()) {
      run.ledger.AddFinding(absl::StrCat("cannot write: ", status.ToString()));
      return;
    }
    std::string version;
    const bool is_imported = call("models: ImportModel", [&] {
      v1::ImportStart start;
      start.set_model("imports");
      start.set_alias("newest");
      const auto response = client.ImportModel(start, file, [](int64_t) {});
      if (response.ok()) version = absl::StrCat("imports@", response->version().version());
      return response.status();
    });
    if (!is_imported) continue;
    call("models: LoadModel", [&] {
      v1::LoadModelRequest request;
      request.set_model(version);
      return client.LoadModel(request).status();
    });
    call("models: Generate", [&] {
      v1::GenerateRequest request;
      request.set_model(version);
      request.set_steps(2);
      return client.GenerateAll(request).status();
    });
    call("models: ExportModel", [&] {
      v1::ExportModelRequest request;
      request.set_model(version);
      return client.ExportModel(request, copy, [](int64_t) {}).status();
    });
    call("models: UnloadModel", [&] { return client.UnloadModel(version).status(); });
    if (!last.empty()) {
      // A first try that was answered by nobody may have deleted it.
      call(
          "models: DeleteVersion",
          [&] {
            v1::DeleteVersionRequest request;
            request.set_model(last);
            request.set_force(true);
            return client.DeleteVersion(request);
          },
          [&](const absl::Status& status) { return absl::IsNotFound(status); });
    }
    last = version;
    run.stop.WaitForNotificationWithTimeout(absl::Milliseconds(300));
  }
}

}  // namespace boss::testing
