// What the engine knows of a request that is open. Included by the engine's own files alone.
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "server/engine/batch_plan.h"
#include "server/engine/lane_group.h"
#include "server/engine/sampler_engine.h"

namespace boss::server {

// Fields without a comment on their thread are guarded by the engine's mutex.
class SamplerEngine::Request final : public SampleHandle, public std::enable_shared_from_this<Request> {
 public:
  Request(SamplerEngine& engine, SampleRequest request, std::shared_ptr<SampleSink> sink)
      : request(std::move(request)),
        sink(std::move(sink)),
        strand(engine.pool_),
        submit_time(engine.clock_.Now()),
        engine_(engine) {}

  void Cancel(absl::Status reason) override { engine_.Cancel(shared_from_this(), std::move(reason)); }
  void Consumed(int64_t bytes) override { engine_.Consumed(shared_from_this(), bytes); }

  enum class Phase { kPreparing, kActive, kDone };

  const SampleRequest request;
  const std::shared_ptr<SampleSink> sink;  // called on the strand only
  Strand strand;
  const absl::Time submit_time;

  Phase phase = Phase::kPreparing;
  std::optional<ResolvedRequest> resolved;  // set before kActive, constant since
  absl::Status stop;                        // why the request ends before its time
  bool in_unit = false;                     // an evaluation of it runs now
  int64_t last_turn = 0;
  int64_t reserved_samples = 0;  // of it in queued_samples_
  int64_t unread_bytes = 0;
  bool paused = false;  // the client has not taken enough of it
  SampleProgress progress;
  bool progress_posted = false;
  absl::Time accept_time;
  std::optional<absl::Time> start_time;  // of the first evaluation
  absl::Duration device_time;
  int64_t finished_evaluations = 0;     // velocity evaluations of the samples that have arrived
  absl::Status output_error;            // on the strand only: a sample could not be encoded
  SampleSummary summary;                // output_time and num_samples: on the strand only
  std::atomic<bool> abandoned = false;  // what waits to be encoded is not wanted any more

  // A request that runs by itself. Used on the device's thread only, once it is active.
  std::optional<SamplingTask> task;
  double virtual_time = 0;

  // A request that shares batches: its group, the lanes in flight, the oldest first, and the next sample to start. In a
  // unit they are the device's thread's.
  Group* group = nullptr;
  std::vector<std::unique_ptr<Lane>> lanes;
  int64_t next_sample = 0;

 private:
  SamplerEngine& engine_;
};

struct SamplerEngine::Group {
  Group(std::shared_ptr<const LoadedModel> model, int64_t max_lanes, double virtual_time)
      : lanes(std::move(model), max_lanes), virtual_time(virtual_time) {}

  LaneGroup lanes;
  std::vector<RequestPtr> requests;
  double virtual_time;
  int64_t max_rows = std::numeric_limits<int64_t>::max();  // of an evaluation: a larger one did not fit into memory
};

}  // namespace boss::server
