// Calls of every method of a whole server, over its port: any bytes as their messages. Every call ends with a status
// that a request may have, and the server lives. The input is a row of records: a byte that chooses the method (or,
// with its highest bit, adds a message to the call before), the message's size in two bytes, and the message. "jobs/"
// and twelve
// '#' in it stand for the job that was submitted last.
#include <google/protobuf/descriptor.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <spdlog/spdlog.h>
#include <stdlib.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "boss/v1/errors.pb.h"
#include "boss/v1/jobs.pb.h"
#include "inference/grpc_service.pb.h"
#include "server/app/server.h"
#include "tests/fuzz/check.h"
#include "tests/support/forwarding_file_system.h"
#include "tests/support/temp_folder.h"
#include "tests/support/tiny_models.h"

namespace boss::server {
namespace {

using boss::testing::FuzzCheck;

constexpr size_t kMaxCalls = 8;
constexpr int kInputsOfAServer = 500;
// Of calls that a request may make as long as it likes.
constexpr std::chrono::seconds kDeadline{1};
constexpr char kJobPlaceholder[] = "jobs/############";

// make_corpus.py has the same list.
struct Method {
  const char* path;
  bool is_long = false;  // ends by itself, or at the deadline
  int max_responses = 64;
};
constexpr Method kMethods[] = {
    {"/boss.v1.Sampler/Generate", true},
    {"/boss.v1.Jobs/TrainJob"},
    {"/boss.v1.Jobs/OptimizeStepsizesJob"},
    {"/boss.v1.Jobs/DistillJob"},
    {"/boss.v1.Jobs/EvaluateJob"},
    {"/boss.v1.Jobs/GetJob"},
    {"/boss.v1.Jobs/ListJobs"},
    {"/boss.v1.Jobs/CancelJob"},
    {"/boss.v1.Jobs/PauseJob"},
    {"/boss.v1.Jobs/ResumeJob"},
    {"/boss.v1.Jobs/DeleteJob"},
    {"/boss.v1.Jobs/WatchJob", true},
    {"/boss.v1.Models/ListModels"},
    {"/boss.v1.Models/GetModel"},
    {"/boss.v1.Models/LoadModel"},
    {"/boss.v1.Models/UnloadModel"},
    {"/boss.v1.Models/ImportModel"},
    {"/boss.v1.Models/ExportModel"},
    {"/boss.v1.Models/SetAlias"},
    {"/boss.v1.Models/MergeAdapter"},
    {"/boss.v1.Models/DeleteVersion"},
    {"/boss.v1.Models/GetSchedule"},
    {"/boss.v1.Models/ListSchedules"},
    {"/boss.v1.Models/ImportSchedule"},
    {"/boss.v1.Models/DeleteSchedule"},
    {"/boss.v1.Models/GetCapabilities"},
    {"/inference.GRPCInferenceService/ServerLive"},
    {"/inference.GRPCInferenceService/ServerReady"},
    {"/inference.GRPCInferenceService/ModelReady"},
    {"/inference.GRPCInferenceService/ServerMetadata"},
    {"/inference.GRPCInferenceService/ModelMetadata"},
    {"/inference.GRPCInferenceService/ModelInfer", true},
    {"/inference.GRPCInferenceService/ModelStreamInfer", true},
    {"/grpc.health.v1.Health/Check"},
    {"/grpc.health.v1.Health/Watch", true, 1},  // never ends
};
constexpr std::string_view kSubmissions[] = {"TrainJob", "OptimizeStepsizesJob", "DistillJob", "EvaluateJob"};

std::string_view NameOf(const Method& method) {
  const std::string_view path = method.path;
  return path.substr(path.rfind('/') + 1);
}

bool IsSubmission(const Method& method) {
  return std::find(std::begin(kSubmissions), std::end(kSubmissions), NameOf(method)) != std::end(kSubmissions);
}

void CheckThatNoMethodIsMissing() {
  for (const char* service : {"boss.v1.Sampler", "boss.v1.Jobs", "boss.v1.Models", "inference.GRPCInferenceService"}) {
    const auto* descriptor = google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(service);
    for (int i = 0; i < descriptor->method_count(); ++i) {
      const std::string path = "/" + std::string(service) + "/" + descriptor->method(i)->name();
      const bool is_there = std::any_of(std::begin(kMethods), std::end(kMethods),
                                        [&](const Method& method) { return path == method.path; });
      FuzzCheck(is_there, "kMethods lacks " + path);
    }
  }
}

struct Call {
  const Method* method;
  std::vector<std::string> messages;
};

std::vector<Call> ReadCalls(std::string_view input) {
  std::vector<Call> calls;
  while (input.size() >= 3) {
    const auto head = static_cast<uint8_t>(input[0]);
    const size_t size = static_cast<uint8_t>(input[1]) | static_cast<size_t>(static_cast<uint8_t>(input[2])) << 8;
    std::string message(input.substr(3, size));
    input.remove_prefix(std::min(input.size(), 3 + size));
    if ((head & 0x80) != 0 && !calls.empty()) {
      calls.back().messages.push_back(std::move(message));
    } else if (calls.size() < kMaxCalls) {
      calls.push_back({&kMethods[(head & 0x7f) % std::size(kMethods)], {std::move(message)}});
    }
  }
  return calls;
}

// A disk that may be too full for jobs to start.
class Disk final : public boss::testing::ForwardingFileSystem {
 public:
  absl::StatusOr<int64_t> FreeBytes(const std::string& path) const override { return int64_t{is_full ? 0 : 1} << 40; }
  std::atomic<bool> is_full = false;
};

// A server with a client, both anew after some inputs, so that what the inputs left behind does not pile up.
class Target {
 public:
  Target() {
    std::filesystem::create_directories(folder_ / "seeds");
    boss::testing::WriteSeedModel(folder_ / "seeds", "pictures", boss::testing::kTinyImageArchitecture);
    boss::testing::WriteSeedModel(folder_ / "seeds", "vectors", boss::testing::kTinyConditionedArchitecture);
    ServerConfig config;
    config.listen = "127.0.0.1:0";
    config.metrics_listen = "";
    config.data_folder = folder_ / "data";
    config.seed_models_folder = folder_ / "seeds";
    config.threads = 1;
    config.max_samples_per_request = 8;
    config.max_queued_samples = 64;
    config.max_queued_jobs = 8;
    config.max_message_bytes = 1 << 20;
    config.max_import_bytes = 1 << 16;
    config.max_job_data_bytes = 16 << 20;
    config.min_free_disk_bytes = 1;
    config.drain = config.grace = absl::ZeroDuration();
    auto server = Server::Start(config, {.files = disk_});
    FuzzCheck(server.ok(), "the server does not start: " + server.status().ToString());
    server_ = *std::move(server);
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    stub_ = std::make_unique<grpc::GenericStub>(grpc::CreateCustomChannel(
        "127.0.0.1:" + std::to_string(server_->port()), grpc::InsecureChannelCredentials(), arguments));
  }

  void Run(std::vector<Call> calls) {
    // A network that TrainJob describes may be as large as the machine's memory: such jobs wait until they are
    // cancelled.
    disk_.is_full =
        std::any_of(calls.begin(), calls.end(), [](const Call& call) { return NameOf(*call.method) == "TrainJob"; });
    std::vector<std::string> jobs;
    for (Call& call : calls) {
      for (std::string& message : call.messages) {
        const size_t place = jobs.empty() ? std::string::npos : message.find(kJobPlaceholder);
        if (place != std::string::npos) message.replace(place, jobs.back().size(), jobs.back());
      }
      v1::Job job;
      if (Perform(call, job)) jobs.push_back(job.name());
    }
    const auto* const cancel = std::find_if(std::begin(kMethods), std::end(kMethods),
                                            [](const Method& method) { return NameOf(method) == "CancelJob"; });
    for (const std::string& name : jobs) {
      v1::CancelJobRequest request;
      request.set_name(name);
      v1::Job job;
      Perform({cancel, {request.SerializeAsString()}}, job);
    }
  }

  // Whether a version was deleted: it may be one that the other inputs are about.
  bool is_spoilt() const { return is_spoilt_; }

 private:
  // Whether a job was submitted.
  bool Perform(const Call& call, v1::Job& job) {
    grpc::ClientContext context;
    if (call.method->is_long) context.set_deadline(std::chrono::system_clock::now() + kDeadline);
    grpc::CompletionQueue queue;
    const auto wait = [&] {
      void* tag = nullptr;
      bool ok = false;
      return queue.Next(&tag, &ok) && ok;
    };
    const auto stream = stub_->PrepareCall(&context, call.method->path, &queue);
    stream->StartCall(nullptr);
    bool goes_on = wait();
    for (size_t i = 0; i < call.messages.size() && goes_on; ++i) {
      const grpc::Slice slice(call.messages[i]);
      stream->Write(grpc::ByteBuffer(&slice, 1), nullptr);
      goes_on = wait();
    }
    if (goes_on) {
      stream->WritesDone(nullptr);
      wait();
    }
    std::string first;
    for (int i = 0;; ++i) {
      grpc::ByteBuffer response;
      stream->Read(&response, nullptr);
      if (!wait()) break;
      grpc::Slice bytes;
      FuzzCheck(response.DumpToSingleSlice(&bytes).ok(), "a response without bytes");
      const std::string text(bytes.begin(), bytes.end());
      CheckResponse(*call.method, text);
      if (i == 0) first = text;
      if (i + 1 == call.method->max_responses) context.TryCancel();
    }
    grpc::Status status;
    stream->Finish(&status, nullptr);
    wait();
    CheckStatus(*call.method, status);
    if (!status.ok()) return false;
    if (NameOf(*call.method) == "DeleteVersion") is_spoilt_ = true;
    return IsSubmission(*call.method) && job.ParseFromString(first) && !job.name().empty();
  }

  // What is an error inside of a response.
  static void CheckResponse(const Method& method, const std::string& response) {
    if (NameOf(method) == "ModelStreamInfer") {
      inference::ModelStreamInferResponse message;
      FuzzCheck(message.ParseFromString(response), "a response that does not parse");
      for (const char* code : {"UNKNOWN", "INTERNAL"})
        FuzzCheck(!message.error_message().starts_with(code), "in the stream: " + message.error_message());
    } else if (NameOf(method) == "WatchJob") {
      v1::JobEvent event;
      FuzzCheck(event.ParseFromString(response), "an event that does not parse");
      const v1::Status& error = event.state_change().error();
      FuzzCheck(error.code() != grpc::StatusCode::UNKNOWN && error.code() != grpc::StatusCode::INTERNAL,
                "a job failed: " + error.ShortDebugString());
    }
  }

  static void CheckStatus(const Method& method, const grpc::Status& status) {
    const std::string text =
        std::string(method.path) + ": code " + std::to_string(status.error_code()) + ", " + status.error_message();
    const bool is_grpcs = std::string_view(method.path).starts_with("/grpc.");
    switch (status.error_code()) {
      case grpc::StatusCode::OK:
      case grpc::StatusCode::UNIMPLEMENTED:  // also gRPC's own answer to a message that does not parse
        return;
      case grpc::StatusCode::CANCELLED:
      case grpc::StatusCode::DEADLINE_EXCEEDED:
        return FuzzCheck(method.is_long || NameOf(method) == "ExportModel", "ended by nobody: " + text);
      case grpc::StatusCode::INVALID_ARGUMENT:
      case grpc::StatusCode::NOT_FOUND:
      case grpc::StatusCode::ALREADY_EXISTS:
      case grpc::StatusCode::FAILED_PRECONDITION:
      case grpc::StatusCode::PERMISSION_DENIED:
      case grpc::StatusCode::RESOURCE_EXHAUSTED:
      case grpc::StatusCode::OUT_OF_RANGE:
      case grpc::StatusCode::DATA_LOSS:
        break;
      case grpc::StatusCode::UNAVAILABLE:  // to be tried again
        FuzzCheck(status.error_message().find("is being unloaded") != std::string::npos, "went away: " + text);
        break;
      case grpc::StatusCode::INTERNAL:
        return FuzzCheck(is_grpcs, "no answer to a request: " + text);
      default:
        FuzzCheck(false, "no answer to a request: " + text);
    }
    if (is_grpcs) return;
    // Its strings are UTF-8, or it would not parse.
    v1::Status details;
    FuzzCheck(!status.error_details().empty() && details.ParseFromString(status.error_details()),
              "no details: " + text);
    FuzzCheck(details.code() == status.error_code() && details.message() == status.error_message(),
              "details of another error: " + text);
  }

  const boss::testing::TempFolder folder_;
  Disk disk_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<grpc::GenericStub> stub_;
  bool is_spoilt_ = false;
};

}  // namespace
}  // namespace boss::server

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  setenv("TMPDIR", "/dev/shm", /*overwrite=*/0);
  spdlog::set_level(spdlog::level::off);
  boss::server::CheckThatNoMethodIsMissing();
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace boss::server;
  static std::unique_ptr<Target> target;
  static int num_inputs = 0;
  if (!target || target->is_spoilt() || ++num_inputs % kInputsOfAServer == 0) {
    target.reset();  // before the next one, whose models have the same names
    target = std::make_unique<Target>();
  }
  target->Run(ReadCalls({reinterpret_cast<const char*>(data), size}));
  return 0;
}
