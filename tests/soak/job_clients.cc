#include "tests/soak/job_clients.h"

#include <iterator>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/soak/soak_client.h"

namespace boss::testing {
namespace {

constexpr size_t kMaxUnfinished = 4, kMaxFinished = 20;
constexpr absl::Duration kPause = absl::Milliseconds(200);
constexpr absl::Duration kTimeToFinish = absl::Minutes(5);

bool IsFinal(v1::Job::State state) {
  return state == v1::Job::SUCCEEDED || state == v1::Job::FAILED || state == v1::Job::CANCELLED;
}

void SetTraining(v1::TrainingOptions& training, int64_t steps) {
  training.set_train_steps(steps);
  training.set_batch_size(8);
  training.set_checkpoint_interval(50);
}

v1::TrainJobRequest Training(const std::string& folder, uint64_t seed) {
  v1::TrainJobRequest request;
  v1::TrainSpec& spec = *request.mutable_spec();
  spec.set_dataset(absl::StrCat("idx:", folder, "/sets/points"));
  spec.set_architecture_json(R"({"model":{"architecture":"mlp","dim":2,"hidden":16,"layers":2}})");
  spec.set_output_model("trained");
  spec.set_seed(seed);
  SetTraining(*spec.mutable_training(), 500);
  return request;
}

v1::OptimizeStepsizesJobRequest Optimization(uint64_t seed) {
  v1::OptimizeStepsizesJobRequest request;
  request.mutable_spec()->set_model("vectors");
  request.mutable_spec()->set_k_max(12);
  request.mutable_spec()->set_num_samples(16);
  request.mutable_spec()->set_seed(seed);
  return request;
}

v1::DistillJobRequest Distillation(uint64_t seed) {
  v1::DistillJobRequest request;
  v1::DistillSpec& spec = *request.mutable_spec();
  spec.set_model("vectors");
  spec.set_output_model("straight");
  spec.set_steps(2);
  spec.set_k_max(8);
  spec.set_num_samples(8);
  spec.set_num_noises(64);
  spec.set_seed(seed);
  if (seed % 2 == 0) spec.set_tuning(v1::DistillSpec::LORA);
  SetTraining(*spec.mutable_training(), 200);
  return request;
}

}  // namespace

void JobClients::Submit(client::Client& client, Random& random) {
  const uint64_t seed = random();
  const int64_t epoch = run_.server.Epoch();
  const auto send = [&](auto request, auto method) {
    request.mutable_options()->set_max_crashes(1000);
    return (client.*method)(std::move(request));
  };
  absl::StatusOr<v1::Job> job;
  switch (random() % 3) {
    case 0:
      job = send(Training(run_.server.folder().path(), seed), &client::Client::TrainJob);
      break;
    case 1:
      job = send(Optimization(seed), &client::Client::OptimizeStepsizesJob);
      break;
    default:
      job = send(Distillation(seed), &client::Client::DistillJob);
  }
  CountCall(run_, "jobs: submissions", epoch, job.status());
  if (!job.ok()) return;
  run_.ledger.AddJob();
  absl::MutexLock lock(&mutex_);
  unfinished_.insert(job->name());
}

std::set<std::string> JobClients::Unfinished() const {
  absl::MutexLock lock(&mutex_);
  return unfinished_;
}

std::string JobClients::AnyUnfinished(Random& random) const {
  absl::MutexLock lock(&mutex_);
  if (unfinished_.empty()) return "";
  return *std::next(unfinished_.begin(), static_cast<int64_t>(random() % unfinished_.size()));
}

void JobClients::Steer(client::Client& client, Random& random) {
  const std::string name = AnyUnfinished(random);
  if (name.empty()) return;
  const int64_t epoch = run_.server.Epoch();
  const uint64_t choice = random() % 7;
  const absl::Status status = (choice < 3   ? client.PauseJob(name)
                               : choice < 6 ? client.ResumeJob(name)
                                            : client.CancelJob(name))
                                  .status();
  // It may have finished meanwhile.
  CountCall(run_, "jobs: pause, resume, cancel", epoch, status, absl::IsFailedPrecondition(status));
}

void JobClients::Look(client::Client& client) {
  for (const std::string& name : Unfinished()) {
    const int64_t epoch = run_.server.Epoch();
    const absl::StatusOr<v1::Job> job = client.GetJob(name);
    CountCall(run_, "jobs: GetJob", epoch, job.status());
    const bool is_lost = absl::IsNotFound(job.status());
    if (is_lost) run_.ledger.AddLostJob(name);
    if (job.ok() && job->state() == v1::Job::FAILED)
      run_.ledger.AddFinding(absl::StrCat(name, " failed: ", job->error().message()));
    if (!is_lost && !(job.ok() && IsFinal(job->state()))) continue;
    absl::MutexLock lock(&mutex_);
    unfinished_.erase(name);
    if (!is_lost) finished_.insert(name);
  }
}

void JobClients::DeleteOne(client::Client& client) {
  std::string name;
  {
    absl::MutexLock lock(&mutex_);
    if (finished_.size() <= kMaxFinished) return;
    name = *finished_.begin();
    finished_.erase(name);
  }
  const int64_t epoch = run_.server.Epoch();
  const absl::Status status = client.DeleteJob(name);
  // A first try that was answered by nobody may have deleted it.
  const bool may_fail = absl::IsNotFound(status) && run_.server.WasDisturbed(epoch);
  CountCall(run_, "jobs: DeleteJob", epoch, status, may_fail);
}

void JobClients::RunSubmitter(uint64_t seed) {
  Random random(seed);
  client::Client client(SoakChannel(run_.server), SoakClientOptions());
  while (!run_.stop.HasBeenNotified()) {
    if (Unfinished().size() < kMaxUnfinished) Submit(client, random);
    Steer(client, random);
    Look(client);
    DeleteOne(client);
    run_.stop.WaitForNotificationWithTimeout(kPause);
  }
}

void JobClients::RunWatcher(uint64_t seed) {
  Random random(seed);
  client::Client client(SoakChannel(run_.server), SoakClientOptions());
  // A job may be paused for as long as it likes.
  std::thread canceller([&] {
    run_.stop.WaitForNotification();
    client.Cancel();
  });
  while (!run_.stop.HasBeenNotified()) {
    const std::string name = AnyUnfinished(random);
    if (!name.empty()) {
      v1::WatchJobRequest request;
      request.set_name(name);
      const int64_t epoch = run_.server.Epoch();
      const absl::Status status = client.WatchJob(request, [](const v1::JobEvent&) { return absl::OkStatus(); });
      const bool may_fail = absl::IsNotFound(status)  // deleted since
                            || (absl::IsCancelled(status) && run_.stop.HasBeenNotified());
      CountCall(run_, "jobs: WatchJob", epoch, status, may_fail);
    }
    run_.stop.WaitForNotificationWithTimeout(kPause);
  }
  canceller.join();
}

void JobClients::Finish() {
  client::Client client(SoakChannel(run_.server), SoakClientOptions());
  const absl::Time deadline = absl::Now() + kTimeToFinish;
  while (!Unfinished().empty() && absl::Now() < deadline) {
    for (const std::string& name : Unfinished()) {
      const int64_t epoch = run_.server.Epoch();
      const absl::Status status = client.ResumeJob(name).status();
      CountCall(run_, "jobs: pause, resume, cancel", epoch, status, absl::IsFailedPrecondition(status));
    }
    Look(client);
    absl::SleepFor(kPause);
  }
  for (const std::string& name : Unfinished()) run_.ledger.AddLostJob(absl::StrCat(name, ", which did not end"));
}

}  // namespace boss::testing
