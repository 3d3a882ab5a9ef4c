// One WatchJob call: replays a job's events, then follows them.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "boss/v1/jobs.pb.h"
#include "server/engine/thread_pool.h"
#include "server/jobs/job_manager.h"
#include "server/rpc/access.h"
#include "server/rpc/reactor_list.h"

namespace boss::server {

class WatchReactor;

// The open watches of a server. They end after the events that there are.
using WatchList = ReactorList<WatchReactor>;

// The journal is read on the pool, a bounded number of events at a time, and not before the client has taken the last
// ones.
class WatchReactor final : public grpc::ServerWriteReactor<v1::JobEvent>,
                           public std::enable_shared_from_this<WatchReactor> {
 public:
  // Returns the reactor of a new call, which keeps itself alive. What is passed outlives it.
  static WatchReactor* Start(JobManager& jobs, Admission admission, ThreadPool& pool, WatchList& list,
                             const v1::WatchJobRequest& request);

  // Sends what there is, then ends the stream with `status`.
  void End(absl::Status status) ABSL_LOCKS_EXCLUDED(mutex_);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  WatchReactor(JobManager& jobs, Admission admission, ThreadPool& pool, WatchList& list)
      : jobs_(jobs), admission_(std::move(admission)), list_(list), strand_(pool) {}

  // Run on the strand.
  void Open(const v1::WatchJobRequest& request);
  void Fetch();

  void FetchSoon();
  void Close(absl::Status status) ABSL_LOCKS_EXCLUDED(mutex_);
  // Starts the next write, asks for more events, or finishes the call.
  void Advance() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  JobManager& jobs_;
  Admission admission_;
  WatchList& list_;
  Strand strand_;
  std::shared_ptr<WatchReactor> self_;  // until gRPC's OnDone
  std::unique_ptr<JobWatch> watch_;     // on the strand only

  absl::Mutex mutex_;
  std::deque<v1::JobEvent> queue_ ABSL_GUARDED_BY(mutex_);
  v1::JobEvent current_;  // being written
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> end_when_drained_
      ABSL_GUARDED_BY(mutex_);  // the status for when there is no further event
  std::optional<absl::Status> final_status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace boss::server
