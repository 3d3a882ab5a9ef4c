#include "server/rpc/call_recorder.h"

#include <google/protobuf/descriptor.h>

#include <iterator>
#include <string>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/log/log.h"
#include "server/rpc/call_metadata.h"

namespace boss::server {
namespace {

using grpc::experimental::InterceptionHookPoints;

// Of the services that gRPC itself adds to a server.
constexpr const char* kMethodsOfGrpc[] = {"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch",
                                          "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"};

// They change what the server holds, which is worth a line at info.
constexpr const char* kChanges[] = {"/boss.v1.Jobs/TrainJob",         "/boss.v1.Jobs/OptimizeStepsizesJob",
                                    "/boss.v1.Jobs/DistillJob",       "/boss.v1.Jobs/EvaluateJob",
                                    "/boss.v1.Jobs/CancelJob",        "/boss.v1.Jobs/PauseJob",
                                    "/boss.v1.Jobs/ResumeJob",        "/boss.v1.Jobs/DeleteJob",
                                    "/boss.v1.Models/LoadModel",      "/boss.v1.Models/UnloadModel",
                                    "/boss.v1.Models/ImportModel",    "/boss.v1.Models/SetAlias",
                                    "/boss.v1.Models/MergeAdapter",   "/boss.v1.Models/DeleteVersion",
                                    "/boss.v1.Models/ImportSchedule", "/boss.v1.Models/DeleteSchedule"};

bool IsServersFault(grpc::StatusCode code) {
  return code == grpc::StatusCode::INTERNAL || code == grpc::StatusCode::UNKNOWN || code == grpc::StatusCode::DATA_LOSS;
}

// Lives as long as the call's context, and so do the strings that it puts into the received metadata.
class CallRecorder final : public grpc::experimental::Interceptor {
 public:
  // `open`: null for a call that does not count among them.
  CallRecorder(Metrics& metrics, const Clock& clock, OpenCalls* open, std::string method, LogLevel end_level)
      : metrics_(metrics),
        clock_(clock),
        open_(open),
        method_(std::move(method)),
        end_level_(end_level),
        start_(clock.Now()) {
    if (open_ != nullptr) open_->Add();
  }
  ~CallRecorder() override {
    if (open_ != nullptr) open_->Remove();
  }

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::POST_RECV_INITIAL_METADATA)) {
      Name(*methods->GetRecvInitialMetadata());
      LogDebug("call started", {{"method", method_}}, id_);
    }
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS)) {
      methods->GetSendTrailingMetadata()->emplace(kRequestIdKey, id_.request_id);
      Record(methods->GetSendStatus());
    }
    methods->Proceed();
  }

 private:
  // Afterwards the metadata has one request id, and a traceparent only if it is well-formed.
  void Name(ReceivedMetadata& metadata) {
    id_ = CallIdOf(metadata);
    if (id_.request_id.empty()) id_.request_id = NewRequestId();
    metadata.erase(kRequestIdKey);
    metadata.emplace(kRequestIdKey, id_.request_id);
    if (id_.trace_id.empty()) metadata.erase(kTraceParentKey);
  }

  void Record(const grpc::Status& status) {
    const std::string code = absl::StatusCodeToString(static_cast<absl::StatusCode>(status.error_code()));
    const absl::Duration latency = clock_.Now() - start_;
    metrics_.RecordCall(method_, code, latency);
    const LogLevel level = IsServersFault(status.error_code()) ? LogLevel::kError : end_level_;
    if (!LogEnabled(level)) return;
    if (status.ok()) {
      Log(level, "call ended", {{"method", method_}, {"code", code}, {"seconds", latency}}, id_);
    } else {
      Log(level, "call ended",
          {{"method", method_}, {"code", code}, {"seconds", latency}, {"error", status.error_message()}}, id_);
    }
  }

  Metrics& metrics_;
  const Clock& clock_;
  OpenCalls* const open_;
  const std::string method_;
  const LogLevel end_level_;
  const absl::Time start_;
  CallId id_;
};

class CallRecorderFactory final : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  CallRecorderFactory(Metrics& metrics, const Clock& clock, OpenCalls& open, absl::flat_hash_set<std::string> methods)
      : metrics_(metrics), clock_(clock), open_(open), methods_(std::move(methods)) {}

  grpc::experimental::Interceptor* CreateServerInterceptor(grpc::experimental::ServerRpcInfo* info) override {
    const absl::string_view method = info->method();
    const bool is_ours = methods_.contains(method);
    const std::string name(is_ours || of_grpc_.contains(method) ? method : "other");
    const LogLevel end_level = changes_.contains(name) ? LogLevel::kInfo : LogLevel::kDebug;
    return new CallRecorder(metrics_, clock_, is_ours ? &open_ : nullptr, name, end_level);  // gRPC takes ownership
  }

 private:
  Metrics& metrics_;
  const Clock& clock_;
  OpenCalls& open_;
  const absl::flat_hash_set<std::string> methods_;
  const absl::flat_hash_set<std::string> of_grpc_{std::begin(kMethodsOfGrpc), std::end(kMethodsOfGrpc)};
  const absl::flat_hash_set<std::string> changes_{std::begin(kChanges), std::end(kChanges)};
};

}  // namespace

std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> CallRecorders(
    Metrics& metrics, const Clock& clock, OpenCalls& open, const std::vector<std::string>& services) {
  absl::flat_hash_set<std::string> methods;
  for (const std::string& name : services) {
    const auto* const service = google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(name);
    for (int i = 0; i < service->method_count(); ++i) {
      methods.insert(absl::StrCat("/", name, "/", service->method(i)->name()));
    }
  }
  std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> factories;
  factories.push_back(std::make_unique<CallRecorderFactory>(metrics, clock, open, std::move(methods)));
  return factories;
}

}  // namespace boss::server
