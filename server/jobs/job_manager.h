// Accepts jobs, runs them one after another in the background, and tells what becomes of them.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "core/base/clock.h"
#include "core/base/step_executor.h"
#include "core/io/file_system.h"
#include "server/jobs/job.h"
#include "server/metrics/metrics.h"
#include "server/store/job_journal.h"
#include "server/store/model_store.h"

namespace boss::server {

class JobContext;
enum class StopReason;  // job_context.h

// Of the error for a job too many of its owner's.
inline constexpr char kJobQuotaReason[] = "JOB_QUOTA";

struct SubmitOptions {
  std::string owner;                // empty: nobody that the server knows
  int max_unfinished_of_owner = 0;  // 0: no limit
  std::string request_id;           // of the owner's requests; empty: none
  CallId call;                      // for the log
  bool validate_only = false;  // check everything, return the job that would be, and keep nothing; its id is empty
  absl::Time deadline = absl::InfiniteFuture();
  std::string display_name;
  std::map<std::string, std::string> labels;  // at most 64; keys and values up to 63 bytes, keys not empty
  int priority = 0;                           // -100 .. 100
  // How long the finished job is kept; absent: as JobManagerOptions says, which is the most.
  std::optional<absl::Duration> retention;
  // How often the server may end while the job runs, in a row without progress of the job, before the job fails.
  int max_crashes = 3;
};

struct JobFilter {
  std::vector<JobState> states;               // any of; empty: all
  std::vector<JobKind> kinds;                 // any of; empty: all
  std::string model;                          // a model's name, among its inputs or its output; empty: all
  std::string owner;                          // empty: all
  std::map<std::string, std::string> labels;  // all of
};

struct JobPageRequest {
  JobFilter filter;
  std::optional<std::string> viewer;  // who sees his own jobs alone; absent: sees all
  bool oldest_first = false;  // by create time
  int page_size = 50;         // 1 .. 1000
  std::string page_token;     // of the page before; empty: the first page
};

struct JobPage {
  std::vector<Job> jobs;
  std::string next_page_token;  // empty: the last page
};

struct JobManagerOptions {
  std::string data_folder;  // training states go to <data_folder>/jobs/<id>/
  int max_unfinished = 64;  // jobs that are queued, running or paused; one more is RESOURCE_EXHAUSTED
  uint64_t id_seed = 0;     // of job ids; 0: drawn from the system
  // Folders from which jobs may read data sets; other paths are PERMISSION_DENIED. Data sets without a path are always
  // allowed.
  std::vector<std::string> dataset_folders;
  // TorchScript feature networks that the operator offers: path by name.
  std::map<std::string, std::string> feature_networks;
  c10::Device device = c10::Device(c10::kCPU);               // where models are trained and evaluated
  const FileSystem* files = &PosixFileSystem();              // not null; outlives the manager
  absl::Duration retention = absl::InfiniteDuration();       // how long finished jobs are kept
  absl::Duration data_retention = absl::InfiniteDuration();  // how long the training states of failed jobs are kept
  absl::Duration checkpoint_period = absl::Seconds(60);  // between saved training states, beside checkpoint_interval
  absl::Duration crash_backoff = absl::Seconds(1);  // before a job runs again after a crash; doubled with each in a row
  int64_t max_weights = int64_t{1} << 30;           // of a network that a job makes
  int64_t max_data_bytes = int64_t{16} << 30;       // of one job's pairs, or states for multistep fits, on the disk
  int64_t min_free_bytes = 0;                       // of the disk; below it no job is started
  JobRunMetrics metrics;
};

// Called after every change of state; `from` is absent for a new job, also for each job found at the start. From any
// thread, with the manager's lock held: it must return at once and must not call the manager. For metrics.
using JobStateListener = std::function<void(JobKind kind, std::optional<JobState> from, JobState to)>;

class JobManager;

// One client's view of a job's events. Not thread-safe, but it may be used from another thread than `notify` is called
// on.
class JobWatch {
 public:
  ~JobWatch();  // `notify` does not run any more after it
  JobWatch(const JobWatch&) = delete;
  JobWatch& operator=(const JobWatch&) = delete;

  struct Batch {
    std::vector<JobEvent>
        events;        // those that follow what was returned before, in order, without gaps or repeats; may be empty
    bool end = false;  // the job is final and these were its last events
  };
  // At most `limit` events. Returns at once. After a call that returned no event and no end, `notify` is called when
  // there is one. \error NOT_FOUND once the job has been deleted.
  absl::StatusOr<Batch> Next(int64_t limit);

 private:
  friend class JobManager;
  JobWatch(JobManager& manager, std::string job_id, int64_t next_sequence, int64_t observer)
      : manager_(manager), job_id_(std::move(job_id)), next_sequence_(next_sequence), observer_(observer) {}

  JobManager& manager_;
  const std::string job_id_;
  int64_t next_sequence_;
  const int64_t observer_;
};

// Thread-safe. One runner thread; every unit of device work goes through the executor.
//
// Durability: a job is on the disk before Submit returns; what becomes of it is on the disk before anybody sees it.
//
// Crashes: a job that ran when the server ended is queued again and goes on from what it had saved. It waits
// crash_backoff, doubled with each crash in a row without progress in between, at most 5 minutes; after max_crashes of
// them it fails.
//
// Versions that an unfinished job reads are in use (ModelStore::Use).
//
// Lifetime: `store`, `journal`, `executor` and `clock` outlive the manager; watches do not.
//
// Methods that take a job id: \error NOT_FOUND.
class JobManager {
 public:
  // Reads the journal; deletes what has outlived its retention. Starts the runner. A job that cannot be read is set
  // aside: its record and its folder stay until it is deleted, methods that take its id answer with DATA_LOSS, and it
  // is in no list.
  static absl::StatusOr<std::unique_ptr<JobManager>> Start(JobManagerOptions options, ModelStore& store,
                                                           JobJournal& journal, StepExecutor& executor,
                                                           const Clock& clock, JobStateListener listener);
  // As Shutdown.
  ~JobManager();

  // \error INVALID_ARGUMENT naming the field; NOT_FOUND for an unknown version or data set; PERMISSION_DENIED for a
  // data set's path; ALREADY_EXISTS for a request_id that the owner used for another request; RESOURCE_EXHAUSTED if
  // max_unfinished jobs wait, with kJobQuotaReason if max_unfinished_of_owner do; UNAVAILABLE after Shutdown.
  absl::StatusOr<Job> Submit(JobSpec spec, const SubmitOptions& options);

  absl::StatusOr<Job> Get(absl::string_view id) const;
  // \error NOT_FOUND also for a job of somebody else, with the same words.
  absl::Status CheckOwner(absl::string_view id, absl::string_view owner) const;
  // Bytes of the job's intermediate data on the disk; 0 for an unknown job.
  int64_t StoredBytes(absl::string_view id) const;
  // \error INVALID_ARGUMENT for a page token of another request, or a page size out of range.
  absl::StatusOr<JobPage> List(const JobPageRequest& request) const;

  // The running job ends before its next unit of device work and is CANCELLING until then. A cancelled job stays as it
  // is. \error FAILED_PRECONDITION if it succeeded or failed.
  absl::StatusOr<Job> Cancel(absl::string_view id);
  // Likewise PAUSING; its training state is saved first. A paused job stays as it is. \error FAILED_PRECONDITION if it
  // is final or CANCELLING.
  absl::StatusOr<Job> Pause(absl::string_view id);
  // A queued or running job stays as it is; a pause that has not taken effect yet is taken back. \error
  // FAILED_PRECONDITION if it is final or CANCELLING.
  absl::StatusOr<Job> Resume(absl::string_view id);
  // With its events and training states; what it published stays. \error FAILED_PRECONDITION if it is not final.
  absl::Status Delete(absl::string_view id);

  // Events from `from_sequence` (1 or less: from the first), those to come included; OUT_OF_RANGE if it is beyond the
  // next event's. `notify` is called from any thread; it must return at once and must not call the manager or destroy
  // the watch: it wakes whoever calls Next.
  absl::StatusOr<std::unique_ptr<JobWatch>> Watch(absl::string_view id, int64_t from_sequence,
                                                  std::function<void()> notify);

  // Stops accepting, saves the running job's training state, puts it back to QUEUED and ends the runner. Watches end
  // only with their jobs. Idempotent.
  void Shutdown();

 private:
  friend class JobWatch;
  friend class JobContext;

  struct Entry {
    Job job;
    std::string request_hash;
    int64_t order = 0;               // of submission
    std::vector<VersionUse> inputs;  // of a job that has not finished
  };
  struct Observer {
    std::string job_id;
    std::function<void()> notify;
  };

  JobManager(JobManagerOptions options, ModelStore& store, JobJournal& journal, StepExecutor& executor,
             const Clock& clock, JobStateListener listener);

  // job_manager.cc
  absl::Status Recover() ABSL_LOCKS_EXCLUDED(mutex_);
  std::string NewId() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<Entry*> Find(absl::string_view id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Why there is no job of that id in jobs_: DATA_LOSS or NOT_FOUND.
  absl::Status Missing(absl::string_view id) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Adds a job to the maps.
  Entry& AddEntry(Job job, std::string request_hash) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The job as clients see it, with what holds for all waiting jobs.
  Job Shown(const Entry& entry) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The job of that request_id, if there is one. \error ALREADY_EXISTS if it was another request.
  absl::StatusOr<std::optional<Job>> FindRequest(const SubmitOptions& options, const std::string& hash)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::string JobFolder(absl::string_view id) const;

  // job_runner.cc
  void RunnerLoop() ABSL_LOCKS_EXCLUDED(mutex_);
  // The queued job to run next, or nullptr.
  Entry* NextQueued() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // job_upkeep.cc
  // A job that ran when the server ended.
  absl::Status RecoverCrashed(Entry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // How long a job waits after so many crashes in a row, at least one.
  absl::Duration CrashBackoff(int crashes) const;
  // What time brings about. What the journal does not take is tried again by the next call.
  void Upkeep() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Jobs that wait beyond their deadline fail.
  void ExpireWaiting(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Jobs and data that have outlived their retention go.
  void DeleteExpired(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether the disk has room for another job; tells those that wait if it has not.
  bool HasRoom() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // From the journal and the maps.
  absl::Status DeleteEntry(const std::string& id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Enters a final job into the expiry lists.
  void ScheduleExpiry(const Job& job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Removes the folders that nobody needs any more, and waits for who does so already; what cannot be removed now is
  // tried again by the next call, or by the next start. Not under the lock: large ones take long.
  void RemoveFolders() ABSL_LOCKS_EXCLUDED(mutex_, removal_mutex_);
  // What becomes of a job whose run ended with that status.
  void FinishRun(const JobContext& context, const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_);
  // What the running job is asked to do.
  StopReason RequestedStop(const std::string& id) ABSL_LOCKS_EXCLUDED(mutex_);

  // The one way to another state: checks NextState, writes state and event to the journal, then changes the job and
  // tells observers and listener. \error FAILED_PRECONDITION if the state does not allow `action`; what the journal
  // reports; then nothing has changed.
  absl::Status Transition(Entry& entry, JobAction action, std::string reason, absl::Status error)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Applies `change` to the job and adds events, in the journal first. \error what the journal reports; then nothing
  // has changed.
  absl::Status Record(const std::string& id, absl::FunctionRef<void(Job&)> change,
                      std::vector<JobEventPayload> payloads) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status RecordLocked(Entry& entry, Job changed, std::vector<JobEventPayload> payloads)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Notify(const std::string& id) ABSL_LOCKS_EXCLUDED(observer_mutex_);

  const JobManagerOptions options_;
  ModelStore& store_;
  JobJournal& journal_;
  StepExecutor& executor_;
  const Clock& clock_;
  const JobStateListener listener_;

  mutable absl::Mutex mutex_;
  absl::CondVar wake_;  // of the runner: a job was queued, or shutdown_
  std::map<std::string, Entry, std::less<>> jobs_ ABSL_GUARDED_BY(mutex_);
  // Of the journal's jobs, those that cannot be read, and why.
  std::map<std::string, absl::Status, std::less<>> unreadable_ ABSL_GUARDED_BY(mutex_);
  // Of jobs_: by order of submission; those that are not final; by owner and request_id.
  std::map<int64_t, Entry*> by_order_ ABSL_GUARDED_BY(mutex_);
  std::map<int64_t, Entry*> unfinished_ ABSL_GUARDED_BY(mutex_);
  std::map<std::pair<std::string, std::string>, Entry*> by_request_ ABSL_GUARDED_BY(mutex_);
  // When final jobs, and the data of failed ones, are due for deletion.
  std::set<std::pair<absl::Time, std::string>> job_expiries_ ABSL_GUARDED_BY(mutex_);
  std::set<std::pair<absl::Time, std::string>> data_expiries_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> unneeded_folders_ ABSL_GUARDED_BY(mutex_);
  std::string hold_reason_ ABSL_GUARDED_BY(mutex_);  // why no job is started; empty: nothing holds them
  bool shutdown_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t next_order_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t id_state_ ABSL_GUARDED_BY(mutex_) = 0;

  absl::Mutex removal_mutex_ ABSL_ACQUIRED_BEFORE(mutex_);  // one removal at a time

  absl::Mutex observer_mutex_ ABSL_ACQUIRED_AFTER(mutex_);
  std::map<int64_t, Observer> observers_ ABSL_GUARDED_BY(observer_mutex_);
  int64_t next_observer_ ABSL_GUARDED_BY(observer_mutex_) = 0;

  absl::Mutex join_mutex_;
  std::thread runner_ ABSL_GUARDED_BY(join_mutex_);
};

}  // namespace boss::server
