// What a journal with many finished jobs costs: start-up, pages of ListJobs, lookups, submissions. Times in
// milliseconds, in the process and as a client of the server sees them over loopback.
//
//   journal_bench [number of jobs]
#include <grpcpp/grpcpp.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/notification.h"
#include "boss/v1/jobs.grpc.pb.h"
#include "core/base/clock.h"
#include "core/base/step_executor.h"
#include "server/app/server.h"
#include "server/jobs/job_manager.h"
#include "tests/support/temp_folder.h"
#include "tests/support/tiny_models.h"

namespace {

using namespace boss::server;  // NOLINT(google-build-using-namespace): a program about it

constexpr int kMetricsEvents = 12;
constexpr size_t kPreviewBytes = 4096;
constexpr int kStarts = 5, kWarmUps = 20, kRepetitions = 300;

template <typename T>
T Must(absl::StatusOr<T> result) {
  if (!result.ok()) {
    std::fprintf(stderr, "%s\n", result.status().ToString().c_str());
    std::exit(EXIT_FAILURE);
  }
  return *std::move(result);
}
void Must(const absl::Status& status) { Must(status.ok() ? absl::StatusOr<int>(0) : absl::StatusOr<int>(status)); }
void Must(const grpc::Status& status) {
  Must(status.ok() ? absl::OkStatus() : absl::InternalError(status.error_message()));
}

// The device is taken: what runs waits until it is cancelled, and the other jobs are queued.
class BusyExecutor final : public boss::StepExecutor {
 public:
  absl::Status Run(absl::FunctionRef<absl::Status()> step) override {
    free_.WaitForNotification();
    return absl::CancelledError("the measurement is over");
  }
  void Free() { free_.Notify(); }

 private:
  absl::Notification free_;
};

// A distilled, evaluated job as a server leaves it.
Job FinishedJob(int number, absl::Time time) {
  DistillSpec spec;
  spec.model = "fashion";
  spec.output_model = "fashion-fast";
  spec.output_alias = "candidate";
  spec.seed = number;
  spec.evaluation = EvaluateSpec{};
  Job job;
  job.id = absl::StrFormat("%012x", number);
  job.spec = spec;
  job.request_id = absl::StrCat("request-", number);
  job.display_name = absl::StrCat("nightly distillation ", number);
  job.labels = {{"team", number % 10 == 0 ? "vision" : "audio"}, {"cluster", "preemptible"}};
  job.state = number % 50 == 0 ? JobState::kFailed : JobState::kSucceeded;
  if (job.state == JobState::kFailed) job.error = absl::ResourceExhaustedError("write state: No space left on device");
  job.create_time = job.start_time = job.update_time = time;
  job.end_time = time + absl::Hours(3);
  job.starts = 2;
  job.input_versions = {"fashion@7"};
  job.output_version = absl::StrCat("fashion-fast@", number + 1);
  job.progress = {.stage = JobStage::kPublishing,
                  .stage_index = 6,
                  .stage_count = 6,
                  .step = 1,
                  .total_steps = 1,
                  .fraction = 1,
                  .train_step = 20000};
  job.metrics = {.train_step = 20000,
                 .loss = 0.0123,
                 .gradient_norm = 0.4,
                 .learning_rate = 2e-4,
                 .held_out_loss = 0.0131,
                 .segment_held_out_loss = {0.01, 0.012, 0.014, 0.016},
                 .samples_per_second = 900};
  for (int steps : {2, 4, 6, 8}) {
    EvaluationRow row;
    row.version = job.output_version;
    row.steps = steps;
    row.schedule = "bellman";
    row.label = "straightened";
    job.result.evaluation.push_back(row);
  }
  return job;
}

std::vector<EventRecord> EventsOf(const Job& job) {
  std::vector<JobEventPayload> payloads = {
      StateChange{std::nullopt, JobState::kQueued, "submitted", {}},
      StateChange{JobState::kQueued, JobState::kRunning, "", {}}, StageChange{JobStage::kNone, JobStage::kPairs},
      JobMessage{Severity::kInfo, "the schedule of 4 steps costs 0.31, the uniform one 0.55"},
      StageChange{JobStage::kPairs, JobStage::kStraightening}};
  for (int i = 0; i < kMetricsEvents; ++i) payloads.push_back(job.metrics);
  payloads.push_back(JobPreview{20000, std::string(kPreviewBytes, 'p'), 4, 4});
  payloads.push_back(job.progress);
  payloads.push_back(StateChange{JobState::kRunning, job.state, "", job.error});
  std::vector<EventRecord> records;
  for (JobEventPayload& payload : payloads)
    records.push_back(EventToRecord({static_cast<int64_t>(records.size()) + 1, job.create_time, std::move(payload)}));
  return records;
}

struct Times {
  double median = 0, p99 = 0;
};

Times Measure(int warm_ups, int repetitions, const std::function<void()>& operation) {
  for (int i = 0; i < warm_ups; ++i) operation();
  std::vector<double> times;
  for (int i = 0; i < repetitions; ++i) {
    const auto start = std::chrono::steady_clock::now();
    operation();
    times.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(times.begin(), times.end());
  return {times[times.size() / 2], times[(times.size() - 1) * 99 / 100]};
}
void Print(const char* what, const Times& times, int repetitions) {
  std::printf("%-50s %10.3f %10.3f %8d\n", what, times.median, times.p99, repetitions);
  std::fflush(stdout);
}

struct Page {
  const char* name;
  int size;
  bool middle;
  const char* filter;
  JobFilter job_filter;
};
const Page kPages[] = {
    {"first page of 50", 50, false, "", {}},
    {"middle page of 50", 50, true, "", {}},
    {"page of 50, state = FAILED (2 %)", 50, false, "state = FAILED", {.states = {JobState::kFailed}}},
    {"page of 50, labels.team = \"vision\" (10 %)",
     50,
     false,
     "labels.team = \"vision\"",
     {.states = {}, .kinds = {}, .model = "", .labels = {{"team", "vision"}}}},
    {"page of 50, state = CANCELLED (none)", 50, false, "state = CANCELLED", {.states = {JobState::kCancelled}}},
    {"page of 1000", 1000, false, "", {}},
};

void Fill(const std::string& path, int jobs) {
  const auto journal = Must(SqliteJobJournal::Open(path));
  const absl::Time first = absl::Now() - absl::Hours(24);
  const Times times = Measure(0, jobs, [&, number = 0]() mutable {
    ++number;
    const Job job = FinishedJob(number, first + absl::Seconds(number));
    const std::vector<EventRecord> events = EventsOf(job);
    Must(journal->Insert({job.id, job.request_id, "hash", JobToJson(job), 0}, events).status());
  });
  Print("write one job with its 20 events", times, jobs);
}

void InProcess(const std::string& folder, int jobs) {
  const boss::RealClock clock;
  const auto store = Must(ModelStore::Open(folder, clock));
  boss::testing::PublishTinyModel(*store, "vectors", boss::testing::kTinyVectorArchitecture);
  JobManagerOptions options;
  options.data_folder = folder;
  options.max_unfinished = 1 << 20;
  BusyExecutor executor;
  std::unique_ptr<SqliteJobJournal> journal;
  std::unique_ptr<JobManager> manager;
  const auto stop = [&] {
    manager.reset();
    journal.reset();
  };
  const auto start = [&] {
    journal = Must(SqliteJobJournal::Open(folder + "/bossd.db"));
    manager = Must(JobManager::Start(options, *store, *journal, executor, clock, nullptr));
  };
  const Times started = Measure(1, kStarts, [&] {
    stop();  // nothing to do but to close the database
    start();
  });
  Print("open the journal and start JobManager", started, kStarts);

  for (const Page& page : kPages) {
    JobPageRequest request;
    request.filter = page.job_filter;
    request.page_size = page.size;
    if (page.middle) {
      request.page_size = std::min(1000, jobs);
      for (int skipped = 0; skipped < jobs / 2; skipped += request.page_size) {
        request.page_token = Must(manager->List(request)).next_page_token;
      }
      request.page_size = page.size;
    }
    const Times times = Measure(kWarmUps, kRepetitions, [&] { Must(manager->List(request).status()); });
    Print(absl::StrCat("List, ", page.name).c_str(), times, kRepetitions);
  }
  int number = 0;
  const auto next_id = [&] { return absl::StrFormat("%012x", number++ * 7919 % jobs + 1); };
  Print("Get", Measure(kWarmUps, kRepetitions, [&] { Must(manager->Get(next_id()).status()); }), kRepetitions);
  Print("Watch and read the 20 events",
        Measure(kWarmUps, kRepetitions,
                [&] {
                  const auto watch = Must(manager->Watch(next_id(), 1, [] {}));
                  Must(watch->Next(100).status());
                }),
        kRepetitions);
  SubmitOptions submit;
  Print("Submit",
        Measure(kWarmUps, kRepetitions,
                [&] {
                  OptimizeStepsizesSpec spec;
                  spec.model = "vectors";
                  submit.request_id = absl::StrCat("new-", ++number);
                  Must(manager->Submit(spec, submit).status());
                }),
        kRepetitions);
  Print("Submit again",
        Measure(kWarmUps, kRepetitions,
                [&] {
                  OptimizeStepsizesSpec spec;
                  spec.model = "vectors";
                  Must(manager->Submit(spec, submit).status());
                }),
        kRepetitions);
  for (const Job& job : Must(manager->List({.filter = {.states = {JobState::kQueued}}, .page_size = 1000})).jobs)
    Must(manager->Cancel(job.id).status());
  executor.Free();
  stop();
}

void OverGrpc(const std::string& folder, int jobs) {
  ServerConfig config;
  config.listen = "127.0.0.1:0";
  config.metrics_listen = "";
  config.data_folder = folder;
  config.threads = 1;
  std::unique_ptr<Server> server;
  Print("start of the whole server",
        Measure(1, kStarts,
                [&] {
                  server.reset();
                  server = Must(Server::Start(config));
                }),
        kStarts);
  const auto stub = boss::v1::Jobs::NewStub(
      grpc::CreateChannel(absl::StrCat("127.0.0.1:", server->port()), grpc::InsecureChannelCredentials()));
  const auto list = [&](const boss::v1::ListJobsRequest& request) {
    grpc::ClientContext context;
    boss::v1::ListJobsResponse response;
    Must(stub->ListJobs(&context, request, &response));
    return response.next_page_token();
  };
  for (const Page& page : kPages) {
    boss::v1::ListJobsRequest request;
    request.set_filter(page.filter);
    request.set_page_size(page.size);
    if (page.middle) {
      for (int skipped = 0; skipped < jobs / 2; skipped += page.size) request.set_page_token(list(request));
    }
    Print(absl::StrCat("ListJobs, ", page.name).c_str(), Measure(kWarmUps, kRepetitions, [&] { list(request); }),
          kRepetitions);
  }
  int number = 0;
  Print("GetJob",
        Measure(kWarmUps, kRepetitions,
                [&] {
                  grpc::ClientContext context;
                  boss::v1::GetJobRequest request;
                  request.set_name(absl::StrFormat("jobs/%012x", number++ * 7919 % jobs + 1));
                  boss::v1::Job job;
                  Must(stub->GetJob(&context, request, &job));
                }),
        kRepetitions);
}

}  // namespace

int main(int argc, char** argv) {
  const int jobs = argc > 1 ? std::atoi(argv[1]) : 10000;
  if (jobs < 1) {
    std::fprintf(stderr, "the number of jobs must be at least 1\n");
    return EXIT_FAILURE;
  }
  spdlog::set_level(spdlog::level::warn);
  const boss::testing::TempFolder folder;
  std::printf("%d finished jobs; milliseconds\n%-50s %10s %10s %8s\n", jobs, "", "median", "p99", "times");
  Fill(folder / "bossd.db", jobs);
  std::printf("%-50s %10.1f MiB\n", "database",
              static_cast<double>(std::filesystem::file_size(folder / "bossd.db")) / (1 << 20));
  InProcess(folder.path(), jobs);
  OverGrpc(folder.path(), jobs);
  return EXIT_SUCCESS;
}
