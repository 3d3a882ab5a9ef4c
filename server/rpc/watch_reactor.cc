#include "server/rpc/watch_reactor.h"

#include <string>
#include <utility>

#include "core/base/status_macros.h"
#include "server/rpc/convert_job.h"
#include "server/rpc/status.h"

namespace boss::server {
namespace {

// Events read at a time.
constexpr int64_t kBatch = 64;

}  // namespace

WatchReactor* WatchReactor::Start(JobManager& jobs, Admission admission, ThreadPool& pool, WatchList& list,
                                  const v1::WatchJobRequest& request) {
  const std::shared_ptr<WatchReactor> reactor(new WatchReactor(jobs, std::move(admission), pool, list));
  reactor->self_ = reactor;
  reactor->strand_.Post([reactor, request] { reactor->Open(request); });
  list.Add(reactor);
  return reactor.get();
}

void WatchReactor::Open(const v1::WatchJobRequest& request) {
  const absl::StatusOr<std::string> id = JobIdFromName(request.name());
  if (!id.ok()) return Close(id.status());
  const Principal& principal = admission_.principal();
  const absl::Status visible = principal.is_admin ? absl::OkStatus() : jobs_.CheckOwner(*id, principal.name);
  if (!visible.ok()) return Close(visible);
  // The manager calls this until the watch is gone, which is before the reactor is.
  auto watch = jobs_.Watch(*id, request.from_sequence(), [this] { FetchSoon(); });
  if (!watch.ok()) return Close(watch.status());
  watch_ = *std::move(watch);
  if (request.replay_only()) {
    absl::MutexLock lock(&mutex_);
    end_when_drained_ = absl::OkStatus();
  }
  Fetch();
}

void WatchReactor::FetchSoon() {
  strand_.Post([self = shared_from_this()] { self->Fetch(); });
}

void WatchReactor::Fetch() {
  {
    absl::MutexLock lock(&mutex_);
    if (!watch_ || finished_ || final_status_ || !queue_.empty()) return;
  }
  absl::StatusOr<JobWatch::Batch> batch = watch_->Next(kBatch);
  absl::MutexLock lock(&mutex_);
  if (!batch.ok()) {
    final_status_ = batch.status();
  } else {
    for (const JobEvent& event : batch->events) queue_.push_back(ToProto(event));
    if (batch->end) {
      final_status_ = absl::OkStatus();
    } else if (batch->events.empty() && end_when_drained_) {
      final_status_ = *end_when_drained_;
    }
  }
  Advance();
}

void WatchReactor::Advance() {
  if (writing_ || finished_) return;
  if (!queue_.empty()) {
    current_ = std::move(queue_.front());
    queue_.pop_front();
    writing_ = true;
    StartWrite(&current_);
  } else if (final_status_) {
    finished_ = true;
    admission_.Leave();
    Finish(ToGrpcStatus(*final_status_));
  }
}

void WatchReactor::End(absl::Status status) {
  {
    absl::MutexLock lock(&mutex_);
    end_when_drained_ = std::move(status);
  }
  FetchSoon();
}

void WatchReactor::Close(absl::Status status) {
  absl::MutexLock lock(&mutex_);
  queue_.clear();
  final_status_ = std::move(status);
  Advance();
}

void WatchReactor::OnWriteDone(bool ok) {
  bool drained = false;
  {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    if (!ok) {
      queue_.clear();
      if (!final_status_) final_status_ = absl::CancelledError("the stream is broken");
    }
    drained = queue_.empty() && !final_status_;
    Advance();
  }
  if (drained) FetchSoon();
}

void WatchReactor::OnCancel() { Close(absl::CancelledError("the client has gone")); }

void WatchReactor::OnDone() {
  list_.Remove(self_);
  // The watch must go where the manager is not calling from, and before the reactor.
  strand_.Post([self = std::move(self_)] { self->watch_.reset(); });
}

}  // namespace boss::server
