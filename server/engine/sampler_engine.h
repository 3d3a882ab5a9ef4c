// Serves sampling requests: samples of all of them share velocity evaluations on one device.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "core/base/clock.h"
#include "server/device/device_worker.h"
#include "server/engine/model_registry.h"
#include "server/engine/resolve_request.h"
#include "server/engine/sample_request.h"
#include "server/engine/sampling_task.h"
#include "server/engine/thread_pool.h"
#include "server/metrics/metrics.h"
#include "server/store/model_store.h"

namespace boss::server {

struct SamplerEngineOptions {
  SamplingLimits limits;
  int64_t max_batch = 64;  // rows of the network's batch; a sample with guidance takes two
  int64_t max_decoder_batch = 16;  // samples that a decoder gets at once
  // Samples in flight per model version; the others wait without a state. More only where clients that do not read hold
  // all of them.
  int64_t max_lanes = 256;
  int64_t max_queued_samples =
      16384;  // of all requests that have not finished; at least limits.max_samples_per_request
  // Data that a client has not taken yet. Beyond it the request's batches pause until the client catches up.
  int64_t max_unread_bytes = 8 << 20;
  int host_threads = 2;  // resolve requests and encode samples
};

// A request's way:
//
//   Submit -> PREPARING (its model is loaded, its fields are checked) -> ACTIVE (its samples are computed) -> DONE
//   (OnDone is on its way)
//
// A sample in flight is a lane (lane_group.h). The batch is formed anew for every velocity evaluation, of lanes of all
// requests for one model version, whatever their numbers of steps, schedules, solvers, guidance and progress
// (batch_plan.h says how many of whom): new ones join at the next evaluation, finished ones leave. Requests whose
// batches must not be mixed (rk45, which has one step size for a batch; `deterministic`) run by themselves, one solver
// step at a time (sampling_task.h).
//
// Model versions, and requests that run by themselves, share the device's time by start-time fair queueing (Goyal, Vin
// and Cheng, SIGCOMM 1996): whoever has had the least device time per request goes next; who comes new starts level
// with the others.
//
// An evaluation that does not fit into the device's memory is tried again with half of its lanes, and its model version
// gets no larger ones while it has requests. A request fails for lack of memory if one lane of it alone does not fit,
// or if its results cannot be fetched or decoded.
//
// A request is cancelled, or found to be beyond its deadline, between two evaluations.
//
// Thread-safe. `store`, `registry`, `worker` and `clock` outlive the engine; handles must not be used after it.
class SamplerEngine {
 public:
  SamplerEngine(SamplerEngineOptions options, const ModelStore& store, ModelRegistry& registry, DeviceWorker& worker,
                EngineMetrics metrics, const Clock& clock);
  // Ends what is open with UNAVAILABLE. The device worker must still run.
  ~SamplerEngine();
  SamplerEngine(const SamplerEngine&) = delete;
  SamplerEngine& operator=(const SamplerEngine&) = delete;

  // Returns at once; everything else is told to `sink`, possibly before this returns. On an error `sink` hears nothing.
  // \error INVALID_ARGUMENT with the field; RESOURCE_EXHAUSTED with a retry delay if max_queued_samples would be
  // exceeded; UNAVAILABLE after StopAccepting(). Told to the sink: NOT_FOUND, DATA_LOSS, FAILED_PRECONDITION,
  // INVALID_ARGUMENT of ResolveRequest, DEADLINE_EXCEEDED, ...
  absl::StatusOr<std::shared_ptr<SampleHandle>> Submit(SampleRequest request, std::shared_ptr<SampleSink> sink)
      ABSL_LOCKS_EXCLUDED(mutex_);

  void StopAccepting() ABSL_LOCKS_EXCLUDED(mutex_);
  // Ends every open request with `reason`.
  void CancelAll(const absl::Status& reason) ABSL_LOCKS_EXCLUDED(mutex_);
  // Waits until no request is open. \return false if that takes longer than until `deadline`, by the system's clock.
  bool WaitIdle(absl::Time deadline) const ABSL_LOCKS_EXCLUDED(mutex_);

  int64_t queued_samples() const ABSL_LOCKS_EXCLUDED(mutex_);
  const SamplerEngineOptions& options() const { return options_; }

 private:
  class Request;
  using RequestPtr = std::shared_ptr<Request>;
  struct Group;  // the requests for one model version that share batches
  struct Unit;   // one evaluation's lanes

  void Prepare(const RequestPtr& request);
  void Admit(const RequestPtr& request, absl::StatusOr<std::shared_ptr<const LoadedModel>> model);

  void Activate(const RequestPtr& request, ResolvedRequest resolved) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Frees the request's lanes; the group goes with its last request.
  void LeaveGroup(const RequestPtr& request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // sampler_units.cc, on the device's thread.
  // The evaluation whose turn it is.
  void RunUnit();
  void RunTask(const RequestPtr& request);
  void RunLanes(Group& group, Unit unit);
  // Starts new samples and evaluates all lanes. \error as LaneGroup::Evaluate, with what it says of the lanes.
  absl::Status Evaluate(Group& group, const Unit& unit);
  // Takes the states that go out.
  absl::Status TakeResults(Group& group, Unit& unit);
  // Decodes those of requests that want it, of all of them together.
  absl::Status DecodeResults(const LoadedModel& model, Unit& unit);
  absl::Status Decode(const LoadedModel& model, absl::Span<SampleBatch* const> batches);
  // Makes room for lanes of requests that can go on, if there is none. \error what LibTorch reports.
  absl::Status EnsureLanes(Group& group) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Unit FormUnit(Group& group) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ExpireDeadlines() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Books an evaluation's time; after it the request may be finished again.
  void Account(const RequestPtr& request, absl::Time start, absl::Time end, absl::Duration share, int64_t arrived)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EndUnit(const RequestPtr& request, const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool IsRunnable(const Request& request) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  void UpdateLaneGauges() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  void Deliver(const RequestPtr& request, SampleBatch batch, bool is_preview);
  void PostProgress(const RequestPtr& request);
  void Encode(const RequestPtr& request, const SampleBatch& batch, bool is_preview);
  void SendProgress(const RequestPtr& request);

  void Cancel(const RequestPtr& request, absl::Status reason);
  void Consumed(const RequestPtr& request, int64_t bytes);
  // To DONE, with the status that OnDone will get.
  void Finish(const RequestPtr& request, absl::Status status) ABSL_LOCKS_EXCLUDED(mutex_);
  void FinishLocked(const RequestPtr& request, absl::Status status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Release(const RequestPtr& request, int64_t samples) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // For metrics.
  void CountEnd(const Request& request, const absl::Status& status) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);

  void EnsureUnit() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Duration RetryDelay() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool IsIdle() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return open_.empty(); }
  bool IsQuiet() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return open_.empty() && acquiring_ == 0 && !unit_posted_; }

  const SamplerEngineOptions options_;
  const ModelStore& store_;
  ModelRegistry& registry_;
  DeviceWorker& worker_;
  const EngineMetrics metrics_;
  const Clock& clock_;

  mutable absl::Mutex mutex_;
  bool accepting_ ABSL_GUARDED_BY(mutex_) = true;
  std::set<RequestPtr> open_ ABSL_GUARDED_BY(mutex_);       // until their OnDone has returned
  std::vector<RequestPtr> active_ ABSL_GUARDED_BY(mutex_);  // in the order of acceptance
  int64_t queued_samples_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<const LoadedModel*, std::unique_ptr<Group>> groups_ ABSL_GUARDED_BY(mutex_);
  int64_t turns_ ABSL_GUARDED_BY(mutex_) = 0;
  double virtual_time_ ABSL_GUARDED_BY(mutex_) = 0;   // start of the latest unit, in seconds of device time per request
  int acquiring_ ABSL_GUARDED_BY(mutex_) = 0;         // callbacks that the registry owes
  bool unit_posted_ ABSL_GUARDED_BY(mutex_) = false;  // a unit waits or runs on the device
  int64_t samples_done_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Duration device_time_ ABSL_GUARDED_BY(mutex_);  // of all requests

  ThreadPool pool_;
};

}  // namespace boss::server
