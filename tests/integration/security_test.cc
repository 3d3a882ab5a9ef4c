// Callers, their roles, their limits and their jobs.
#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>

#include <cstdlib>
#include <set>

#include "absl/strings/str_replace.h"
#include "inference/grpc_service.pb.h"
#include "tests/integration/security_fixture.h"

namespace boss::testing {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> AllMethods() {
  std::vector<std::string> methods;
  for (const auto* file : {v1::GenerateRequest::descriptor()->file(), v1::Job::descriptor()->file(),
                           v1::Model::descriptor()->file(), inference::ModelInferRequest::descriptor()->file()}) {
    for (int s = 0; s < file->service_count(); ++s) {
      for (int m = 0; m < file->service(s)->method_count(); ++m) {
        methods.push_back(absl::StrCat("/", file->service(s)->full_name(), "/", file->service(s)->method(m)->name()));
      }
    }
  }
  return methods;
}

// As docs/security.md says.
bool MayCall(const std::string& role, const std::string& method) {
  static const std::set<std::string> kAnyRole = {"/boss.v1.Models/ListModels",
                                                 "/boss.v1.Models/GetModel",
                                                 "/boss.v1.Models/GetSchedule",
                                                 "/boss.v1.Models/ListSchedules",
                                                 "/boss.v1.Models/GetCapabilities",
                                                 "/inference.GRPCInferenceService/ModelReady",
                                                 "/inference.GRPCInferenceService/ServerMetadata",
                                                 "/inference.GRPCInferenceService/ModelMetadata"};
  static const std::set<std::string> kGenerate = {"/boss.v1.Sampler/Generate",
                                                  "/inference.GRPCInferenceService/ModelInfer",
                                                  "/inference.GRPCInferenceService/ModelStreamInfer"};
  if (role == "admin" || kAnyRole.contains(method)) return true;
  return role == "generate" ? kGenerate.contains(method) : method.starts_with("/boss.v1.Jobs/");
}

TEST_F(SecurityTest, EachRoleCallsItsMethodsAndNoOthers) {
  WriteAccess({TokenEntry("g", "token-generate", R"(["generate"])"), TokenEntry("j", "token-jobs", R"(["jobs"])"),
               TokenEntry("a", "token-admin", R"(["admin"])")});
  StartSecure();
  const std::vector<std::string> methods = AllMethods();
  EXPECT_EQ(methods.size(), 33u);
  for (const std::string& method : methods) {
    if (method.ends_with("/ServerLive") || method.ends_with("/ServerReady")) {
      EXPECT_EQ(Outcome(CallWithNothing(channel_, method, "")), "OK") << method;
      continue;
    }
    EXPECT_EQ(Outcome(CallWithNothing(channel_, method, "")), "UNAUTHENTICATED TOKEN_MISSING") << method;
    EXPECT_EQ(Outcome(CallWithNothing(channel_, method, "token-nobody")), "UNAUTHENTICATED TOKEN_UNKNOWN") << method;
    for (const char* role : {"generate", "jobs", "admin"}) {
      const std::string outcome = Outcome(CallWithNothing(channel_, method, absl::StrCat("token-", role)));
      EXPECT_EQ(outcome == "PERMISSION_DENIED ROLE_MISSING", !MayCall(role, method)) << role << method << outcome;
      EXPECT_NE(outcome.substr(0, 15), "UNAUTHENTICATED") << role << method;
    }
  }
}

TEST_F(SecurityTest, HealthIsOpenAndReflectionIsNot) {
  WriteAccess({TokenEntry("a", "admin", R"(["admin"])")});
  StartSecure();
  constexpr char kReflection[] = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
  EXPECT_EQ(CallWithNothing(channel_, "/grpc.health.v1.Health/Check", "").error_code(), grpc::StatusCode::OK);
  EXPECT_EQ(CallWithNothing(channel_, kReflection, "admin").error_code(), grpc::StatusCode::UNIMPLEMENTED);
  StartSecure({"--reflection=on"});
  EXPECT_EQ(CallWithNothing(channel_, kReflection, "").error_code(), grpc::StatusCode::OK);
}

TEST_F(SecurityTest, ABossdThatAsksNobodyListensOnLoopbackOnly) {
  const std::string command = absl::StrCat(
      BOSSD_BINARY, " --listen=0.0.0.0:0 --metrics-listen= --data=", folder_ / "data", " >", folder_ / "log", " 2>&1");
  EXPECT_NE(std::system(command.c_str()), 0);
  EXPECT_THAT(Log(), ::testing::HasSubstr("--access-file or --tls-client-ca"));
}

// Two tenants and an admin.
class TenantsTest : public SecurityTest {
 protected:
  TenantsTest() {
    WriteAccess({TokenEntry("alice", "alice-token", R"(["jobs"])"),
                 TokenEntry("bob", "bob-token", R"(["jobs"])", R"(,"max_unfinished_jobs":1)"),
                 TokenEntry("ops", "ops-token", R"(["admin"])")});
  }

  void StartTenants(const std::vector<std::string>& arguments = {}) {
    StartSecure(arguments);
    jobs_ = v1::Jobs::NewStub(channel_);
  }

  // One that does not end by itself.
  grpc::Status Submit(const std::string& token, const std::string& request_id, v1::Job& job) {
    v1::OptimizeStepsizesJobRequest request;
    request.mutable_spec()->set_model("vectors");
    request.mutable_spec()->set_k_max(100);
    request.mutable_spec()->set_num_samples(100'000);
    request.set_request_id(request_id);
    grpc::ClientContext context;
    Prepare(context, token);
    return jobs_->OptimizeStepsizesJob(&context, request, &job);
  }

  std::vector<std::string> List(const std::string& token, const std::string& filter = "") {
    v1::ListJobsRequest request;
    request.set_filter(filter);
    request.set_order_by("create_time");
    grpc::ClientContext context;
    Prepare(context, token);
    v1::ListJobsResponse response;
    const grpc::Status status = jobs_->ListJobs(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    std::vector<std::string> names;
    for (const v1::Job& job : response.jobs()) names.push_back(absl::StrCat(job.name(), " of ", job.owner()));
    return names;
  }

  template <typename Request, typename Response>
  grpc::Status Call(grpc::Status (v1::Jobs::Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                    const std::string& token, const std::string& name) {
    grpc::ClientContext context;
    Prepare(context, token);
    Request request;
    request.set_name(name);
    Response response;
    return (jobs_.get()->*method)(&context, request, &response);
  }

  grpc::Status WatchFirst(const std::string& token, const std::string& name) {
    grpc::ClientContext context;
    Prepare(context, token);
    v1::WatchJobRequest request;
    request.set_name(name);
    request.set_replay_only(true);
    const auto stream = jobs_->WatchJob(&context, request);
    v1::JobEvent event;
    while (stream->Read(&event)) {
    }
    return stream->Finish();
  }

  // What each method of Jobs that takes a name answers, as "code message".
  std::vector<std::string> Answers(const std::string& token, const std::string& name) {
    using Stub = v1::Jobs::Stub;
    const grpc::Status statuses[] = {Call(&Stub::GetJob, token, name),    Call(&Stub::PauseJob, token, name),
                                     Call(&Stub::ResumeJob, token, name), Call(&Stub::CancelJob, token, name),
                                     Call(&Stub::DeleteJob, token, name), WatchFirst(token, name)};
    std::vector<std::string> answers;
    for (const grpc::Status& status : statuses) {
      answers.push_back(absl::StrCat(Outcome(status), ": ", status.error_message()));
    }
    return answers;
  }
};

TEST_F(TenantsTest, AJobOfSomebodyElseIsOneThatDoesNotExist) {
  StartTenants();
  v1::Job of_alice, of_bob;
  ASSERT_EQ(Outcome(Submit("alice-token", "same-id", of_alice)), "OK");
  ASSERT_EQ(Outcome(Submit("bob-token", "same-id", of_bob)), "OK");
  EXPECT_EQ(of_alice.owner(), "alice");
  EXPECT_NE(of_alice.name(), of_bob.name());  // a request id is its caller's own
  v1::Job again;
  EXPECT_EQ(Outcome(Submit("alice-token", "same-id", again)), "OK");
  EXPECT_EQ(again.name(), of_alice.name());

  EXPECT_THAT(List("alice-token"), ElementsAre(of_alice.name() + " of alice"));
  EXPECT_THAT(List("bob-token"), ElementsAre(of_bob.name() + " of bob"));
  EXPECT_THAT(List("bob-token", "owner = alice"), ElementsAre());
  EXPECT_THAT(List("ops-token"), ElementsAre(of_alice.name() + " of alice", of_bob.name() + " of bob"));
  EXPECT_THAT(List("ops-token", "owner = bob"), ElementsAre(of_bob.name() + " of bob"));

  const auto nothing = Answers("bob-token", "jobs/nothing");
  const auto foreign = Answers("bob-token", of_alice.name());
  ASSERT_EQ(foreign.size(), nothing.size());
  for (size_t i = 0; i < foreign.size(); ++i) {
    EXPECT_EQ(foreign[i], absl::StrReplaceAll(nothing[i], {{"nothing", of_alice.name().substr(5)}}));
    EXPECT_THAT(foreign[i], ::testing::StartsWith("NOT_FOUND")) << i;
  }
  using Stub = v1::Jobs::Stub;
  EXPECT_EQ(Outcome(Call(&Stub::PauseJob, "alice-token", of_alice.name())), "OK");
  EXPECT_EQ(Outcome(Call(&Stub::CancelJob, "ops-token", of_bob.name())), "OK");
}

TEST_F(TenantsTest, OwnersOutliveTheServerAndJobsWithoutOneAreTheAdmins) {
  StartLogged({});
  channel_ = Channel(grpc::InsecureChannelCredentials());
  jobs_ = v1::Jobs::NewStub(channel_);
  v1::Job of_nobody, of_alice;
  ASSERT_EQ(Outcome(Submit("", "", of_nobody)), "OK");
  EXPECT_EQ(of_nobody.owner(), "");

  StartTenants();
  ASSERT_EQ(Outcome(Submit("alice-token", "", of_alice)), "OK");
  StartTenants();
  EXPECT_THAT(List("alice-token"), ElementsAre(of_alice.name() + " of alice"));
  EXPECT_THAT(List("bob-token"), ElementsAre());
  EXPECT_EQ(Answers("bob-token", of_nobody.name()).front().substr(0, 9), "NOT_FOUND");
  EXPECT_THAT(List("ops-token"), ElementsAre(of_nobody.name() + " of ", of_alice.name() + " of alice"));
}

TEST_F(TenantsTest, AJobTooManyIsRefusedUntilOneEnds) {
  StartTenants();
  v1::Job first, second;
  ASSERT_EQ(Outcome(Submit("bob-token", "", first)), "OK");
  const grpc::Status refused = Submit("bob-token", "", second);
  EXPECT_EQ(Outcome(refused), "RESOURCE_EXHAUSTED JOB_QUOTA");
  EXPECT_GT(DetailOf<v1::RetryInfo>(refused, "RetryInfo").retry_delay().seconds(), 0);
  EXPECT_EQ(Outcome(Submit("alice-token", "", second)), "OK");
  EXPECT_EQ(Outcome(Call(&v1::Jobs::Stub::CancelJob, "bob-token", first.name())), "OK");
  grpc::Status again;
  do {
    again = Submit("bob-token", "", second);
  } while (Outcome(again) == "RESOURCE_EXHAUSTED JOB_QUOTA");  // while it is cancelling
  EXPECT_EQ(Outcome(again), "OK");
}

TEST_F(SecurityTest, RatesAndConcurrencyAreLimitedForEachToken) {
  WriteAccess({TokenEntry("slow", "slow", R"(["generate"])", R"(,"requests_per_second":0.001,"burst":2)"),
               TokenEntry("narrow", "narrow", R"(["jobs"])", R"(,"max_concurrent_calls":1)"),
               TokenEntry("free", "free", R"(["admin"])")});
  StartSecure();
  EXPECT_EQ(Outcome(Capabilities("slow")), "OK");
  EXPECT_EQ(Outcome(Capabilities("slow")), "OK");
  const grpc::Status refused = Capabilities("slow");
  EXPECT_EQ(Outcome(refused), "RESOURCE_EXHAUSTED RATE_LIMITED");
  EXPECT_GT(DetailOf<v1::RetryInfo>(refused, "RetryInfo").retry_delay().seconds(), 900);
  EXPECT_EQ(Outcome(Capabilities("free")), "OK");

  const auto jobs = v1::Jobs::NewStub(channel_);
  v1::OptimizeStepsizesJobRequest request;
  request.mutable_spec()->set_model("vectors");
  request.mutable_spec()->set_k_max(100);
  request.mutable_spec()->set_num_samples(100'000);
  v1::Job job;
  {
    grpc::ClientContext context;
    Prepare(context, "narrow");
    ASSERT_TRUE(jobs->OptimizeStepsizesJob(&context, request, &job).ok());
  }
  {
    grpc::ClientContext context;
    Prepare(context, "narrow");
    v1::WatchJobRequest watch;
    watch.set_name(job.name());
    const auto stream = jobs->WatchJob(&context, watch);
    v1::JobEvent event;
    ASSERT_TRUE(stream->Read(&event));
    EXPECT_EQ(Outcome(Capabilities("narrow")), "RESOURCE_EXHAUSTED TOO_MANY_CALLS");
    EXPECT_EQ(Outcome(Capabilities("free")), "OK");
    context.TryCancel();
    while (stream->Read(&event)) {
    }
    stream->Finish();
  }
  grpc::Status again;
  do {
    again = Capabilities("narrow");
  } while (Outcome(again) == "RESOURCE_EXHAUSTED TOO_MANY_CALLS");  // until the server has noticed
  EXPECT_EQ(Outcome(again), "OK");
}

}  // namespace
}  // namespace boss::testing
