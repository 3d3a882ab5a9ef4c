// A real server among clients that mean harm: good ones are served meanwhile, and afterwards everything is as it was.
#include <gmock/gmock.h>
#include <sys/resource.h>

#include <cstdio>
#include <memory>
#include <thread>

#include "absl/strings/match.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "tests/integration/bossd_fixture.h"
#include "tests/support/hostile_traffic.h"
#include "tests/support/http_get.h"
#include "tests/support/process_use.h"
#include "tests/support/prometheus_text.h"

namespace boss::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr char kGenerate[] = "/boss.v1.Sampler/Generate";
constexpr int64_t kMaxMessage = 1 << 20;
constexpr int64_t kMiB = 1 << 20;
// The kernel's and gRPC's own.
constexpr int64_t kFewFiles = 8;
// Samples of 256 KiB from a network of 200,000 weights.
constexpr char kWideArchitecture[] = R"({"model": {"architecture": "mlp", "dim": 65536, "hidden": 1, "layers": 1}})";

// Channels of one process share connections unless they are told not to.
std::shared_ptr<grpc::Channel> OwnConnection(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

// Asks for samples all the time, on a connection of its own.
class GoodClient {
 public:
  explicit GoodClient(const std::string& address)
      : sampler_(v1::Sampler::NewStub(OwnConnection(address))), thread_([this] { Run(); }) {}
  ~GoodClient() {
    {
      absl::MutexLock lock(&mutex_);
      stopped_ = true;
    }
    thread_.join();
  }

  // Until `count` requests that began later have been answered. \return the first failure of all so far, or OK.
  grpc::Status ServeMore(int count) {
    absl::MutexLock lock(&mutex_);
    const int64_t enough = answers_ + count + 1;
    const auto is_over = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return answers_ >= enough || !failure_.ok(); };
    mutex_.Await(absl::Condition(&is_over));
    return failure_;
  }

 private:
  void Run() {
    v1::GenerateRequest request;
    request.set_model("vectors");
    request.set_num_samples(2);
    request.set_steps(4);
    while (true) {
      grpc::ClientContext context;
      const auto stream = sampler_->Generate(&context, request);
      v1::GenerateResponse response;
      int samples = 0;
      while (stream->Read(&response)) samples += response.has_sample();
      const grpc::Status status = stream->Finish();
      absl::MutexLock lock(&mutex_);
      ++answers_;
      if (!status.ok() && failure_.ok()) failure_ = status;
      if (status.ok() && samples != 2) failure_ = grpc::Status(grpc::StatusCode::DATA_LOSS, "samples are missing");
      if (stopped_) return;
    }
  }

  const std::unique_ptr<v1::Sampler::Stub> sampler_;
  absl::Mutex mutex_;
  int64_t answers_ ABSL_GUARDED_BY(mutex_) = 0;
  grpc::Status failure_ ABSL_GUARDED_BY(mutex_);
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

// Looks again and again; false if nothing came of it for a minute.
template <typename Condition>
bool Becomes(Condition condition) {
  const absl::Time deadline = absl::Now() + absl::Minutes(1);
  while (!condition()) {
    if (absl::Now() > deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

// Who goes on after refusals is disconnected now and then.
auto IsRefusal() { return ::testing::AnyOf(grpc::StatusCode::RESOURCE_EXHAUSTED, grpc::StatusCode::UNAVAILABLE); }

class HostileTest : public BossdTest {
 protected:
  HostileTest() { WriteSeedModel(folder_ / "seeds", "wide", kWideArchitecture); }

  void SetUp() override {
    Start({"--max-message-bytes=" + std::to_string(kMaxMessage), "--drain-seconds=0", "--log-level=error"});
    good_ = std::make_unique<GoodClient>(server_->address());
    ASSERT_TRUE(Served(20));
    files_ = OpenFiles(server_->pid());
  }

  void TearDown() override {
    if (!good_) return;
    EXPECT_TRUE(Served(20));
    // Whatever it was, nothing of it is left.
    EXPECT_TRUE(Becomes([this] { return OpenFiles(server_->pid()) <= files_ + kFewFiles; }))
        << OpenFiles(server_->pid()) << " open files, before " << files_;
    good_.reset();
    EXPECT_TRUE(Becomes([this] { return Metric("boss_lanes") == 0 && Metric("boss_queued_samples") == 0; }));
    EXPECT_EQ(Stop(), 0);
  }

  // RSS, for docs/reliability.md.
  int64_t Memory(const char* when) {
    const int64_t bytes = ResidentBytes(server_->pid());
    std::printf("%-60s %4d MiB\n", when, static_cast<int>(bytes / kMiB));
    return bytes;
  }

  // Whether requests that begin now are answered, and all before were.
  ::testing::AssertionResult Served(int count) {
    const grpc::Status status = good_->ServeMore(count);
    if (status.ok()) return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure() << "a good client got " << status.error_code() << " "
                                         << status.error_message();
  }

  // Of all label values; -1 if there is no page.
  double Metric(const std::string& name) {
    const std::string page = HttpGet(server_->metrics_port(), "/metrics");
    const size_t body = page.find("\r\n\r\n");
    if (!absl::StartsWith(page, "HTTP/1.1 200 ") || body == std::string::npos) return -1;
    const auto metrics = ParsePrometheusText(absl::string_view(page).substr(body + 4));
    return metrics.ok() ? metrics->Sum(name) : -1;
  }

  // Calls that are cancelled after their first message, or at once, by `threads` clients at a time.
  void FloodWithCancelledStreams(int threads, int streams_each) {
    std::vector<std::thread> clients;
    for (int i = 0; i < threads; ++i) {
      clients.emplace_back([this, streams_each] {
        for (int j = 0; j < streams_each; ++j) {
          grpc::ClientContext context;
          const auto stream = sampler_->Generate(&context, Request(j % 4 < 2 ? "images" : "vectors", 8, 1000));
          v1::GenerateResponse response;
          if (j % 2 == 0) stream->Read(&response);
          context.TryCancel();
          while (stream->Read(&response)) {
          }
          const grpc::StatusCode code = stream->Finish().error_code();
          // On a busy machine a call may have ended before it is cancelled.
          EXPECT_THAT(code, ::testing::AnyOf(grpc::StatusCode::CANCELLED, grpc::StatusCode::OK));
        }
      });
    }
    for (std::thread& client : clients) client.join();
  }

  std::unique_ptr<GoodClient> good_;
  int64_t files_ = 0;  // open before
};

TEST_F(HostileTest, MalformedHttpIsRefused) {
  for (const std::string& request : MalformedHttpRequests()) {
    RawConnection connection(server_->metrics_port());
    connection.Send(request);
    const std::string answer = connection.ReadAll();
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 4")) << request.substr(0, 80);
    EXPECT_THAT(answer, ::testing::Not(HasSubstr("root:"))) << request.substr(0, 80);
    EXPECT_EQ(Metric("boss_build_info"), 1) << request.substr(0, 80);
  }
}

TEST_F(HostileTest, ConnectionsThatNeverFinishTheirRequestShutNobodyOut) {
  for (const char* part : {"", "GET /metrics HTTP/1.1\r\nHost: ", "P"}) {
    const std::vector<RawConnection> held = HoldConnections(server_->metrics_port(), 300, part);
    ASSERT_EQ(Metric("boss_build_info"), 1) << part;
    // They came before: they are there, and not all of them. The server closes them after a while.
    const int64_t files = OpenFiles(server_->pid());
    EXPECT_GT(files, files_ + 32);
    EXPECT_LT(files, files_ + 128);
    for (int i = 1; i < 50; ++i) ASSERT_EQ(Metric("boss_build_info"), 1) << part;
    EXPECT_TRUE(Served(5));
  }
}

TEST_F(HostileTest, ConnectionsThatSpeakNoGrpcShutNobodyOut) {
  const std::string preface = Http2Preface();
  for (const std::string& bytes : {std::string(), preface.substr(0, 12), preface, std::string("PRI * HTTP/1.1\r\n")}) {
    const std::vector<RawConnection> held = HoldConnections(server_->grpc_port(), 200, bytes);
    EXPECT_TRUE(Served(20));
  }
  for (const std::string& bytes : Http2Garbage()) {
    RawConnection connection(server_->grpc_port());
    connection.Send(bytes);
    EXPECT_TRUE(Served(2)) << bytes.substr(0, 80);
  }
}

TEST_F(HostileTest, WhoSaysNothingIsDisconnected) {
  std::vector<RawConnection> silent = HoldConnections(server_->grpc_port(), 20, "");
  for (RawConnection& connection : HoldConnections(server_->grpc_port(), 20, Http2Preface().substr(0, 12)))
    silent.push_back(std::move(connection));
  // The server closes; the clients do nothing.
  for (RawConnection& connection : silent) connection.ReadAll();
}

TEST_F(HostileTest, FloodsOfFramesAreEndured) {
  int64_t level = 0;
  for (int round = 0; round < 12; ++round) {
    FloodWithSettings(server_->grpc_port());
    FloodWithPings(server_->grpc_port());
    SendEndlessHeaders(server_->grpc_port(), kGenerate);
    SendEndlessMessage(server_->grpc_port(), kGenerate);
    SendEndlessMessage(server_->grpc_port(), "/boss.v1.Models/ImportModel");
    ASSERT_TRUE(Served(20)) << round;
    ASSERT_TRUE(Becomes([this] { return OpenFiles(server_->pid()) <= files_ + kFewFiles; }));
    if (round == 2) level = Memory("after three rounds of floods of frames");
  }
  // The endless header fields alone have sent 144 MiB.
  EXPECT_LT(Memory("after nine more"), level + 96 * kMiB);
}

TEST_F(HostileTest, CallsThatAreResetAtOnceLeaveNothing) {
  for (int round = 0; round < 10; ++round) {
    FloodWithResets(server_->grpc_port(), kGenerate);
    FloodWithResets(server_->grpc_port(), "/no.such/Method");
    EXPECT_TRUE(Served(20)) << round;
  }
}

TEST_F(HostileTest, HugeMessagesAndMetadataAreRefused) {
  for (int i = 0; i < 50; ++i) {
    v1::GenerateRequest request = Request("vectors", 1, 2);
    request.mutable_initial_noise()->set_data(std::string(5 * kMaxMessage, 'x'));
    EXPECT_THAT(Generate(request).status.error_code(), IsRefusal());

    grpc::ClientContext context;
    v1::ImportModelResponse imported;
    const auto import = models_->ImportModel(&context, &imported);
    v1::ImportModelRequest chunk;
    chunk.mutable_chunk()->set_data(std::string(5 * kMaxMessage, 'x'));
    import->Write(chunk);
    EXPECT_THAT(import->Finish().error_code(), IsRefusal());

    grpc::ClientContext with_metadata;
    for (int j = 0; j < 64; ++j) with_metadata.AddMetadata("x-" + std::to_string(j), std::string(1024, 'm'));
    v1::GetCapabilitiesRequest get;
    v1::Capabilities capabilities;
    EXPECT_THAT(models_->GetCapabilities(&with_metadata, get, &capabilities).error_code(), IsRefusal());
  }
  EXPECT_TRUE(Served(20));
}

TEST_F(HostileTest, FourThousandCancelledStreamsLeaveNothing) {
  FloodWithCancelledStreams(/*threads=*/50, /*streams_each=*/4);
  const int64_t level = Memory("after 200 cancelled streams");
  FloodWithCancelledStreams(/*threads=*/50, /*streams_each=*/80);
  EXPECT_TRUE(Served(20));
  EXPECT_LT(Memory("after 4,000 more"), level + 64 * kMiB);
  EXPECT_GE(Metric("boss_requests_total"), 2100);  // those that were not cancelled at once
}

TEST_F(HostileTest, ClientsThatNeverReadHoldNoMoreThanTheirShare) {
  constexpr int kClients = 12;
  int64_t level = 0;
  for (int round = 0; round < 7; ++round) {
    const int64_t before = Memory("before clients that do not read");
    const double pauses = Metric("boss_slow_reader_pauses_total");
    std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
    std::vector<std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>>> streams;
    for (int i = 0; i < kClients; ++i) {
      v1::GenerateRequest request = Request("wide", 4, 1000);
      request.set_preview_interval(1);
      contexts.push_back(std::make_unique<grpc::ClientContext>());
      streams.push_back(sampler_->Generate(contexts.back().get(), request));
    }
    ASSERT_TRUE(Becomes([&] { return Metric("boss_slow_reader_pauses_total") >= pauses + kClients; }));
    EXPECT_TRUE(Served(20));
    // That this would be seen at all:
    const int64_t held = Memory("while they do not");
    if (round == 0) {
      EXPECT_GT(held, before + 8 * kMiB);
    }
    // 8 MiB each, what is on its way, and their states.
    EXPECT_LT(held, before + 20 * kClients * kMiB);
    for (const auto& context : contexts) context->TryCancel();
    for (const auto& stream : streams) {
      v1::GenerateResponse response;
      while (stream->Read(&response)) {
      }
      EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
    }
    ASSERT_TRUE(Served(20));
    if (round == 0) level = ResidentBytes(server_->pid());
  }
  // Each of the six further rounds had 8 MiB for each of them.
  EXPECT_LT(Memory("after seven rounds of them"), level + 48 * kMiB);
}

TEST_F(HostileTest, MessagesThatNeverEndShutNobodyOutAndLeaveNothing) {
  static constexpr int kConnections = 4, kCalls = 16;
  int64_t level = 0, held = 0;
  for (int round = 0; round < 5; ++round) {
    // Those of the round before have been let go.
    ASSERT_TRUE(Becomes([this] { return OpenFiles(server_->pid()) <= files_ + kFewFiles; }));
    std::vector<std::unique_ptr<UnfinishedMessages>> attacks(kConnections);
    std::vector<std::thread> attackers;
    for (auto& attack : attacks) {
      attackers.emplace_back([this, &attack] {
        attack = std::make_unique<UnfinishedMessages>(server_->grpc_port(), kGenerate, kCalls, kMaxMessage);
      });
    }
    for (std::thread& attacker : attackers) attacker.join();
    for (const auto& attack : attacks) EXPECT_EQ(attack->sent(), kCalls * (kMaxMessage - 1));
    EXPECT_TRUE(Served(20)) << round;
    held = Memory("while messages never end");
    if (round == 1) level = held;
  }
  EXPECT_LT(held, level + 96 * kMiB);  // those of the three further rounds had twice as much
}

// Starts servers whose processes may open few files.
class FewFilesTest : public BossdTest {
 protected:
  void StartWith(rlim_t soft, rlim_t hard) {
    rlimit before = {};
    getrlimit(RLIMIT_NOFILE, &before);
    ASSERT_GE(before.rlim_max, hard);
    server_ = nullptr;
    // bossd inherits the limits of whoever starts it: this process, for that moment; its hard limit could not be raised
    // again, so the server's is lowered afterwards.
    const rlimit few = {.rlim_cur = soft, .rlim_max = before.rlim_max};
    setrlimit(RLIMIT_NOFILE, &few);
    Start({"--drain-seconds=0"});
    setrlimit(RLIMIT_NOFILE, &before);
    if (HasFatalFailure() || hard == before.rlim_max) return;
    const rlimit fewest = {.rlim_cur = hard, .rlim_max = hard};
    ASSERT_EQ(prlimit(server_->pid(), RLIMIT_NOFILE, &fewest, nullptr), 0);
  }
};

TEST_F(FewFilesTest, TheServerTakesAsManyFilesAsItMay) {
  StartWith(/*soft=*/256, /*hard=*/2000);
  std::vector<RawConnection> held = HoldConnections(server_->grpc_port(), 600, Http2Preface());
  for (RawConnection& connection : held) connection.AwaitAnswer();
  EXPECT_TRUE(Generate(Request("vectors", 2, 4)).status.ok());
  EXPECT_GT(OpenFiles(server_->pid()), 500);
  EXPECT_EQ(Stop(), 0);
}

TEST_F(FewFilesTest, MoreConnectionsThanFilesShutNobodyOutForGood) {
  StartWith(/*soft=*/256, /*hard=*/256);
  {
    std::vector<RawConnection> held = HoldConnections(server_->grpc_port(), 600, Http2Preface());
    // Each is taken, or closed at once.
    for (RawConnection& connection : held) connection.AwaitAnswer();
    // The files and the metrics port have what they need.
    EXPECT_THAT(HttpGet(server_->metrics_port(), "/metrics"), StartsWith("HTTP/1.1 200 "));
    EXPECT_GT(OpenFiles(server_->pid()), 150);
    EXPECT_LT(OpenFiles(server_->pid()), 220);
  }
  EXPECT_TRUE(Becomes([&] { return Generate(Request("vectors", 2, 4)).status.ok(); }));
  EXPECT_EQ(Stop(), 0);
}

}  // namespace
}  // namespace boss::testing
