#include "server/jobs/job_manager.h"

#include <algorithm>
#include <iterator>
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
#include "server/log/log.h"
#include "server/store/json_reader.h"
#include "server/store/sha256.h"
#include "server/store/store_files.h"

namespace boss::server {
namespace {

constexpr int kMaxPageSize = 1000;
constexpr absl::Duration kRetryDelay = absl::Seconds(10);

// Keeps a version, "name@version", from being deleted while a job may read it.
absl::StatusOr<VersionUse> UseVersion(ModelStore& store, const std::string& version, absl::string_view job_id) {
  BOSS_ASSIGN_OR_RETURN(const VersionKey key, store.Resolve(version));
  return store.Use(key, absl::StrCat("job ", job_id));
}

absl::Status UnknownJob(absl::string_view id) {
  return absl::NotFoundError(absl::StrCat("job ", id, " does not exist"));
}

// Whether a job may still need its folder: a failed one keeps its last good training state.
bool KeepsData(JobState state) { return !IsFinal(state) || state == JobState::kFailed; }

bool Matches(const Job& job, const JobFilter& filter) {
  const auto among = [](const auto& values, auto value) {
    return values.empty() || std::find(values.begin(), values.end(), value) != values.end();
  };
  if (!among(filter.states, job.state) || !among(filter.kinds, job.kind())) return false;
  if (!filter.owner.empty() && job.owner != filter.owner) return false;
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

// The journal knows no owners and keeps one job for each request_id. An id by itself is shorter than a hash.
std::string JournalRequestId(const Job& job) {
  if (job.owner.empty() || job.request_id.empty()) return job.request_id;
  return absl::StrCat(Sha256Hex(job.owner), "/", job.request_id);
}

// What a page token is bound to.
std::string RequestDigest(const JobPageRequest& request) {
  Json json = {
      {"oldest_first", request.oldest_first}, {"model", request.filter.model}, {"labels", request.filter.labels}};
  if (!request.filter.owner.empty()) json["owner"] = request.filter.owner;
  if (request.viewer) json["viewer"] = *request.viewer;
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
  manager->RemoveFolders();
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
  const std::string folder = absl::StrCat(options_.data_folder, "/jobs");
  BOSS_RETURN_IF_ERROR(options_.files->CreateFolders(folder));
  BOSS_ASSIGN_OR_RETURN(const std::vector<JobRecord> records, journal_.LoadAll());
  absl::MutexLock lock(&mutex_);
  for (const JobRecord& record : records) {
    absl::StatusOr<Job> job = JobFromJson(record.document);
    if (!job.ok()) {
      unreadable_[record.id] =
          absl::DataLossError(absl::StrCat("job ", record.id, " in the journal: ", job.status().message()));
      LogError("a job in the journal cannot be read", {{"job", record.id}, {"error", job.status()}});
      continue;
    }
    job->last_sequence = record.last_sequence;
    Entry& entry = AddEntry(*std::move(job), record.request_hash);
    listener_(entry.job.kind(), std::nullopt, entry.job.state);
    if (IsActive(entry.job.state)) BOSS_RETURN_IF_ERROR(RecoverCrashed(entry));
    if (IsFinal(entry.job.state)) continue;
    for (const std::string& input : entry.job.input_versions) {
      // The job of a version that was deleted by force fails when it runs.
      absl::StatusOr<VersionUse> use = UseVersion(store_, input, entry.job.id);
      if (use.ok()) entry.inputs.push_back(*std::move(use));
    }
  }
  // The end of a job or its deletion may have been interrupted before its folder was removed.
  BOSS_ASSIGN_OR_RETURN(const std::vector<std::string> names, options_.files->ListFolder(folder));
  for (const std::string& name : names) {
    const auto found = jobs_.find(name);
    const bool needed = found != jobs_.end() ? KeepsData(found->second.job.state) : unreadable_.contains(name);
    if (!needed) BOSS_RETURN_IF_ERROR(options_.files->RemoveAll(JobFolder(name)));
  }
  DeleteExpired(clock_.Now());
  return absl::OkStatus();
}

JobManager::Entry& JobManager::AddEntry(Job job, std::string request_hash) {
  Entry& entry = jobs_[job.id];
  entry.job = std::move(job);
  entry.request_hash = std::move(request_hash);
  entry.order = next_order_++;
  by_order_[entry.order] = &entry;
  if (!entry.job.request_id.empty()) by_request_[{entry.job.owner, entry.job.request_id}] = &entry;
  if (IsFinal(entry.job.state)) {
    ScheduleExpiry(entry.job);
  } else {
    unfinished_[entry.order] = &entry;
  }
  return entry;
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
    if (!jobs_.contains(id) && !unreadable_.contains(id)) return id;
  }
}

absl::StatusOr<JobManager::Entry*> JobManager::Find(absl::string_view id) {
  const auto found = jobs_.find(id);
  if (found == jobs_.end()) return Missing(id);
  return &found->second;
}

absl::Status JobManager::Missing(absl::string_view id) const {
  const auto unreadable = unreadable_.find(id);
  return unreadable != unreadable_.end() ? unreadable->second : UnknownJob(id);
}

absl::StatusOr<std::optional<Job>> JobManager::FindRequest(const SubmitOptions& options, const std::string& hash) {
  const auto found = by_request_.find({options.owner, options.request_id});
  if (found == by_request_.end()) return std::nullopt;
  const Entry& entry = *found->second;
  if (entry.request_hash == hash) return Shown(entry);
  return absl::AlreadyExistsError(absl::StrCat("request_id \"", options.request_id, "\" belongs to job ", entry.job.id,
                                               ", which was submitted with another request"));
}

Job JobManager::Shown(const Entry& entry) const {
  Job job = entry.job;
  if (job.state == JobState::kQueued && !hold_reason_.empty()) job.state_reason = hold_reason_;
  return job;
}

absl::StatusOr<Job> JobManager::Submit(JobSpec spec, const SubmitOptions& options) {
  BOSS_RETURN_IF_ERROR(ValidateSpec(spec));
  BOSS_RETURN_IF_ERROR(ValidateSubmitOptions(options, options_.retention, clock_.Now()));
  const std::string hash = RequestHash(spec, options);
  {
    absl::MutexLock lock(&mutex_);
    if (shutdown_) return absl::UnavailableError("the server stops and accepts no jobs");
    BOSS_ASSIGN_OR_RETURN(std::optional<Job> earlier, FindRequest(options, hash));
    if (earlier) return *std::move(earlier);
  }
  Job job;
  job.spec = std::move(spec);
  job.owner = options.owner;
  job.request_id = options.request_id;
  job.call = options.call;
  job.display_name = options.display_name;
  job.labels = options.labels;
  job.priority = options.priority;
  job.deadline = options.deadline;
  job.retention = options.retention.value_or(options_.retention);
  job.max_crashes = options.max_crashes;
  job.create_time = job.update_time = clock_.Now();
  BOSS_RETURN_IF_ERROR(ResolveInputs(store_, options_, job));
  if (options.validate_only) return job;

  absl::MutexLock lock(&mutex_);
  if (shutdown_) return absl::UnavailableError("the server stops and accepts no jobs");
  // The same request may have arrived twice at once; it must not be refused for a queue that it filled itself.
  BOSS_ASSIGN_OR_RETURN(std::optional<Job> earlier, FindRequest(options, hash));
  if (earlier) return *std::move(earlier);
  const auto unfinished = static_cast<int>(unfinished_.size());
  if (unfinished >= options_.max_unfinished) {
    return WithRetryDelay(absl::ResourceExhaustedError(absl::StrFormat("%d jobs are not finished, the limit is %d",
                                                                       unfinished, options_.max_unfinished)),
                          kRetryDelay);
  }
  const auto of_owner = std::count_if(unfinished_.begin(), unfinished_.end(), [&](const auto& numbered) {
    return numbered.second->job.owner == options.owner;
  });
  if (options.max_unfinished_of_owner > 0 && of_owner >= options.max_unfinished_of_owner) {
    return WithReason(
        absl::ResourceExhaustedError(absl::StrFormat("%d jobs of %s are not finished, the limit is %d", of_owner,
                                                     options.owner, options.max_unfinished_of_owner)),
        kJobQuotaReason);
  }
  job.id = NewId();
  job.last_sequence = 1;
  std::vector<VersionUse> inputs;
  for (const std::string& input : job.input_versions) {
    BOSS_ASSIGN_OR_RETURN(inputs.emplace_back(), UseVersion(store_, input, job.id));
  }
  const JobEvent event{1, job.create_time, StateChange{std::nullopt, JobState::kQueued, "submitted", absl::OkStatus()}};
  const EventRecord record = EventToRecord(event);
  BOSS_ASSIGN_OR_RETURN(const JobJournal::InsertOutcome outcome,
                        journal_.Insert({job.id, JournalRequestId(job), hash, JobToJson(job)}, {&record, 1}));
  if (!outcome.inserted) return Missing(outcome.id);  // a job that cannot be read has the request_id
  Entry& entry = AddEntry(std::move(job), hash);
  entry.inputs = std::move(inputs);
  LogInfo("job submitted",
          {{"job", entry.job.id},
           {"kind", JobKindName(entry.job.kind())},
           {"owner", entry.job.owner},
           {"client_request_id", entry.job.request_id}},
          entry.job.call);
  listener_(entry.job.kind(), std::nullopt, entry.job.state);
  wake_.SignalAll();
  return Shown(entry);
}

absl::StatusOr<Job> JobManager::Get(absl::string_view id) const {
  absl::MutexLock lock(&mutex_);
  const auto found = jobs_.find(id);
  if (found == jobs_.end()) return Missing(id);
  return Shown(found->second);
}

absl::Status JobManager::CheckOwner(absl::string_view id, absl::string_view owner) const {
  absl::MutexLock lock(&mutex_);
  const auto found = jobs_.find(id);
  return found == jobs_.end() || found->second.job.owner != owner ? UnknownJob(id) : absl::OkStatus();
}

int64_t JobManager::StoredBytes(absl::string_view id) const {
  {
    absl::MutexLock lock(&mutex_);
    if (jobs_.find(id) == jobs_.end()) return 0;
  }
  return FolderSize(*options_.files, JobFolder(id));
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
  JobPage page;
  const Entry* last = nullptr;
  // Returns whether the page has room for more.
  const auto take = [&](const Entry& entry) {
    if (request.viewer && entry.job.owner != *request.viewer) return true;
    if (!Matches(entry.job, request.filter)) return true;
    if (static_cast<int>(page.jobs.size()) == request.page_size) {
      page.next_page_token = absl::StrCat(last->order, ".", digest);
      return false;
    }
    page.jobs.push_back(Shown(entry));
    last = &entry;
    return true;
  };
  if (request.oldest_first) {
    auto it = after ? by_order_.upper_bound(*after) : by_order_.begin();
    while (it != by_order_.end() && take(*it->second)) ++it;
  } else {
    auto it = std::make_reverse_iterator(after ? by_order_.lower_bound(*after) : by_order_.end());
    while (it != by_order_.rend() && take(*it->second)) ++it;
  }
  return page;
}

absl::StatusOr<Job> JobManager::Cancel(absl::string_view id) {
  Job job;
  {
    absl::MutexLock lock(&mutex_);
    BOSS_ASSIGN_OR_RETURN(Entry * entry, Find(id));
    if (entry->job.state != JobState::kCancelling && entry->job.state != JobState::kCancelled) {
      BOSS_RETURN_IF_ERROR(Transition(*entry, JobAction::kCancel, "cancelled by a client", absl::OkStatus()));
    }
    job = Shown(*entry);
  }
  RemoveFolders();
  return job;
}

absl::StatusOr<Job> JobManager::Pause(absl::string_view id) {
  absl::MutexLock lock(&mutex_);
  BOSS_ASSIGN_OR_RETURN(Entry * entry, Find(id));
  if (entry->job.state != JobState::kPausing && entry->job.state != JobState::kPaused) {
    BOSS_RETURN_IF_ERROR(Transition(*entry, JobAction::kPause, "paused by a client", absl::OkStatus()));
  }
  return Shown(*entry);
}

absl::StatusOr<Job> JobManager::Resume(absl::string_view id) {
  absl::MutexLock lock(&mutex_);
  BOSS_ASSIGN_OR_RETURN(Entry * entry, Find(id));
  if (entry->job.state != JobState::kQueued && entry->job.state != JobState::kRunning) {
    BOSS_RETURN_IF_ERROR(Transition(*entry, JobAction::kResume, "resumed by a client", absl::OkStatus()));
    wake_.SignalAll();
  }
  return Shown(*entry);
}

absl::Status JobManager::Delete(absl::string_view id) {
  {
    absl::MutexLock lock(&mutex_);
    if (const auto unreadable = unreadable_.find(id); unreadable != unreadable_.end()) {
      BOSS_RETURN_IF_ERROR(journal_.Delete(id));
      unreadable_.erase(unreadable);
      unneeded_folders_.push_back(JobFolder(id));
    } else {
      BOSS_ASSIGN_OR_RETURN(const Entry* entry, Find(id));
      if (!IsFinal(entry->job.state)) {
        return absl::FailedPreconditionError(
            absl::StrCat("job ", id, " is ", JobStateName(entry->job.state), ": cancel it first"));
      }
      BOSS_RETURN_IF_ERROR(DeleteEntry(std::string(id)));
    }
  }
  RemoveFolders();
  return absl::OkStatus();
}

}  // namespace boss::server
