// A job manager with a store, a journal, a clock that only tests move, and an executor that stops where a test wants
// it.
#pragma once

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "core/base/clock.h"
#include "core/base/step_executor.h"
#include "core/nets/factory.h"
#include "server/jobs/job_manager.h"
#include "server/store/job_journal.h"
#include "server/store/model_store.h"
#include "tests/support/idx_file.h"
#include "tests/support/temp_folder.h"

namespace boss::server::testing {

class ManualClock final : public Clock {
 public:
  absl::Time Now() const override {
    absl::MutexLock lock(&mutex_);
    return now_;
  }
  void Advance(absl::Duration duration) {
    absl::MutexLock lock(&mutex_);
    now_ += duration;
  }

 private:
  mutable absl::Mutex mutex_;
  absl::Time now_ ABSL_GUARDED_BY(mutex_) = absl::FromUnixSeconds(1'700'000'000);
};

// Runs units on the calling thread; each takes `unit_time` of the clock. The unit with the number given to BlockAt
// waits for Release before it runs.
class GateExecutor final : public StepExecutor {
 public:
  explicit GateExecutor(ManualClock& clock) : clock_(clock) {}

  absl::Status Run(absl::FunctionRef<absl::Status()> step) override {
    {
      absl::MutexLock lock(&mutex_);
      ++runs_;
      if (runs_ == block_at_) {
        blocked_ = true;
        mutex_.Await(absl::Condition(
            +[](GateExecutor* self) { return !self->blocked_; }, this));
      }
    }
    clock_.Advance(unit_time_);
    // The runner's thread, too, computes with as many threads as the fixture sets: another number gives other
    // roundings.
    at::init_num_threads();
    return step();
  }

  void set_unit_time(absl::Duration unit_time) { unit_time_ = unit_time; }
  // Counted from the executor's first unit, which is 1.
  void BlockAt(int64_t run) {
    absl::MutexLock lock(&mutex_);
    block_at_ = run;
  }
  void WaitUntilBlocked() {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&blocked_));
  }
  void Release() {
    absl::MutexLock lock(&mutex_);
    blocked_ = false;
    block_at_ = 0;
  }
  int64_t runs() const {
    absl::MutexLock lock(&mutex_);
    return runs_;
  }

 private:
  ManualClock& clock_;
  absl::Duration unit_time_ = absl::Milliseconds(10);
  mutable absl::Mutex mutex_;
  int64_t runs_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t block_at_ ABSL_GUARDED_BY(mutex_) = 0;
  bool blocked_ ABSL_GUARDED_BY(mutex_) = false;
};

inline constexpr char kToyArchitecture[] = R"({"model":{"architecture":"mlp","dim":2,"hidden":32,"layers":2}})";

using boss::testing::WriteIdx;

class JobTest : public ::testing::Test {
 protected:
  JobTest() : executor_(clock_) {
    // Toy networks gain nothing from more, and lose much where the cores are busy.
    at::set_num_threads(1);
    options_.data_folder = folder_.path();
    options_.dataset_folders = {folder_ / "data"};
    options_.id_seed = 1;
    // The clock stands still while a job waits.
    options_.crash_backoff = absl::ZeroDuration();
    std::filesystem::create_directories(folder_ / "data");
    // 64 pictures of 1 x 2 pixels: points on a circle.
    std::vector<uint8_t> points;
    for (int i = 0; i < 64; ++i) {
      points.push_back(static_cast<uint8_t>(127.5 + 100 * std::cos(i * 0.098)));
      points.push_back(static_cast<uint8_t>(127.5 + 100 * std::sin(i * 0.098)));
    }
    WriteIdx(folder_ / "data/toy.idx", {64, 1, 2}, points);
    Start();
  }
  ~JobTest() override { executor_.Release(); }

  void Start() {
    manager_.reset();
    journal_.reset();
    store_.reset();
    auto store = ModelStore::Open(folder_.path(), clock_, PosixFileSystem(), store_options_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    auto journal = SqliteJobJournal::Open(folder_ / "bossd.db");
    ASSERT_TRUE(journal.ok()) << journal.status();
    journal_ = *std::move(journal);
    StartManager();
  }
  void StartManager() {
    auto manager = JobManager::Start(options_, *store_, *journal_, executor_, clock_, nullptr);
    ASSERT_TRUE(manager.ok()) << manager.status();
    manager_ = *std::move(manager);
  }

  // Crashes while the executor waits at its gate: everything is as the disk has it at this moment, and is started
  // again. `meanwhile` is called while nothing runs.
  void Crash(const std::function<void()>& meanwhile = [] {}) {
    constexpr auto kCopy = std::filesystem::copy_options::recursive | std::filesystem::copy_options::overwrite_existing;
    // A unit that is held does not hold up what the job does beside it: an image is of one moment only if nothing was
    // written while it was taken.
    std::optional<boss::testing::TempFolder> image;
    std::error_code error;
    std::string before;
    do {
      before = Written();
      image.emplace();
      std::filesystem::copy(folder_.path(), image->path(), kCopy, error);
    } while (error || before != Written());
    executor_.Release();
    manager_.reset();
    journal_.reset();
    store_.reset();
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path())) std::filesystem::remove_all(entry);
    std::filesystem::copy(image->path(), folder_.path(), kCopy);
    meanwhile();
    Start();
  }

  // Every file of the data folder with its size and the time of its last change.
  std::string Written() const {
    std::string all;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder_.path())) {
      std::error_code gone;
      absl::StrAppend(&all, entry.path().string(), " ", entry.is_regular_file(gone) ? entry.file_size(gone) : 0, " ",
                      entry.last_write_time(gone).time_since_epoch().count(), "\n");
    }
    return all;
  }

  // The toy teacher, with random weights.
  VersionKey PublishTeacher(const std::string& name = "teacher") {
    Manifest manifest;
    manifest.architecture_json = kToyArchitecture;
    const auto key = store_->Publish(name, manifest, (*CreateModel(kToyArchitecture, 3))->State());
    EXPECT_TRUE(key.ok()) << key.status();
    return *key;
  }

  TrainSpec ToyTraining(const std::string& output_model = "toy") const {
    TrainSpec spec;
    spec.dataset = "idx:" + (folder_ / "data/toy.idx");
    spec.architecture_json = kToyArchitecture;
    spec.output_model = output_model;
    spec.training.train_steps = 30;
    spec.training.batch_size = 8;
    spec.training.checkpoint_interval = 7;
    spec.training.metrics_interval = 5;
    spec.seed = 11;
    return spec;
  }

  DistillSpec ToyDistillation(const std::string& output_model) const {
    DistillSpec spec;
    spec.model = "teacher";
    spec.output_model = output_model;
    spec.steps = 3;
    spec.k_max = 8;
    spec.num_samples = 16;
    spec.num_noises = 50;
    spec.batch_size = 5;
    spec.training.train_steps = 20;
    spec.training.batch_size = 16;
    spec.training.checkpoint_interval = 6;
    spec.seed = 5;
    return spec;
  }

  Job Submit(JobSpec spec, const SubmitOptions& options = {}) {
    const auto job = manager_->Submit(std::move(spec), options);
    EXPECT_TRUE(job.ok()) << job.status();
    return job.ok() ? *job : Job{};
  }

  // Events from `from_sequence` on, until `enough` says so of the latest or there are no more to come.
  std::vector<JobEvent> Follow(
      const std::string& id, int64_t from_sequence = 1,
      const std::function<bool(const JobEvent&)>& enough = [](const JobEvent&) { return false; }) {
    absl::Mutex mutex;
    bool notified = false;
    const auto watch = manager_->Watch(id, from_sequence, [&] {
      absl::MutexLock lock(&mutex);
      notified = true;
    });
    EXPECT_TRUE(watch.ok()) << watch.status();
    std::vector<JobEvent> events;
    while (watch.ok()) {
      const auto batch = (*watch)->Next(3);
      EXPECT_TRUE(batch.ok()) << batch.status();
      if (!batch.ok()) break;
      for (const JobEvent& event : batch->events) {
        events.push_back(event);
        if (enough(event)) return events;
      }
      if (batch->end) break;
      if (batch->events.empty()) {
        absl::MutexLock lock(&mutex);
        mutex.Await(absl::Condition(&notified));
        notified = false;
      }
    }
    return events;
  }

  void WaitForState(const std::string& id, JobState state) {
    Follow(id, 1, [&](const JobEvent& event) {
      const auto* change = std::get_if<StateChange>(&event.payload);
      return change != nullptr && change->to == state && manager_->Get(id)->state == state;
    });
    EXPECT_EQ(manager_->Get(id)->state, state);
  }

  // The job when it is final.
  Job Finish(const std::string& id) {
    Follow(id);
    return *manager_->Get(id);
  }
  Job RunToSuccess(JobSpec spec) {
    const Job job = Finish(Submit(std::move(spec)).id);
    EXPECT_EQ(job.state, JobState::kSucceeded) << job.error;
    return job;
  }

  std::unique_ptr<VelocityModel> Output(const Job& job) {
    auto model = store_->LoadVersionModel(*store_->Resolve(job.output_version));
    EXPECT_TRUE(model.ok()) << model.status();
    return *std::move(model);
  }
  std::string JobFolder(const Job& job) const { return folder_ / ("jobs/" + job.id); }

  boss::testing::TempFolder folder_;
  ManualClock clock_;
  GateExecutor executor_;
  JobManagerOptions options_;
  ModelStoreOptions store_options_;
  std::unique_ptr<ModelStore> store_;
  std::unique_ptr<SqliteJobJournal> journal_;
  std::unique_ptr<JobManager> manager_;
};

inline void ExpectSameWeights(const VelocityModel& a, const VelocityModel& b) {
  const auto state_a = a.State(), state_b = b.State();
  ASSERT_EQ(state_a.size(), state_b.size());
  for (size_t i = 0; i < state_a.size(); ++i)
    EXPECT_TRUE(state_a[i].second.equal(state_b[i].second)) << state_a[i].first;
}

// What the events of one kind carry.
template <typename Payload>
std::vector<Payload> PayloadsOf(const std::vector<JobEvent>& events) {
  std::vector<Payload> payloads;
  for (const JobEvent& event : events) {
    if (const auto* payload = std::get_if<Payload>(&event.payload)) payloads.push_back(*payload);
  }
  return payloads;
}

// "version label steps schedule" of each row of an evaluation.
inline std::vector<std::string> RowsOf(const Job& job) {
  std::vector<std::string> rows;
  for (const EvaluationRow& row : job.result.evaluation) {
    rows.push_back(absl::StrCat(row.version, " ", row.label, " ", row.steps, " ", row.schedule));
  }
  return rows;
}

}  // namespace boss::server::testing
