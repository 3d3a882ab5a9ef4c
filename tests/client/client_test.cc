#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "absl/synchronization/notification.h"
#include "boss/v1/errors.pb.h"
#include "client/boss_client.h"
#include "client/sha256.h"
#include "client/status.h"
#include "tests/client/fake_server.h"
#include "tests/support/temp_folder.h"

namespace boss::client {
namespace {

using boss::testing::TempFolder;
using boss::v1::Job;
using boss::v1::JobEvent;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const grpc::Status kUnavailable(grpc::StatusCode::UNAVAILABLE, "going down");

class ClientTest : public ::testing::Test {
 protected:
  // Watches the fake job and returns the sequence numbers that were handed on.
  std::vector<int64_t> Watch(int64_t from, absl::Status* status) {
    std::vector<int64_t> sequences;
    boss::v1::WatchJobRequest request;
    request.set_name("jobs/7");
    request.set_from_sequence(from);
    *status = client_.WatchJob(request, [&](const JobEvent& event) {
      sequences.push_back(event.sequence());
      return absl::OkStatus();
    });
    return sequences;
  }

  FakeServer server_;
  Client client_{server_.client_options()};
};

TEST_F(ClientTest, MapsEveryErrorCodeAndItsMessage) {
  server_.jobs.failing_gets = -1;
  for (int code = 1; code <= 16; ++code) {
    if (code == grpc::StatusCode::UNAVAILABLE) continue;  // that one is tried again
    server_.jobs.get_status = grpc::Status(static_cast<grpc::StatusCode>(code), "message " + std::to_string(code));
    const auto job = client_.GetJob("jobs/7");
    EXPECT_EQ(static_cast<int>(job.status().code()), code);
    EXPECT_EQ(job.status().message(), "message " + std::to_string(code));
  }
  EXPECT_TRUE(server_.waits.empty());
}

TEST_F(ClientTest, ShowsTheDetailsOfAnError) {
  boss::v1::BadRequest bad_request;
  auto& violation = *bad_request.add_field_violations();
  violation.set_field("steps");
  violation.set_description("got 0, expected 1 to 100");
  boss::v1::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(3);
  absl::Status error = absl::InvalidArgumentError("the request is wrong");
  error.SetPayload("type.googleapis.com/google.rpc.BadRequest", absl::Cord(bad_request.SerializeAsString()));
  error.SetPayload("type.googleapis.com/google.rpc.RetryInfo", absl::Cord(retry.SerializeAsString()));
  server_.jobs.failing_gets = 1;
  server_.jobs.get_status = ToGrpcStatus(error);
  const absl::Status status = client_.GetJob("jobs/7").status();
  EXPECT_THAT(FieldViolations(status), ElementsAre("steps: got 0, expected 1 to 100"));
  EXPECT_EQ(RetryDelay(status), absl::Seconds(3));
  EXPECT_EQ(DescribeStatus(status),
            "INVALID_ARGUMENT: the request is wrong\n  steps: got 0, expected 1 to 100\n  try again in 3s");
}

TEST_F(ClientTest, TriesUnaryCallsAgainWithGrowingPatience) {
  server_.jobs.job = MakeDistillJob();
  server_.jobs.failing_gets = 2;
  server_.jobs.get_status = kUnavailable;
  const auto job = client_.GetJob("jobs/7");
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->name(), "jobs/7");
  EXPECT_THAT(server_.waits, ElementsAre(absl::Milliseconds(200), absl::Milliseconds(400)));
  // A little longer where not all clients are to come back at once.
  server_.jobs.failing_gets = 1;
  ClientOptions options = server_.client_options();
  options.retry.jitter = 0.5;
  ASSERT_TRUE(Client(options).GetJob("jobs/7").ok());
  EXPECT_GT(server_.waits.back(), absl::Milliseconds(200));
  EXPECT_LE(server_.waits.back(), absl::Milliseconds(300));
}

TEST_F(ClientTest, GivesUpAfterItsLastAttempt) {
  server_.jobs.failing_gets = -1;
  server_.jobs.get_status = kUnavailable;
  EXPECT_TRUE(absl::IsUnavailable(client_.GetJob("jobs/7").status()));
  EXPECT_EQ(server_.jobs.gets, 4);
}

TEST_F(ClientTest, SubmissionsGetARequestIdOfTheirOwn) {
  boss::v1::DistillJobRequest request;
  ASSERT_TRUE(client_.DistillJob(request).ok());
  ASSERT_TRUE(client_.DistillJob(request).ok());
  request.set_request_id("mine");
  ASSERT_TRUE(client_.DistillJob(request).ok());
  request.clear_request_id();
  request.set_validate_only(true);
  ASSERT_TRUE(client_.DistillJob(request).ok());
  const auto& ids = server_.jobs.request_ids;
  EXPECT_EQ(ids[0].size(), 32);
  EXPECT_NE(ids[0], ids[1]);
  EXPECT_EQ(ids[2], "mine");
  EXPECT_EQ(ids[3], "");
}

TEST_F(ClientTest, WatchGoesOnAfterTheLastEventWhenTheConnectionIsLost) {
  server_.jobs.events = MakeEvents(9, Job::SUCCEEDED);
  server_.jobs.watch_scripts = {{2, kUnavailable}, {0, kUnavailable}, {4, kUnavailable}};
  absl::Status status;
  EXPECT_THAT(Watch(0, &status), ElementsAre(1, 2, 3, 4, 5, 6, 7, 8, 9));
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_THAT(server_.jobs.watched_from, ElementsAre(1, 3, 3, 7));
  // Patience starts anew after progress.
  EXPECT_THAT(server_.waits, ElementsAre(absl::Milliseconds(200), absl::Milliseconds(400), absl::Milliseconds(200)));
}

TEST_F(ClientTest, WatchHandsOnNoEventTwice) {
  server_.jobs.events = MakeEvents(6, Job::SUCCEEDED);
  server_.jobs.watch_scripts = {{3, kUnavailable}};
  server_.jobs.replay_one_before = true;
  absl::Status status;
  EXPECT_THAT(Watch(2, &status), ElementsAre(2, 3, 4, 5, 6));
  EXPECT_TRUE(status.ok()) << status;
}

TEST_F(ClientTest, WatchReportsAGap) {
  server_.jobs.events = MakeEvents(6, Job::SUCCEEDED);
  server_.jobs.events.erase(server_.jobs.events.begin() + 3);
  absl::Status status;
  EXPECT_THAT(Watch(1, &status), ElementsAre(1, 2, 3));
  EXPECT_TRUE(absl::IsDataLoss(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("got event 5, expected 4"));
}

TEST_F(ClientTest, WatchEndsWithOtherErrorsAndWithoutProgress) {
  server_.jobs.events = MakeEvents(6, Job::SUCCEEDED);
  server_.jobs.watch_scripts = {{2, grpc::Status(grpc::StatusCode::NOT_FOUND, "gone")}};
  absl::Status status;
  EXPECT_THAT(Watch(1, &status), ElementsAre(1, 2));
  EXPECT_TRUE(absl::IsNotFound(status));
  server_.jobs.watched_from.clear();
  server_.jobs.watch_scripts.assign(50, {0, kUnavailable});
  Watch(1, &status);
  EXPECT_TRUE(absl::IsUnavailable(status));
  EXPECT_EQ(server_.jobs.watched_from.size(), 12);
}

TEST_F(ClientTest, WatchStopsWhenItsCallerSaysSo) {
  server_.jobs.events = MakeEvents(6, Job::SUCCEEDED);
  boss::v1::WatchJobRequest request;
  int count = 0;
  const absl::Status status = client_.WatchJob(
      request, [&](const JobEvent&) { return ++count == 3 ? absl::AbortedError("enough") : absl::OkStatus(); });
  EXPECT_EQ(status.message(), "enough");
  EXPECT_EQ(count, 3);
}

TEST_F(ClientTest, CancelEndsACallUnderWayAndLaterOnes) {
  server_.jobs.events = MakeEvents(2, Job::RUNNING);
  server_.jobs.hang = true;
  absl::Notification started;
  std::thread canceller([&] {
    started.WaitForNotification();
    client_.Cancel();
  });
  boss::v1::WatchJobRequest request;
  const absl::Status status = client_.WatchJob(request, [&](const JobEvent& event) {
    if (event.sequence() == 2) started.Notify();
    return absl::OkStatus();
  });
  canceller.join();
  EXPECT_TRUE(absl::IsCancelled(status)) << status;
  EXPECT_TRUE(absl::IsCancelled(client_.GetJob("jobs/7").status()));
}

TEST_F(ClientTest, PagesAreReadOneAfterAnother) {
  server_.jobs.list_total = 5;
  const auto jobs = client_.ListJobs({}).Take();
  ASSERT_TRUE(jobs.ok()) << jobs.status();
  ASSERT_EQ(jobs->size(), 5);
  for (int i = 0; i < 5; ++i) EXPECT_EQ((*jobs)[i].name(), "jobs/" + std::to_string(i));
  EXPECT_EQ(client_.ListJobs({}).Take(3)->size(), 3);
  server_.jobs.list_total = 0;
  EXPECT_TRUE(client_.ListJobs({}).Take()->empty());
}

TEST_F(ClientTest, GenerateAllPutsSamplesInOrder) {
  server_.sampler.reverse = true;
  boss::v1::GenerateRequest request;
  request.set_num_samples(4);
  request.set_seed(100);
  const auto result = client_.GenerateAll(request);
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->samples.size(), 4);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(result->samples[i].seed(), 100 + i);
  EXPECT_EQ(result->accepted.model(), "m@1");
  EXPECT_EQ(result->summary.nfe(), 2);
}

TEST_F(ClientTest, GenerateAllMissesALostSample) {
  server_.sampler.leave_out_last = true;
  boss::v1::GenerateRequest request;
  request.set_num_samples(3);
  const auto result = client_.GenerateAll(request);
  EXPECT_TRUE(absl::IsInternal(result.status()));
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("sent 2 samples, expected 3"));
}

TEST_F(ClientTest, GenerateIsTriedAgainOnlyBeforeTheFirstMessage) {
  boss::v1::GenerateRequest request;
  request.set_num_samples(2);
  server_.sampler.status = kUnavailable;
  server_.sampler.failing_calls = 1;
  EXPECT_TRUE(client_.GenerateAll(request).ok());
  EXPECT_EQ(server_.sampler.calls, 2);
  const absl::Status status = client_.Generate(
      request, [&](const boss::v1::GenerateResponse&) { return absl::ResourceExhaustedError("disk full"); });
  EXPECT_EQ(status.message(), "disk full");
  EXPECT_EQ(server_.sampler.calls, 3);
}

class ImportTest : public ClientTest {
 protected:
  static constexpr int64_t kChunk = 512 << 10;

  ImportTest() {
    for (size_t i = 0; i < contents_.size(); ++i) contents_[i] = static_cast<char>(i * i >> 7);
    std::ofstream(path_, std::ios::binary) << contents_;
    start_.set_model("m");
  }
  absl::StatusOr<boss::v1::ImportModelResponse> Import() {
    return client_.ImportModel(start_, path_, [this](int64_t bytes) { sent_ = bytes; });
  }

  TempFolder folder_;
  std::string path_ = folder_.path() + "/weights";
  std::string contents_ = std::string(1'300'001, '\0');  // three chunks
  boss::v1::ImportStart start_;
  int64_t sent_ = 0;
};

TEST_F(ImportTest, SendsTheWholeFileWithItsChecksums) {
  const auto response = Import();
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(server_.models.file, contents_);
  EXPECT_EQ(server_.models.import_start.total_bytes(), 1'300'001);
  Sha256 digest;
  digest.Update(contents_);
  EXPECT_EQ(server_.models.import_start.sha256(), digest.HexDigest());
  EXPECT_EQ(server_.models.import_start.upload_id().size(), 32u);
  EXPECT_EQ(server_.models.import_queries.size(), 0u);
  EXPECT_EQ(sent_, 1'300'001);
  EXPECT_TRUE(absl::IsNotFound(client_.ImportModel(start_, path_ + "x", [](int64_t) {}).status()));
}

TEST_F(ImportTest, SendsADecoderBehindTheModel) {
  const std::string decoder_path = folder_.path() + "/decoder", decoder = std::string(700'000, 'd');
  std::ofstream(decoder_path, std::ios::binary) << decoder;
  server_.models.import_scripts = {{4, kUnavailable}};  // in the middle of the decoder
  const auto response = client_.ImportModel(start_, path_, [](int64_t) {}, decoder_path);
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_TRUE(server_.models.file == contents_ + decoder);
  EXPECT_EQ(server_.models.import_start.total_bytes(), 2'000'001);
  EXPECT_EQ(server_.models.import_start.decoder_bytes(), 700'000);
  Sha256 digest;
  digest.Update(contents_ + decoder);
  EXPECT_EQ(server_.models.import_start.sha256(), digest.HexDigest());
  EXPECT_TRUE(
      absl::IsNotFound(client_.ImportModel(start_, path_, [](int64_t) {}, decoder_path + "x").status()));
}

TEST_F(ImportTest, GoesOnAfterWhatTheServerHasWhenTheConnectionIsLost) {
  server_.models.import_scripts = {{2, kUnavailable}, {0, kUnavailable}};
  const auto response = Import();
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(server_.models.file, contents_);
  EXPECT_THAT(server_.models.import_offsets, ElementsAre(0, 2 * kChunk));
  ASSERT_EQ(server_.models.import_queries.size(), 2u);
  for (const auto& query : server_.models.import_queries) {
    EXPECT_EQ(query.upload_id(), server_.models.import_start.upload_id());
    EXPECT_EQ(query.sha256(), server_.models.import_start.sha256());
  }
  EXPECT_EQ(sent_, 1'300'001);
}

TEST_F(ImportTest, GoesOnWithWhatAnEarlierClientLeft) {
  start_.set_upload_id("mine");
  server_.models.file = contents_.substr(0, 1000);
  ASSERT_TRUE(Import().ok());
  EXPECT_EQ(server_.models.file, contents_);
  EXPECT_THAT(server_.models.import_offsets, ElementsAre(1000));
  EXPECT_EQ(server_.models.import_start.upload_id(), "mine");
  // Everything is there: the answer alone was lost.
  const auto again = Import();
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->version().version(), "1");
  EXPECT_EQ(server_.models.import_offsets.size(), 1u);
}

TEST_F(ImportTest, IsPatientAsTheRetryPolicySays) {
  server_.models.import_scripts.assign(20, {0, kUnavailable});
  EXPECT_TRUE(absl::IsUnavailable(Import().status()));
  EXPECT_EQ(server_.models.import_calls, 12);
  // Each byte that arrives renews the patience: eleven attempts before the first chunk and eleven after it.
  server_.models.import_calls = 0;
  server_.models.import_scripts.assign(22, {0, kUnavailable});
  server_.models.import_scripts[10].count = 1;
  EXPECT_TRUE(Import().ok());
  server_.models.import_calls = 0;
  server_.models.import_scripts = {{1, {grpc::StatusCode::DATA_LOSS, "corrupt"}}};
  server_.models.file.clear();
  EXPECT_TRUE(absl::IsDataLoss(Import().status()));
  EXPECT_EQ(server_.models.import_calls, 1);
}

class ExportTest : public ClientTest {
 protected:
  ExportTest() {
    for (int i = 0; i < 4500; ++i) server_.models.file.push_back(static_cast<char>(i * 31 >> 3));
    Sha256 digest;
    digest.Update(server_.models.file);
    server_.models.sha256 = digest.HexDigest();
  }
  absl::Status Export() {
    return client_.ExportModel({}, path_, [](int64_t) {}).status();
  }
  std::string Contents() {
    std::ifstream file(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  TempFolder folder_;
  std::string path_ = folder_.path() + "/weights";
};

TEST_F(ExportTest, GoesOnWhereTheConnectionWasLost) {
  server_.models.export_scripts = {{2, kUnavailable}, {1, kUnavailable}};
  const absl::Status status = Export();
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(Contents(), server_.models.file);
  EXPECT_THAT(server_.models.export_offsets, ElementsAre(0, 2000, 3000));
}

TEST_F(ExportTest, LeavesNothingBehindWhenAChecksumIsWrong) {
  server_.models.corrupt_chunk = true;
  EXPECT_TRUE(absl::IsDataLoss(Export()));
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));
  server_.models.corrupt_chunk = false;
  server_.models.sha256[0] ^= 1;
  EXPECT_TRUE(absl::IsDataLoss(Export()));
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));
}

TEST_F(ExportTest, LeavesNothingBehindWhenTheFileIsShort) {
  server_.models.export_scripts = {{2, grpc::Status::OK}};
  const absl::Status status = Export();
  EXPECT_TRUE(absl::IsDataLoss(status));
  EXPECT_EQ(status.message(), "got 2000 bytes, expected 4500");
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));
}

TEST_F(ClientTest, HealthFollowsTheServer) {
  using grpc::health::v1::HealthCheckResponse;
  EXPECT_EQ(client_.CheckHealth("").value(), HealthCheckResponse::SERVING);
  server_.health().SetServingStatus("boss.v1.Jobs", true);
  EXPECT_EQ(client_.CheckHealth("boss.v1.Jobs").value(), HealthCheckResponse::SERVING);
  EXPECT_TRUE(absl::IsNotFound(client_.CheckHealth("boss.v1.Nothing").status()));
  server_.health().SetServingStatus(false);
  EXPECT_EQ(client_.CheckHealth("").value(), HealthCheckResponse::NOT_SERVING);
}

TEST(Sha256Test, EqualsTheStandardsExamples) {
  EXPECT_EQ(Sha256().HexDigest(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  Sha256 abc;
  abc.Update("a");
  abc.Update("bc");
  EXPECT_EQ(abc.HexDigest(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  Sha256 two_blocks;
  two_blocks.Update("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq");
  EXPECT_EQ(two_blocks.HexDigest(), "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  Sha256 million;
  for (int i = 0; i < 1000; ++i) million.Update(std::string(1000, 'a'));
  EXPECT_EQ(million.HexDigest(), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

}  // namespace
}  // namespace boss::client
