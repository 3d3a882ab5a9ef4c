#include "server/jobs/job_manager.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_replace.h"
#include "core/base/error_details.h"
#include "tests/server/jobs/job_fixture.h"

namespace boss::server {
namespace {

using testing::ExpectSameWeights;
using testing::PayloadsOf;

class JobManagerTest : public testing::JobTest {};

TEST_F(JobManagerTest, ValidatingKeepsNothing) {
  PublishTeacher();
  SubmitOptions options;
  options.validate_only = true;
  options.request_id = "request";
  const auto job = manager_->Submit(DistillSpec{.model = "teacher"}, options);
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_TRUE(job->id.empty());
  EXPECT_EQ(job->input_versions, std::vector<std::string>{"teacher@1"});
  EXPECT_EQ(std::get<DistillSpec>(job->spec).output_model, "teacher");
  EXPECT_TRUE(manager_->List({})->jobs.empty());
  EXPECT_TRUE(journal_->LoadAll()->empty());
}

TEST_F(JobManagerTest, RefusesWhatCannotRun) {
  PublishTeacher();
  const auto refused = [&](JobSpec spec, const SubmitOptions& options = {}) {
    return manager_->Submit(std::move(spec), options).status();
  };
  EXPECT_EQ(refused(DistillSpec{.model = "nobody"}).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(FieldOf(refused(DistillSpec{.model = "nobody"})), "spec.model");
  EXPECT_EQ(refused(DistillSpec{.model = "Teacher"}).code(), absl::StatusCode::kInvalidArgument);
  TrainSpec train = ToyTraining();
  train.architecture_json = R"({"model":{"architecture":"mlp","hidden":-1}})";
  EXPECT_EQ(refused(train).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(FieldOf(refused(train)), "spec.architecture_json");
  options_.max_weights = 100;
  StartManager();
  EXPECT_EQ(FieldOf(refused(ToyTraining())), "spec.architecture_json");
  EvaluateSpec evaluate;
  evaluate.model = "teacher";
  evaluate.feature_network = "inception";
  EXPECT_EQ(refused(evaluate).code(), absl::StatusCode::kNotFound);
  SubmitOptions options;
  options.deadline = clock_.Now();
  EXPECT_EQ(refused(ToyTraining(), options).code(), absl::StatusCode::kInvalidArgument);
  options = {};
  options.labels[""] = "x";
  EXPECT_EQ(refused(ToyTraining(), options).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(manager_->List({})->jobs.empty());
}

TEST_F(JobManagerTest, ReadsDataSetsOnlyFromAllowedFolders) {
  std::filesystem::copy_file(folder_ / "data/toy.idx", folder_ / "secret.idx");
  std::filesystem::create_symlink(folder_ / "secret.idx", folder_ / "data/link.idx");
  TrainSpec spec = ToyTraining();
  for (const std::string& path : {folder_ / "secret.idx", folder_ / "data/../secret.idx", folder_ / "data/link.idx",
                                  folder_.path() + "/database.idx", std::string("/etc/passwd"), std::string("")}) {
    spec.dataset = "idx:" + path;
    EXPECT_EQ(manager_->Submit(spec, {}).status().code(), absl::StatusCode::kPermissionDenied) << path;
  }
  spec.dataset = "idx:" + (folder_ / "data/toy.idx") + "," + (folder_ / "secret.idx");
  EXPECT_EQ(manager_->Submit(spec, {}).status().code(), absl::StatusCode::kPermissionDenied);
  spec.dataset = "png:" + (folder_ / "data/nothing");
  EXPECT_EQ(manager_->Submit(spec, {}).status().code(), absl::StatusCode::kNotFound);
  spec.dataset = "http://example.com";
  EXPECT_EQ(manager_->Submit(spec, {}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(JobManagerTest, ARepeatedRequestGivesTheFirstJob) {
  SubmitOptions options;
  options.request_id = "request";
  const Job first = Submit(ToyTraining(), options);
  EXPECT_EQ(Submit(ToyTraining(), options).id, first.id);
  Finish(first.id);
  Start();  // the journal remembers
  const Job again = Submit(ToyTraining(), options);
  EXPECT_EQ(again.id, first.id);
  EXPECT_EQ(again.state, JobState::kSucceeded);
  EXPECT_EQ(manager_->List({})->jobs.size(), 1);
  EXPECT_EQ(manager_->Submit(ToyTraining("other"), options).status().code(), absl::StatusCode::kAlreadyExists);
  options.priority = 5;
  EXPECT_EQ(manager_->Submit(ToyTraining(), options).status().code(), absl::StatusCode::kAlreadyExists);
}

TEST_F(JobManagerTest, OwnersHaveRequestIdsAndJobsOfTheirOwn) {
  SubmitOptions alice, bob;
  alice.owner = "alice";
  bob.owner = "bob";
  alice.request_id = bob.request_id = "request";
  SubmitOptions nobody;
  nobody.request_id = "request";
  const Job of_alice = Submit(ToyTraining(), alice), of_bob = Submit(ToyTraining("other"), bob),
            of_nobody = Submit(ToyTraining(), nobody);
  Start();  // the journal remembers
  EXPECT_EQ(Submit(ToyTraining(), alice).id, of_alice.id);
  EXPECT_EQ(Submit(ToyTraining("other"), bob).id, of_bob.id);
  EXPECT_EQ(Submit(ToyTraining(), nobody).id, of_nobody.id);
  EXPECT_EQ(manager_->Submit(ToyTraining("other"), alice).status().code(), absl::StatusCode::kAlreadyExists);

  EXPECT_TRUE(manager_->CheckOwner(of_alice.id, "alice").ok());
  const absl::Status foreign = manager_->CheckOwner(of_alice.id, "bob");
  const absl::Status unknown = manager_->Get("nobody").status();
  EXPECT_EQ(foreign.code(), unknown.code());
  EXPECT_EQ(absl::StrReplaceAll(foreign.message(), {{of_alice.id, "nobody"}}), unknown.message());
  EXPECT_EQ(manager_->CheckOwner(of_nobody.id, "alice").code(), absl::StatusCode::kNotFound);

  const auto seen = [&](const JobPageRequest& request) {
    std::vector<std::string> ids;
    const JobPage page = *manager_->List(request);
    for (const Job& job : page.jobs) ids.push_back(job.id);
    return ids;
  };
  EXPECT_EQ(seen({.oldest_first = true}).size(), 3u);
  EXPECT_EQ(seen({.viewer = "alice"}), std::vector<std::string>{of_alice.id});
  EXPECT_EQ(seen({.filter = {.owner = "bob"}}), std::vector<std::string>{of_bob.id});
  EXPECT_TRUE(seen({.filter = {.owner = "bob"}, .viewer = "alice"}).empty());
  // A page's token is of no use to others.
  const std::string token = manager_->List({.page_size = 1})->next_page_token;
  EXPECT_EQ(FieldOf(manager_->List({.viewer = "alice", .page_size = 1, .page_token = token}).status()), "page_token");
}

TEST_F(JobManagerTest, BoundsTheUnfinishedJobsOfAnOwner) {
  executor_.BlockAt(executor_.runs() + 1);
  SubmitOptions options;
  options.owner = "alice";
  options.max_unfinished_of_owner = 1;
  const Job running = Submit(ToyTraining(), options);
  executor_.WaitUntilBlocked();
  const absl::Status full = manager_->Submit(ToyTraining(), options).status();
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(full), kJobQuotaReason);
  options.owner = "bob";
  Submit(ToyTraining(), options);
  executor_.Release();
  Finish(running.id);
  options.owner = "alice";
  Submit(ToyTraining(), options);
}

TEST_F(JobManagerTest, BoundsTheQueue) {
  options_.max_unfinished = 2;
  Start();
  executor_.BlockAt(executor_.runs() + 1);
  const Job running = Submit(ToyTraining());
  executor_.WaitUntilBlocked();
  Submit(ToyTraining());
  const absl::Status full = manager_->Submit(ToyTraining(), {}).status();
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(RetryDelayOf(full).has_value());
  executor_.Release();
  Finish(running.id);
  EXPECT_TRUE(manager_->Submit(ToyTraining(), {}).ok());
}

TEST_F(JobManagerTest, RunsTheHighestPriorityFirstThenTheOldest) {
  executor_.BlockAt(1);
  Submit(ToyTraining());
  executor_.WaitUntilBlocked();
  SubmitOptions high;
  high.priority = 1;
  const Job low = Submit(ToyTraining()), low_later = Submit(ToyTraining()), urgent = Submit(ToyTraining(), high);
  executor_.Release();
  EXPECT_LT(Finish(urgent.id).start_time, Finish(low.id).start_time);
  EXPECT_LT(Finish(low.id).start_time, Finish(low_later.id).start_time);
}

TEST_F(JobManagerTest, CancelsARunningJobBeforeItsNextUnit) {
  executor_.BlockAt(12);
  const Job job = Submit(ToyTraining());
  executor_.WaitUntilBlocked();
  EXPECT_EQ(manager_->Get(job.id)->state, JobState::kRunning);
  EXPECT_EQ(manager_->Cancel(job.id)->state, JobState::kCancelling);
  EXPECT_EQ(manager_->Cancel(job.id)->state, JobState::kCancelling);
  EXPECT_EQ(manager_->Pause(job.id).status().code(), absl::StatusCode::kFailedPrecondition);
  executor_.Release();
  EXPECT_EQ(Finish(job.id).state, JobState::kCancelled);
  EXPECT_EQ(executor_.runs(), 12);
  EXPECT_EQ(manager_->Cancel(job.id)->state, JobState::kCancelled);
  EXPECT_EQ(manager_->Resume(job.id).status().code(), absl::StatusCode::kFailedPrecondition);
  manager_->Shutdown();  // the folder goes after the state is told
  EXPECT_FALSE(std::filesystem::exists(JobFolder(job)));
  EXPECT_TRUE(store_->ListModels().empty());
}

TEST_F(JobManagerTest, CancelsWaitingJobsAtOnce) {
  executor_.BlockAt(1);
  const Job running = Submit(ToyTraining()), queued = Submit(ToyTraining()), paused = Submit(ToyTraining());
  executor_.WaitUntilBlocked();
  EXPECT_EQ(manager_->Pause(paused.id)->state, JobState::kPaused);
  EXPECT_EQ(manager_->Pause(paused.id)->state, JobState::kPaused);
  EXPECT_EQ(manager_->Cancel(queued.id)->state, JobState::kCancelled);
  EXPECT_EQ(manager_->Cancel(paused.id)->state, JobState::kCancelled);
  executor_.Release();
  EXPECT_EQ(Finish(running.id).state, JobState::kSucceeded);
  EXPECT_EQ(manager_->Cancel(running.id).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(manager_->Cancel("nobody").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(JobManagerTest, AJobFailsWhenItsDeadlinePasses) {
  executor_.BlockAt(12);
  SubmitOptions options;
  options.deadline = clock_.Now() + absl::Hours(1);
  const Job running = Submit(ToyTraining(), options), waiting = Submit(ToyTraining(), options);
  executor_.WaitUntilBlocked();
  clock_.Advance(absl::Hours(2));
  executor_.Release();
  for (const Job& job : {Finish(running.id), Finish(waiting.id)}) {
    EXPECT_EQ(job.state, JobState::kFailed);
    EXPECT_EQ(job.error.code(), absl::StatusCode::kDeadlineExceeded);
  }
  // One more unit saves the training state, which was due.
  EXPECT_EQ(executor_.runs(), 13);
  EXPECT_EQ(manager_->Get(waiting.id)->starts, 0);
}

TEST_F(JobManagerTest, AWatchReplaysAndFollowsWithoutGaps) {
  executor_.BlockAt(20);
  const Job job = Submit(ToyTraining());
  executor_.WaitUntilBlocked();
  // Some events are replayed, the others follow.
  const int64_t known = manager_->Get(job.id)->last_sequence;
  ASSERT_GT(known, 3);
  std::vector<JobEvent> seen;
  for (const JobEvent& event : Follow(job.id, 1, [&](const JobEvent& event) { return event.sequence == known; }))
    seen.push_back(event);
  executor_.Release();
  for (const JobEvent& event : Follow(job.id, known + 1)) seen.push_back(event);
  const Job done = *manager_->Get(job.id);
  ASSERT_EQ(static_cast<int64_t>(seen.size()), done.last_sequence);
  for (size_t i = 0; i < seen.size(); ++i) EXPECT_EQ(seen[i].sequence, static_cast<int64_t>(i) + 1);

  const auto states = PayloadsOf<StateChange>(seen);
  ASSERT_EQ(states.size(), 3);
  EXPECT_FALSE(states[0].from.has_value());
  EXPECT_EQ(states[1].to, JobState::kRunning);
  EXPECT_EQ(states[2].to, JobState::kSucceeded);
  std::vector<JobStage> stages;
  for (const StageChange& change : PayloadsOf<StageChange>(seen)) stages.push_back(change.to);
  EXPECT_EQ(stages, (std::vector<JobStage>{JobStage::kPreparing, JobStage::kTraining, JobStage::kPublishing}));
  // The same after the fact, also from the middle.
  EXPECT_EQ(Follow(job.id, 1).size(), seen.size());
  EXPECT_EQ(Follow(job.id, done.last_sequence - 1).size(), 2);
  EXPECT_TRUE(Follow(job.id, done.last_sequence + 1).empty());
  EXPECT_EQ(manager_->Watch(job.id, done.last_sequence + 2, [] {}).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(manager_->Watch("nobody", 1, [] {}).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(JobManagerTest, BoundsTheRateOfProgressEvents) {
  TrainSpec spec = ToyTraining();
  spec.training.train_steps = 200;
  spec.training.metrics_interval = 50;
  executor_.set_unit_time(absl::Milliseconds(10));
  const Job job = Submit(spec);
  const std::vector<JobEvent> events = Follow(job.id);
  std::vector<absl::Time> times;
  for (const JobEvent& event : events) {
    const auto* progress = std::get_if<JobProgress>(&event.payload);
    if (progress != nullptr && progress->step < progress->total_steps) times.push_back(event.time);
  }
  // 200 train steps of 10 ms.
  ASSERT_GE(times.size(), 8);
  for (size_t i = 1; i < times.size(); ++i) EXPECT_GE(times[i] - times[i - 1], absl::Milliseconds(200));
  const JobProgress last = PayloadsOf<JobProgress>(events).back();
  EXPECT_EQ(last.step, 200);
  EXPECT_EQ(last.train_step, 200);
  EXPECT_NEAR(last.fraction, 1, 1e-9);
  EXPECT_EQ(last.time_left, absl::ZeroDuration());
  EXPECT_GT(last.samples_per_second, 0);
}

TEST_F(JobManagerTest, ListsWhatMatchesPageByPage) {
  PublishTeacher();
  executor_.BlockAt(1);
  SubmitOptions options;
  options.labels = {{"team", "vision"}, {"run", "1"}};
  const Job running = Submit(ToyTraining("a"), options);
  executor_.WaitUntilBlocked();
  options.labels["run"] = "2";
  std::vector<std::string> ids = {running.id};
  for (int i = 0; i < 4; ++i) ids.push_back(Submit(OptimizeStepsizesSpec{"teacher", 4, 4}, options).id);

  const auto ids_of = [](const absl::StatusOr<JobPage>& page) {
    std::vector<std::string> result;
    if (page.ok()) {
      for (const Job& job : page->jobs) result.push_back(job.id);
    }
    return result;
  };
  JobPageRequest request;
  request.oldest_first = true;
  EXPECT_EQ(ids_of(manager_->List(request)), ids);
  request.oldest_first = false;
  EXPECT_EQ(ids_of(manager_->List(request)), std::vector<std::string>(ids.rbegin(), ids.rend()));

  request.filter.kinds = {JobKind::kOptimizeStepsizes};
  request.filter.states = {JobState::kQueued, JobState::kFailed};
  request.filter.labels = {{"run", "2"}};
  request.filter.model = "teacher";
  request.page_size = 3;
  const auto first = manager_->List(request);
  EXPECT_EQ(ids_of(first), (std::vector<std::string>{ids[4], ids[3], ids[2]}));
  request.page_token = first->next_page_token;
  const auto second = manager_->List(request);
  EXPECT_EQ(ids_of(second), std::vector<std::string>{ids[1]});
  EXPECT_TRUE(second->next_page_token.empty());

  request.filter.labels = {};
  EXPECT_EQ(manager_->List(request).status().code(), absl::StatusCode::kInvalidArgument);
  request.page_token = "nonsense";
  EXPECT_EQ(manager_->List(request).status().code(), absl::StatusCode::kInvalidArgument);
  JobPageRequest by_model;
  by_model.filter.model = "a";
  EXPECT_EQ(ids_of(manager_->List(by_model)), std::vector<std::string>{ids[0]});
  by_model.page_size = 1001;
  EXPECT_EQ(manager_->List(by_model).status().code(), absl::StatusCode::kInvalidArgument);
  executor_.Release();
  for (const std::string& id : ids) Finish(id);
}

TEST_F(JobManagerTest, DeletesOnlyFinishedJobs) {
  executor_.BlockAt(3);
  const Job job = Submit(ToyTraining());
  executor_.WaitUntilBlocked();
  EXPECT_EQ(manager_->Delete(job.id).code(), absl::StatusCode::kFailedPrecondition);
  executor_.Release();
  const Job done = Finish(job.id);
  const auto watch = manager_->Watch(job.id, 1, [] {});
  ASSERT_TRUE(manager_->Delete(job.id).ok());
  EXPECT_EQ((*watch)->Next(10).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(manager_->Get(job.id).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(manager_->Delete(job.id).code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(journal_->LoadAll()->empty());
  // What it published stays.
  EXPECT_NE(Output(done), nullptr);
}

TEST_F(JobManagerTest, ALossThatIsNotFiniteFailsTheJobAndKeepsTheLastGoodState) {
  TrainSpec spec = ToyTraining();
  spec.architecture_json = R"({"model":{"architecture":"mlp","dim":2,"hidden":32,"layers":8}})";
  spec.training.trainer.learning_rate = 1000;
  spec.training.train_steps = 500;
  const Job job = Finish(Submit(spec).id);
  EXPECT_EQ(job.state, JobState::kFailed);
  EXPECT_EQ(job.error.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(std::string(job.error.message()).find("train step"), std::string::npos) << job.error;
  bool has_state = false;
  for (const auto& file : std::filesystem::directory_iterator(JobFolder(job))) {
    has_state = has_state || file.path().filename().string().rfind("state-", 0) == 0;
  }
  EXPECT_TRUE(has_state);
  EXPECT_TRUE(store_->ListModels().empty());
  // The runner goes on with other jobs.
  RunToSuccess(ToyTraining());
}

TEST_F(JobManagerTest, AcceptsNothingAfterShutdown) {
  manager_->Shutdown();
  manager_->Shutdown();
  EXPECT_EQ(manager_->Submit(ToyTraining(), {}).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(JobManagerTest, TellsTheListenerEveryChange) {
  std::vector<std::string> changes;
  manager_.reset();
  auto manager = JobManager::Start(
      options_, *store_, *journal_, executor_, clock_, [&](JobKind kind, std::optional<JobState> from, JobState to) {
        changes.push_back(JobKindName(kind) + " " + (from ? JobStateName(*from) : "new") + " " + JobStateName(to));
      });
  ASSERT_TRUE(manager.ok());
  manager_ = *std::move(manager);
  RunToSuccess(ToyTraining());
  manager_->Shutdown();
  EXPECT_EQ(changes, (std::vector<std::string>{"TRAIN new QUEUED", "TRAIN QUEUED RUNNING", "TRAIN RUNNING SUCCEEDED"}));
  manager_.reset();
}

}  // namespace
}  // namespace boss::server
