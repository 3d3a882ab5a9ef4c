// A job that is killed again and again publishes, bit for bit, what it would have published undisturbed.
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/fault/fault_server.h"
#include "tests/support/idx_file.h"
#include "tests/support/temp_folder.h"
#include "tests/support/tiny_models.h"

namespace boss::testing {
namespace {

constexpr int kKills = 5;
// Disk operations from the start of a process to its kill: enough to get ahead, few enough not to finish.
constexpr int64_t kMinOperations = 90, kMaxOperations = 180;

class ResumeEqualityTest : public ::testing::TestWithParam<uint64_t> {
 protected:
  ResumeEqualityTest()
      : server_(BOSSD_FAULT_BINARY, folder_.path(),
                {"--threads=1", "--log-level=error", "--seed-models=" + (folder_ / "seeds"),
                 "--dataset-folder=" + folder_.path(), "--crash-backoff-seconds=0", "--min-free-disk-bytes=0"}) {
    std::filesystem::create_directories(folder_ / "seeds");
    WriteSeedModel(folder_ / "seeds", "vectors", kTinyVectorArchitecture);
    std::vector<uint8_t> points;
    for (int i = 0; i < 128; ++i) points.push_back(static_cast<uint8_t>(i * 89 % 251));
    WriteIdx(folder_ / "points", {64, 1, 2}, points);
  }

  static void SetTraining(v1::TrainingOptions& training) {
    training.set_train_steps(240);
    training.set_batch_size(8);
    training.set_checkpoint_interval(3);
  }

  v1::TrainJobRequest Training(const std::string& output) {
    v1::TrainJobRequest request;
    v1::TrainSpec& spec = *request.mutable_spec();
    spec.set_dataset("idx:" + (folder_ / "points"));
    spec.set_architecture_json(R"({"model":{"architecture":"mlp","dim":2,"hidden":16,"layers":2}})");
    spec.set_output_model(output);
    spec.set_flip(true);
    SetTraining(*spec.mutable_training());
    return request;
  }

  static v1::DistillJobRequest Distillation(const std::string& output, bool regenerate_pairs) {
    v1::DistillJobRequest request;
    v1::DistillSpec& spec = *request.mutable_spec();
    spec.set_model("vectors");
    spec.set_output_model(output);
    spec.set_steps(3);
    spec.set_k_max(8);
    spec.set_num_samples(8);
    spec.set_num_noises(40);
    spec.set_batch_size(2);
    spec.set_fresh_schedule(true);
    spec.set_regenerate_pairs(regenerate_pairs);
    SetTraining(*spec.mutable_training());
    return request;
  }

  // Of the submitted job when it has finished.
  v1::Job Follow(const std::string& name) {
    v1::WatchJobRequest watch;
    watch.set_name(name);
    grpc::ClientContext context;
    const auto stream = server_.connection().jobs->WatchJob(&context, watch);
    for (v1::JobEvent event; stream->Read(&event);)
      last_message_ = event.has_message() ? event.message().text() : last_message_;
    EXPECT_TRUE(stream->Finish().ok());
    v1::GetJobRequest request;
    request.set_name(name);
    v1::Job job;
    Connection::Call(*server_.connection().jobs, &v1::Jobs::Stub::GetJob, request, job);
    EXPECT_EQ(job.state(), v1::Job::SUCCEEDED) << job.error().message();
    return job;
  }

  std::string WeightsOf(const std::string& model) {
    v1::GetModelRequest request;
    request.set_model(model);
    v1::Model response;
    const grpc::Status status =
        Connection::Call(*server_.connection().models, &v1::Models::Stub::GetModel, request, response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(response.versions_size(), 1) << model;
    return response.versions_size() == 1 ? response.versions(0).weights_sha256() : "";
  }

  // `submit`: of v1::Jobs::Stub.
  template <typename Method, typename Request>
  void Compare(Method submit, Request undisturbed, Request killed) {
    for (Request* request : {&undisturbed, &killed}) {
      request->mutable_spec()->set_seed(GetParam());
      request->mutable_options()->set_max_crashes(1000);
    }
    ASSERT_TRUE(server_.Start("").ok());
    v1::Job job;
    grpc::Status status = Connection::Call(*server_.connection().jobs, submit, undisturbed, job);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(Follow(job.name()).starts(), 1);

    server_.Kill();
    std::mt19937_64 random(GetParam());
    const auto plan = [&](bool armed) {
      return absl::StrCat(armed ? "" : "unarmed=1 ", "do=kill-after n=",
                          kMinOperations + static_cast<int64_t>(random() % (kMaxOperations - kMinOperations)));
    };
    ASSERT_TRUE(server_.Start(plan(/*armed=*/false)).ok());
    status = Connection::Call(*server_.connection().jobs, submit, killed, job);
    ASSERT_TRUE(status.ok()) << status.error_message();
    server_.Arm();
    for (int kills = 1;; ++kills) {
      ASSERT_EQ(server_.WaitForEnd(absl::Seconds(60)), -SIGKILL) << "kill " << kills;
      if (kills == kKills) break;
      const absl::Status started = server_.Start(plan(/*armed=*/true));
      ASSERT_TRUE(started.ok()) << started;
    }
    ASSERT_TRUE(server_.Start("").ok());
    EXPECT_EQ(Follow(job.name()).starts(), kKills + 1);
    EXPECT_NE(last_message_.find("goes on from train step"), std::string::npos) << last_message_;
    EXPECT_EQ(WeightsOf("killed"), WeightsOf("undisturbed"));
  }

  TempFolder folder_;
  FaultServer server_;
  std::string last_message_;  // among the events that were followed last
};

TEST_P(ResumeEqualityTest, Training) {
  Compare(&v1::Jobs::Stub::TrainJob, Training("undisturbed"), Training("killed"));
}

TEST_P(ResumeEqualityTest, Distillation) {
  Compare(&v1::Jobs::Stub::DistillJob, Distillation("undisturbed", false), Distillation("killed", false));
}

TEST_P(ResumeEqualityTest, DistillationThatDrawsItsPairsAgain) {
  Compare(&v1::Jobs::Stub::DistillJob, Distillation("undisturbed", true), Distillation("killed", true));
}

INSTANTIATE_TEST_SUITE_P(Seeds, ResumeEqualityTest, ::testing::Values(1, 2));

}  // namespace
}  // namespace boss::testing
