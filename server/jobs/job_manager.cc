#include "server/jobs/job_manager.h"

#include <algorithm>
#include <random>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/error_details.h"
#include "core/base/status_macros.h"
#include "server/jobs/job_context.h"
#include "server/jobs/submission.h"
#include "server/store/json_reader.h"
#include "server/store/sha256.h"

namespace boss::server {
namespace {

constexpr int kMaxPageSize = 1000;
constexpr absl::Duration kRetryDelay = absl::Seconds(10);

absl::Status UnknownJob(absl::string_view id) {
  return absl::NotFoundError(absl::StrCat("job ", id, " does not exist"));
}

bool Matches(const Job& job, const JobFilter& filter) {
  const auto among = [](const auto& values, auto value) {
    return values.empty() || std::find(values.begin(), values.end(), value) != values.end();
  };
  if (!among(filter.states, job.state) || !among(filter.kinds, job.kind())) return false;
  if (!filter.model.empty()) {
    const auto is_of_model = [&](const std::string& version) {
      return version.substr(0, version.find('@')) == filter.model;
    };
    if (!std::any_of(job.input_versions.begin(), job.input_versions.end(), is_of_model) &&
        !is_of_model(job.output_version) && OutputModel(job.spec) != filter.model) {
      return false;
    }
  }
  return std::all_of(filter.labels.begin(), filter.labels.end(), [&](const auto& label) {
    const auto found = job.labels.find(label.first);
    return found != job.labels.end() && found->second == label.second;
  });
}

// What a page token is bound to.
std::string RequestDigest(const JobPageRequest& request) {
  Json json = {
      {"oldest_first", request.oldest_first}, {"model", request.filter.model}, {"labels", request.filter.labels}};
  for (JobState state : request.filter.states) json["states"].push_back(JobStateName(state));
  for (JobKind kind : request.filter.kinds) json["kinds"].push_back(JobKindName(kind));
  return Sha256Hex(DumpJson(json)).substr(0, 16);
}

}  // namespace

JobManager::JobManager(JobManagerOptions options, ModelStore& store, JobJournal& journal, StepExecutor& executor,
                       const Clock& clock, JobStateListener listener)
    : options_(std::move(options)),
      store_(store),
      journal_(journal),
      executor_(executor),
      clock_(clock),
      listener_(listener != nullptr ? std::move(listener) : [](JobKind, std::optional<JobState>, JobState) {}) {
  absl::MutexLock lock(&mutex_);
  id_state_ =
      options_.id_seed != 0 ? options_.id_seed : (uint64_t{std::random_device()()} << 32 | std::random_device()());
}

absl::StatusOr<std::unique_ptr<JobManager>> JobManager::Start(JobManagerOptions options, ModelStore& store,
                                                              JobJournal& journal, StepExecutor& executor,
                                                              const Clock& clock, JobStateListener listener) {
  std::unique_ptr<JobManager> manager(
      new JobManager(std::move(options), store, journal, executor, clock, std::move(listener)));
  BOSS_RETURN_IF_ERROR(manager->Recover());
  absl::MutexLock lock(&manager->join_mutex_);
  manager->runner_ = std::thread([raw = manager.get()] { raw->RunnerLoop(); });
  return manager;
}

JobManager::~JobManager() { Shutdown(); }

void JobManager::Shutdown() {
  {
    absl::MutexLock lock(&mutex_);
    shutdown_ = true;
    wake_.SignalAll();
  }
  absl::MutexLock lock(&join_mutex_);
  if (runner_.joinable()) runner_.join();
}

absl::Status JobManager::Recover() {
  BOSS_RETURN_IF_ERROR(options_.files->CreateFolders(absl::StrCat(options_.data_folder, "/jobs")));
  BOSS_ASSIGN_OR_RETURN(const std::vector<JobRecord> records, journal_.LoadAll());
  absl::MutexLock lock(&mutex_);
  for (const JobRecord& record : records) {
    absl::StatusOr<Job> job = JobFromJson(record.document);
    if (!job.ok())
      return absl::DataLossError(absl::StrCat("job ", record.id, " in the journal: ", job.status().message()));
    BOSS_ASSIGN_OR_RETURN(job->last_sequence, journal_.LastSequence(record.id));
    Entry& entry = jobs_[record.id];
    entry.job = *std::move(job);
    entry.request_hash = record.request_hash;
    entry.order = next_order_++;
    listener_(entry.job.kind(), std::nullopt, entry.job.state);
    if (IsActive(entry.job.state)) {
      BOSS_RETURN_IF_ERROR(Transition(entry, JobAction::kInterrupt, "the server had stopped", absl::OkStatus()));
    }
  }
  // A deletion that was interrupted may have left a folder.
  BOSS_ASSIGN_OR_RETURN(const std::vector<std::string> folders,
                        options_.files->ListFolder(absl::StrCat(options_.data_folder, "/jobs")));
  for (const std::string& folder : folders) {
    if (!jobs_.contains(folder)) BOSS_RETURN_IF_ERROR(options_.files->RemoveAll(JobFolder(folder)));
  }
  return absl::OkStatus();
}

std::string JobManager::JobFolder(absl::string_view id) const {
  return absl::StrCat(options_.data_folder, "/jobs/", id);
}

std::string JobManager::NewId() {
  while (true) {
    // SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
    id_state_ += 0x9e3779b97f4a7c15;
    uint64_t z = id_state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    std::string id = absl::StrFormat("%012x", (z ^ (z >> 31)) >> 16);
    if (!jobs_.contains(id)) return id;
  }
}

absl::StatusOr<JobManager::Entry*> JobManager::Find(absl::string_view id) {
  const auto found = jobs_.find(id);
  if (found == jobs_.end()) return UnknownJob(id);
  return &found->second;
}

absl::StatusOr<std::optional<Job>> JobManager::FindRequest(const std::string& request_id, const std::string& hash) {
  if (request_id.empty()) return std::nullopt;
  for (const auto& [id, entry] : jobs_) {
    if (entry.job.request_id != request_id) continue;
    if (entry.request_hash == hash) return entry.job;
    return absl::AlreadyExistsError(absl::StrCat("request_id \"", request_id, "\" belongs to job ", id,
                                                 ", which was submitted with another request"));
  }
  return std::nullopt;
}

absl::StatusOr<Job> JobManager::Submit(JobSpec spec, const SubmitOptions& options) {
  BOSS_RETURN_IF_ERROR(ValidateSpec(spec));
  BOSS_RETURN_IF_ERROR(ValidateSubmitOptions(options, clock_.Now()));
  const std::string hash = RequestHash(spec, options);
  {
    absl::MutexLock lock(&mutex_);
    if (shutdown_) return absl::UnavailableError("the server stops and accepts no jobs");
    BOSS_ASSIGN_OR_RETURN(std::optional<Job> earlier, FindRequest(options.request_id, hash));
    if (earlier) return *std::move(earlier);
  }
  Job job;
  job.spec = std::move(spec);
  job.request_id = options.request_id;
  job.display_name = options.display_name;
  job.labels = options.labels;
  job.priority = options.priority;
  job.deadline = options.deadline;
  job.create_time = job.update_time = clock_.Now();
  BOSS_RETURN_IF_ERROR(ResolveInputs(store_, options_, job));
  if (options.validate_only) return job;

  absl::MutexLock lock(&mutex_);
  if (shutdown_) return absl::UnavailableError("the server stops and accepts no jobs");
  // The same request may have arrived twice at once; it must not be refused for a queue that it filled itself.
  BOSS_ASSIGN_OR_RETURN(std::optional<Job> earlier, FindRequest(options.request_id, hash));
  if (earlier) return *std::move(earlier);
  const auto unfinished =
      std::count_if(jobs_.begin(), jobs_.end(), [](const auto& item) { return !IsFinal(item.second.job.state); });
  if (unfinished >= options_.max_unfinished) {
    return WithRetryDelay(absl::ResourceExhaustedError(absl::StrFormat("%d jobs are not finished, the limit is %d",
                                                                       unfinished, options_.max_unfinished)),
                          kRetryDelay);
  }
  job.id = NewId();
  job.last_sequence = 1;
  const JobEvent event{1, job.create_time, StateChange{std::nullopt, JobState::kQueued, "submitted", absl::OkStatus()}};
  const EventRecord record = EventToRecord(event);
  BOSS_RETURN_IF_ERROR(journal_.Insert({job.id, job.request_id, hash, JobToJson(job)}, {&record, 1}).status());
  Entry& entry = jobs_[job.id];
  entry = {job, hash, next_order_++};
  listener_(job.kind(), std::nullopt, job.state);
  wake_.SignalAll();
  return job;
}

absl::StatusOr<Job> JobManager::Get(absl::string_view id) const {
  absl::MutexLock lock(&mutex_);
  const auto found = jobs_.find(id);
  if (found == jobs_.end()) return UnknownJob(id);
  return found->second.job;
}

absl::StatusOr<JobPage> JobManager::List(const JobPageRequest& request) const {
  if (request.page_size < 1 || request.page_size > kMaxPageSize) {
    return FieldError("page_size", absl::StrFormat("expected 1 to %d, got %d", kMaxPageSize, request.page_size));
  }
  const std::string digest = RequestDigest(request);
  std::optional<int64_t> after;
  if (!request.page_token.empty()) {
    const size_t dot = request.page_token.find('.');
    int64_t order = 0;
    if (dot == std::string::npos || request.page_token.substr(dot + 1) != digest ||
        !absl::SimpleAtoi(request.page_token.substr(0, dot), &order)) {
      return FieldError("page_token", "is not that of a page of the same request");
    }
    after = order;
  }
  absl::MutexLock lock(&mutex_);
  std::vector<const Entry*> entries;
  for (const auto& [id, entry] : jobs_) {
    const bool follows = !after || (request.oldest_first ? entry.order > *after : entry.order < *after);
    if (follows && Matches(entry.job, request.filter)) entries.push_back(&entry);
  }
  std::sort(entries.begin(), entries.end(), [&](const Entry* a, const Entry* b) {
    return request.oldest_first ? a->order < b->order : a->order > b->order;
  });
  JobPage page;
  const size_t count = std::min<size_t>(entries.size(), request.page_size);
  for (size_t i = 0; i < count; ++i) page.jobs.push_back(entries[i]->job);
  if (count < entries.size()) page.next_page_token = absl::StrCat(entries[count - 1]->order, ".", digest);
  return page;
}

absl::StatusOr<Job> JobManager::Cancel(absl::string_view id) {
  absl::MutexLock lock(&mutex_);
  BOSS_ASSIGN_OR_RETURN(Entry * entry, Find(id));
  if (entry->job.state != JobState::kCancelling && entry->job.state != JobState::kCancelled) {
    BOSS_RETURN_IF_ERROR(Transition(*entry, JobAction::kCancel, "cancelled by a client", absl::OkStatus()));
  }
  return entry->job;
}

absl::StatusOr<Job> JobManager::Pause(absl::string_view id) {
  absl::MutexLock lock(&mutex_);
  BOSS_ASSIGN_OR_RETURN(Entry * entry, Find(id));
  if (entry->job.state != JobState::kPausing && entry->job.state != JobState::kPaused) {
    BOSS_RETURN_IF_ERROR(Transition(*entry, JobAction::kPause, "paused by a client", absl::OkStatus()));
  }
  return entry->job;
}

absl::StatusOr<Job> JobManager::Resume(absl::string_view id) {
  absl::MutexLock lock(&mutex_);
  BOSS_ASSIGN_OR_RETURN(Entry * entry, Find(id));
  if (entry->job.state != JobState::kQueued && entry->job.state != JobState::kRunning) {
    BOSS_RETURN_IF_ERROR(Transition(*entry, JobAction::kResume, "resumed by a client", absl::OkStatus()));
    wake_.SignalAll();
  }
  return entry->job;
}

absl::Status JobManager::Delete(absl::string_view id) {
  absl::MutexLock lock(&mutex_);
  BOSS_ASSIGN_OR_RETURN(const Entry* entry, Find(id));
  if (!IsFinal(entry->job.state)) {
    return absl::FailedPreconditionError(
        absl::StrCat("job ", id, " is ", JobStateName(entry->job.state), ": cancel it first"));
  }
  BOSS_RETURN_IF_ERROR(journal_.Delete(id));
  const std::string key(id);
  jobs_.erase(key);
  Notify(key);
  return options_.files->RemoveAll(JobFolder(key));
}

}  // namespace boss::server
