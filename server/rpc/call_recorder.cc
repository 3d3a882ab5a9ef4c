#include "server/rpc/call_recorder.h"

#include <spdlog/spdlog.h>

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace boss::server {
namespace {

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
  CallRecorderFactory(Metrics& metrics, const Clock& clock) : metrics_(metrics), clock_(clock) {}

  grpc::experimental::Interceptor* CreateServerInterceptor(grpc::experimental::ServerRpcInfo* info) override {
    return new CallRecorder(metrics_, clock_, info->method());  // gRPC takes ownership
  }

 private:
  Metrics& metrics_;
  const Clock& clock_;
};

}  // namespace

std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> CallRecorders(Metrics& metrics,
                                                                                                  const Clock& clock) {
  std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> factories;
  factories.push_back(std::make_unique<CallRecorderFactory>(metrics, clock));
  return factories;
}

}  // namespace boss::server
