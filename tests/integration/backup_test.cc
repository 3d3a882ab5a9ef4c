// The data folder copied and restored with the commands of docs/operations.md, as they are written there.
#include <gmock/gmock.h>

#include <cstdlib>
#include <fstream>
#include <map>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "core/io/atomic_file.h"
#include "tests/integration/bossd_fixture.h"
#include "tests/support/idx_file.h"

namespace boss::testing {
namespace {

using ::testing::AnyOf;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

constexpr char kStoppedBackup[] = R"(cp -a "$DATA/." "$BACKUP/")";
constexpr char kRunningBackup[] = "VACUUM INTO";
constexpr char kRestore[] = R"(cp -a "$BACKUP/." "$DATA/")";

// The one shell block of docs/operations.md with `text`.
std::string DocumentedCommands(const std::string& text) {
  const absl::StatusOr<std::string> page = ReadFile(BOSS_SOURCE_DIR "/docs/operations.md");
  EXPECT_TRUE(page.ok()) << page.status();
  std::string found;
  const std::string opening = "\n```sh\n", closing = "\n```\n";
  for (size_t start = page->find(opening); start != std::string::npos; start = page->find(opening, start)) {
    start += opening.size();
    const std::string block = page->substr(start, page->find(closing, start) - start);
    if (!absl::StrContains(block, text)) continue;
    EXPECT_EQ(found, "") << "another block has " << text;
    found = block;
  }
  EXPECT_NE(found, "") << "no block has " << text;
  return found;
}

// What a server is asked to remember.
struct Memory {
  std::map<std::string, std::string> models;     // without what is in memory
  std::map<std::string, std::string> schedules;  // with costs, by model and set
  std::map<std::string, std::string> jobs;       // those that do not run
  std::map<std::string, std::string> events;     // of these jobs, in order
  std::string samples;
};

class BackupTest : public BossdTest {
 protected:
  BackupTest() {
    std::vector<uint8_t> points;
    for (int i = 0; i < 128; ++i) points.push_back(static_cast<uint8_t>(i * 89 % 251));
    WriteIdx(folder_ / "points", {64, 1, 2}, points);
  }

  // Without seed models, unless it says so: what is not in the folder shall not come from elsewhere.
  void StartOn(const std::string& data_folder, std::vector<std::string> arguments = {}) {
    for (const std::string& argument : {"--data=" + data_folder, "--dataset-folder=" + folder_.path(),
                                        std::string("--threads=1"), std::string("--crash-backoff-seconds=0")}) {
      arguments.push_back(argument);
    }
    auto server = ServerProcess::Start(BOSSD_BINARY, folder_.path(), arguments);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    const auto channel = grpc::CreateChannel(server_->address(), grpc::InsecureChannelCredentials());
    sampler_ = v1::Sampler::NewStub(channel);
    jobs_ = v1::Jobs::NewStub(channel);
    models_ = v1::Models::NewStub(channel);
  }

  void Run(const std::string& block, const std::string& data_folder, const std::string& backup_folder) {
    const std::string script = folder_ / "commands.sh";
    std::ofstream(script) << DocumentedCommands(block) << "\n";
    const std::string command =
        absl::StrCat("DATA='", data_folder, "' BACKUP='", backup_folder, "' bash -euo pipefail '", script, "'");
    EXPECT_EQ(std::system(command.c_str()), 0) << command;
  }

  v1::Job Train(const std::string& output, int64_t train_steps) {
    v1::TrainJobRequest request;
    v1::TrainSpec& spec = *request.mutable_spec();
    spec.set_dataset("idx:" + (folder_ / "points"));
    spec.set_architecture_json(R"({"model":{"architecture":"mlp","dim":2,"hidden":16,"layers":2}})");
    spec.set_output_model(output);
    spec.set_output_alias("best");
    spec.mutable_training()->set_train_steps(train_steps);
    spec.mutable_training()->set_batch_size(8);
    spec.mutable_training()->set_checkpoint_interval(100);
    grpc::ClientContext context;
    v1::Job job;
    const grpc::Status status = jobs_->TrainJob(&context, request, &job);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return job;
  }

  // Until an event for which `is_it` holds; false if the job ended without one.
  template <typename Predicate>
  bool WaitForEvent(const std::string& name, Predicate is_it) {
    grpc::ClientContext context;
    v1::WatchJobRequest request;
    request.set_name(name);
    const auto stream = jobs_->WatchJob(&context, request);
    for (v1::JobEvent event; stream->Read(&event);) {
      if (!is_it(event)) continue;
      context.TryCancel();
      return true;
    }
    return false;
  }
  bool WaitForState(const std::string& name, v1::Job::State state) {
    return WaitForEvent(name, [&](const v1::JobEvent& event) { return event.state_change().to() == state; });
  }
  // That a checkpoint lies behind.
  bool WaitForTraining(const std::string& name) {
    return WaitForEvent(name, [](const v1::JobEvent& event) { return event.progress().train_step() > 100; });
  }
  bool WaitUntilItGoesOn(const std::string& name) {
    return WaitForEvent(name, [](const v1::JobEvent& event) {
      constexpr char kText[] = "goes on from train step ";
      const size_t place = event.message().text().find(kText);
      int64_t step = 0;
      return place != std::string::npos &&
             absl::SimpleAtoi(event.message().text().substr(place + sizeof kText - 1), &step) && step >= 100;
    });
  }

  template <typename Method, typename Request>
  v1::Job Call(Method method, const std::string& name, Request request) {
    request.set_name(name);
    grpc::ClientContext context;
    v1::Job job;
    const grpc::Status status = (jobs_.get()->*method)(&context, request, &job);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return job;
  }
  v1::Job GetJob(const std::string& name) { return Call(&v1::Jobs::Stub::GetJob, name, v1::GetJobRequest()); }

  std::string WeightsOf(const std::string& model) {
    grpc::ClientContext context;
    v1::GetModelRequest request;
    request.set_model(model);
    v1::Model response;
    const grpc::Status status = models_->GetModel(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(response.versions_size(), 1) << model;
    return response.versions_size() == 1 ? response.versions(0).weights_sha256() : "";
  }

  Memory Ask() {
    Memory memory;
    memory.samples = Generate(Request("images", 2, 3)).Bytes() + Generate(Request("trained@best", 2, 3)).Bytes();
    grpc::ClientContext models_context, jobs_context, schedules_context;
    v1::ListModelsResponse models;
    EXPECT_TRUE(models_->ListModels(&models_context, {}, &models).ok());
    for (v1::Model& model : *models.mutable_models()) {
      for (v1::ModelVersion& version : *model.mutable_versions()) {
        version.clear_state();
        version.clear_memory_bytes();
      }
      memory.models[model.name()] = model.DebugString();
    }
    v1::ListSchedulesResponse schedules;
    v1::ListSchedulesRequest request;
    request.set_include_schedules(true);
    EXPECT_TRUE(models_->ListSchedules(&schedules_context, request, &schedules).ok());
    for (const v1::ScheduleSet& set : schedules.schedule_sets()) {
      memory.schedules[set.model() + " " + set.name()] = set.DebugString();
    }
    v1::ListJobsResponse jobs;
    EXPECT_TRUE(jobs_->ListJobs(&jobs_context, {}, &jobs).ok());
    for (const v1::Job& job : jobs.jobs()) {
      if (job.state() == v1::Job::RUNNING || job.state() == v1::Job::QUEUED) continue;
      memory.jobs[job.name()] = GetJob(job.name()).DebugString();
      memory.events[job.name()] = Replay(job.name());
    }
    return memory;
  }

  std::string Replay(const std::string& name) {
    grpc::ClientContext context;
    v1::WatchJobRequest request;
    request.set_name(name);
    request.set_replay_only(true);
    const auto stream = jobs_->WatchJob(&context, request);
    std::string events;
    for (v1::JobEvent event; stream->Read(&event);) events += event.DebugString();
    EXPECT_TRUE(stream->Finish().ok());
    return events;
  }

  // Models, schedules, an alias, finished jobs, and `paused_`, a paused one in the middle of its training.
  void MakeHistory() {
    const std::string schedules = SubmitOptimize(/*k_max=*/10, /*num_samples=*/4).name();
    ASSERT_TRUE(WaitForState(schedules, v1::Job::SUCCEEDED));
    ASSERT_TRUE(WaitForState(Train("trained", kTrainSteps).name(), v1::Job::SUCCEEDED));
    paused_ = Train("interrupted", kTrainSteps).name();
    ASSERT_TRUE(WaitForTraining(paused_));
    Call(&v1::Jobs::Stub::PauseJob, paused_, v1::PauseJobRequest());
    ASSERT_TRUE(WaitForState(paused_, v1::Job::PAUSED));
  }

  static void ExpectSame(const Memory& a, const Memory& b) {
    EXPECT_THAT(b.models, ElementsAreArray(a.models));
    EXPECT_THAT(b.schedules, ElementsAreArray(a.schedules));
    EXPECT_THAT(b.jobs, ElementsAreArray(a.jobs));
    EXPECT_THAT(b.events, ElementsAreArray(a.events));
    EXPECT_EQ(b.samples, a.samples);
  }

  // What went on after the restoration is what would have been without.
  void FinishThePausedJob() {
    Call(&v1::Jobs::Stub::ResumeJob, paused_, v1::ResumeJobRequest());
    ASSERT_TRUE(WaitForState(paused_, v1::Job::SUCCEEDED));
    EXPECT_TRUE(WaitUntilItGoesOn(paused_));
    EXPECT_EQ(WeightsOf("interrupted"), WeightsOf("trained"));
  }

  static constexpr int64_t kTrainSteps = 20'000;  // seconds, so that it is not over before it is paused
  std::string paused_;
};

TEST_F(BackupTest, ACopyOfAStoppedServersFolderBringsEverythingBack) {
  StartOn(folder_ / "data", {"--seed-models=" + (folder_ / "seeds")});
  MakeHistory();
  const Memory before = Ask();
  EXPECT_EQ(before.models.size(), 3u);  // images, vectors, trained
  EXPECT_EQ(before.schedules.size(), 2u);
  EXPECT_EQ(before.jobs.size(), 3u);
  ASSERT_EQ(Stop(), 0);
  Run(kStoppedBackup, folder_ / "data", folder_ / "backup");
  std::filesystem::remove_all(folder_ / "data");

  Run(kRestore, folder_ / "restored", folder_ / "backup");
  StartOn(folder_ / "restored");
  ExpectSame(before, Ask());
  FinishThePausedJob();
  EXPECT_EQ(Stop(), 0);
}

TEST_F(BackupTest, ACopyWhileTheServerTrainsBringsBackWhatWasThere) {
  StartOn(folder_ / "data", {"--seed-models=" + (folder_ / "seeds")});
  MakeHistory();
  const std::string running = Train("running", /*train_steps=*/100'000'000).name();
  ASSERT_TRUE(WaitForTraining(running));
  const Memory before = Ask();
  Run(kRunningBackup, folder_ / "data", folder_ / "backup");
  EXPECT_EQ(GetJob(running).state(), v1::Job::RUNNING);  // the server has not been disturbed
  EXPECT_TRUE(Generate(Request("images", 1, 2)).status.ok());
  server_->Signal(SIGKILL);
  server_->WaitForExit();
  std::filesystem::remove_all(folder_ / "data");

  Run(kRestore, folder_ / "restored", folder_ / "backup");
  StartOn(folder_ / "restored");
  EXPECT_TRUE(WaitUntilItGoesOn(running));
  ExpectSame(before, Ask());
  Call(&v1::Jobs::Stub::CancelJob, running, v1::CancelJobRequest());
  ASSERT_TRUE(WaitForState(running, v1::Job::CANCELLED));
  FinishThePausedJob();
  EXPECT_EQ(Stop(), 0);
}

}  // namespace
}  // namespace boss::testing
