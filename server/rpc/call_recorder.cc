#include "server/rpc/call_recorder.h"

#include <google/protobuf/descriptor.h>
#include <spdlog/spdlog.h>

#include <iterator>
#include <string>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace boss::server {
namespace {

// Of the services that gRPC itself adds to a server.
constexpr const char* kMethodsOfGrpc[] = {"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch",
                                          "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"};

class CallRecorder final : public grpc::experimental::Interceptor {
 public:
  CallRecorder(Metrics& metrics, const Clock& clock, std::string method)
      : metrics_(metrics), clock_(clock), method_(std::move(method)), start_(clock.Now()) {}

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(grpc::experimental::InterceptionHookPoints::PRE_SEND_STATUS)) {
      const grpc::Status status = methods->GetSendStatus();
      const std::string code = absl::StatusCodeToString(static_cast<absl::StatusCode>(status.error_code()));
      const absl::Duration latency = clock_.Now() - start_;
      metrics_.RecordCall(method_, code, latency);
      spdlog::debug("call method={} code={} seconds={:.6f} message={}", method_, code, absl::ToDoubleSeconds(latency),
                    status.error_message());
    }
    methods->Proceed();
  }

 private:
  Metrics& metrics_;
  const Clock& clock_;
  const std::string method_;
  const absl::Time start_;
};

class CallRecorderFactory final : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  CallRecorderFactory(Metrics& metrics, const Clock& clock, absl::flat_hash_set<std::string> methods)
      : metrics_(metrics), clock_(clock), methods_(std::move(methods)) {}

  grpc::experimental::Interceptor* CreateServerInterceptor(grpc::experimental::ServerRpcInfo* info) override {
    const auto method = methods_.find(absl::string_view(info->method()));
    const std::string name = method == methods_.end() ? std::string("other") : *method;
    return new CallRecorder(metrics_, clock_, name);  // gRPC takes ownership
  }

 private:
  Metrics& metrics_;
  const Clock& clock_;
  const absl::flat_hash_set<std::string> methods_;
};

}  // namespace

std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> CallRecorders(
    Metrics& metrics, const Clock& clock, const std::vector<std::string>& services) {
  absl::flat_hash_set<std::string> methods(std::begin(kMethodsOfGrpc), std::end(kMethodsOfGrpc));
  for (const std::string& name : services) {
    const auto* const service = google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(name);
    for (int i = 0; i < service->method_count(); ++i) {
      methods.insert(absl::StrCat("/", name, "/", service->method(i)->name()));
    }
  }
  std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> factories;
  factories.push_back(std::make_unique<CallRecorderFactory>(metrics, clock, std::move(methods)));
  return factories;
}

}  // namespace boss::server
