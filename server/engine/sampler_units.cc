// The engine's work on the device: which evaluation comes next, and what it brings.
#include <ATen/ATen.h>

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <tuple>
#include <utility>

#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"
#include "core/flow/noise.h"
#include "server/engine/decode_batches.h"
#include "server/engine/open_request.h"

namespace boss::server {

// The lanes of one evaluation, request by request.
struct SamplerEngine::Unit {
  struct Part {
    RequestPtr request;
    std::vector<Lane*> lanes;  // of request->lanes; those that start with this evaluation come last
    int64_t rows = 0;
    // What Compute leaves.
    std::vector<SampleBatch> previews;
    std::optional<SampleBatch> samples;
  };
  std::vector<Part> parts;
  int64_t rows = 0;

  int64_t num_lanes() const {
    int64_t count = 0;
    for (const Part& part : parts) count += static_cast<int64_t>(part.lanes.size());
    return count;
  }
};

namespace {

// The noises of samples `first` .. `first` + count - 1.
at::Tensor Noises(const SampleRequest& request, const ResolvedRequest& resolved, int64_t first, int64_t count) {
  if (resolved.initial_noise.defined()) return resolved.initial_noise.slice(0, first, first + count);
  return SampleNoise(request.seed, first, count, resolved.model->network->SampleShape());
}

bool WantsPreview(const Lane& lane, int interval) {
  return interval > 0 && !lane.in_second_phase && !lane.done() && lane.steps_done % interval == 0;
}

// The states of some lanes, which have come equally far.
absl::StatusOr<SampleBatch> Take(const LaneGroup& group, absl::Span<Lane* const> lanes) {
  SampleBatch batch;
  std::vector<int64_t> slots;
  for (const Lane* lane : lanes) {
    slots.push_back(lane->slot);
    batch.indices.push_back(lane->index);
  }
  batch.solver_steps = lanes.front()->steps_done;
  batch.t = lanes.front()->t();
  BOSS_ASSIGN_OR_RETURN(batch.x, group.States(slots));
  return batch;
}

}  // namespace

bool SamplerEngine::IsRunnable(const Request& request) const {
  return request.unread_bytes < options_.max_unread_bytes;
}

void SamplerEngine::EnsureUnit() {
  if (unit_posted_) return;
  const bool has_work =
      std::any_of(active_.begin(), active_.end(), [&](const RequestPtr& request) { return IsRunnable(*request); });
  if (has_work) unit_posted_ = worker_.PostSampling([this] { RunUnit(); });
}

void SamplerEngine::ExpireDeadlines() {
  const absl::Time now = clock_.Now();
  const std::vector<RequestPtr> active = active_;  // FinishLocked takes requests out of active_
  for (const RequestPtr& request : active) {
    if (request->request.deadline > now) continue;
    FinishLocked(request, absl::DeadlineExceededError("the request's deadline has passed"));
  }
}

void SamplerEngine::RunUnit() {
  RequestPtr task;
  Group* group = nullptr;
  Unit unit;
  {
    absl::MutexLock lock(&mutex_);
    ExpireDeadlines();
    // By priority, then by who has had the least.
    std::tuple<int, double> best = {std::numeric_limits<int>::max(), 0.0};
    for (const RequestPtr& request : active_) {
      const bool is_paused = !IsRunnable(*request);
      if (is_paused && !request->paused) metrics_.slow_reader_pauses.Add(1);
      request->paused = is_paused;
      if (is_paused) continue;
      const double virtual_time = request->group != nullptr ? request->group->virtual_time : request->virtual_time;
      const std::tuple<int, double> rank = {-request->request.priority, virtual_time};
      if (rank >= best) continue;
      best = rank;
      group = request->group;
      task = request->group != nullptr ? nullptr : request;
    }
    if (group == nullptr && task == nullptr) {
      unit_posted_ = false;
      return;
    }
    virtual_time_ = std::get<1>(best);
    // Who pauses saves up no time.
    for (const auto& [unused, other] : groups_) {
      const bool is_paused = std::all_of(other->requests.begin(), other->requests.end(),
                                         [&](const RequestPtr& request) { return request->paused; });
      if (is_paused) other->virtual_time = std::max(other->virtual_time, virtual_time_);
    }
    if (task != nullptr) {
      task->in_unit = true;
    } else if (const absl::Status status = EnsureLanes(*group); status.ok()) {
      unit = FormUnit(*group);
    } else {
      // Too little memory: whoever waits for it fails.
      const std::vector<RequestPtr> requests = group->requests;
      for (const RequestPtr& request : requests) {
        if (IsRunnable(*request)) FinishLocked(request, status);
      }
      unit_posted_ = false;
      return EnsureUnit();
    }
  }
  if (task != nullptr) {
    RunTask(task);
  } else {
    RunLanes(*group, std::move(unit));
  }
  absl::MutexLock lock(&mutex_);
  UpdateLaneGauges();
  unit_posted_ = false;
  EnsureUnit();
}

absl::Status SamplerEngine::EnsureLanes(Group& group) {
  // Requests whose clients do not read may hold all slots; they must not hold up the others.
  const bool anybody_can_go = std::any_of(group.requests.begin(), group.requests.end(), [&](const RequestPtr& request) {
    return IsRunnable(*request) && (!request->lanes.empty() || group.lanes.free_slots() > 0);
  });
  return anybody_can_go ? absl::OkStatus() : group.lanes.Grow();
}

SamplerEngine::Unit SamplerEngine::FormUnit(Group& group) {
  std::vector<RequestPtr> requests;
  std::vector<BatchCandidate> candidates;
  for (const RequestPtr& request : group.requests) {
    const int64_t startable = std::min(request->request.num_samples - request->next_sample, group.lanes.free_slots());
    const int64_t lanes = static_cast<int64_t>(request->lanes.size()) + startable;
    if (lanes == 0 || !IsRunnable(*request)) continue;
    requests.push_back(request);
    candidates.push_back({.lanes = lanes,
                          .rows_per_lane = EvaluationsPerCall(request->resolved->condition),
                          .priority = request->request.priority,
                          .last_turn = request->last_turn});
  }
  const std::vector<int64_t> planned = PlanBatch(candidates, std::min(options_.max_batch, group.max_rows),
                                                 *group.lanes.model().cost);
  Unit unit;
  for (size_t i = 0; i < requests.size(); ++i) {
    const RequestPtr& request = requests[i];
    Unit::Part part{.request = request};
    // The oldest first: what has begun is finished before more is begun.
    for (const auto& lane : request->lanes) {
      if (static_cast<int64_t>(part.lanes.size()) == planned[i]) break;
      part.lanes.push_back(lane.get());
    }
    while (static_cast<int64_t>(part.lanes.size()) < planned[i] && group.lanes.free_slots() > 0) {
      request->lanes.push_back(std::make_unique<Lane>(
          Lane{.request = &*request->resolved, .index = request->next_sample++, .slot = group.lanes.TakeSlot()}));
      part.lanes.push_back(request->lanes.back().get());
    }
    if (part.lanes.empty()) continue;
    part.rows = static_cast<int64_t>(part.lanes.size()) * candidates[i].rows_per_lane;
    unit.rows += part.rows;
    request->in_unit = true;
    request->last_turn = ++turns_;
    unit.parts.push_back(std::move(part));
  }
  return unit;
}

absl::Status SamplerEngine::Evaluate(Group& group, const Unit& unit) {
  std::vector<Lane*> all;
  for (const Unit::Part& part : unit.parts) {
    all.insert(all.end(), part.lanes.begin(), part.lanes.end());
    std::vector<int64_t> slots;
    std::vector<Lane*> starting;
    for (Lane* lane : part.lanes) {
      if (lane->started) continue;
      starting.push_back(lane);
      slots.push_back(lane->slot);
    }
    if (starting.empty()) continue;
    // Lanes start in the order of their samples, so those that start now are one range.
    BOSS_ASSIGN_OR_RETURN(const at::Tensor noises, GuardTorch("noise", [&] {
                            return Noises(part.request->request, *part.request->resolved, starting.front()->index,
                                          static_cast<int64_t>(starting.size()));
                          }));
    BOSS_RETURN_IF_ERROR(group.lanes.Start(slots, noises));
    for (Lane* lane : starting) lane->started = true;
  }
  BOSS_RETURN_IF_ERROR(group.lanes.Evaluate(all));
  return worker_.Synchronize();
}

absl::Status SamplerEngine::TakeResults(Group& group, Unit& unit) {
  for (Unit::Part& part : unit.parts) {
    std::vector<Lane*> arrived;
    std::map<int, std::vector<Lane*>> previewed;  // by steps done
    for (Lane* lane : part.lanes) {
      if (lane->done()) arrived.push_back(lane);
      if (WantsPreview(*lane, part.request->request.preview_interval)) previewed[lane->steps_done].push_back(lane);
    }
    for (const auto& [unused, lanes] : previewed) {
      BOSS_ASSIGN_OR_RETURN(part.previews.emplace_back(), Take(group.lanes, lanes));
    }
    if (!arrived.empty()) {
      BOSS_ASSIGN_OR_RETURN(part.samples, Take(group.lanes, arrived));
    }
  }
  return absl::OkStatus();
}

absl::Status SamplerEngine::DecodeResults(const LoadedModel& model, Unit& unit) {
  std::vector<SampleBatch*> batches;
  for (Unit::Part& part : unit.parts) {
    if (!part.request->resolved->decode) continue;
    for (SampleBatch& preview : part.previews) batches.push_back(&preview);
    if (part.samples) batches.push_back(&*part.samples);
  }
  return Decode(model, batches);
}

absl::Status SamplerEngine::Decode(const LoadedModel& model, absl::Span<SampleBatch* const> batches) {
  if (batches.empty()) return absl::OkStatus();
  DecodeCounts counts;
  const absl::Status status = DecodeBatches(*model.decoder, batches, options_.max_decoder_batch, counts);
  metrics_.decoder_batches.Add(static_cast<double>(counts.batches));
  metrics_.too_large_batches.Add(static_cast<double>(counts.too_large));
  if (!status.ok()) return status;
  for (const SampleBatch* batch : batches) metrics_.decoded_samples.Add(static_cast<double>(batch->x.size(0)));
  return absl::OkStatus();
}

void SamplerEngine::RunLanes(Group& group, Unit unit) {
  const absl::Time start = clock_.Now();
  absl::Status status = Evaluate(group, unit);
  // Nobody has moved on. Fewer lanes may fit; the others follow in the next evaluations.
  const bool too_large = absl::IsResourceExhausted(status) && unit.num_lanes() > 1;
  if (status.ok()) status = TakeResults(group, unit);
  const absl::Time evaluated = clock_.Now();
  if (status.ok()) status = DecodeResults(group.lanes.model(), unit);
  const absl::Time end = clock_.Now();
  if (too_large) {
    metrics_.too_large_batches.Add(1);
  } else {
    metrics_.evaluations.Add(1);
    metrics_.velocity_evaluations.Add(static_cast<double>(unit.rows));
    metrics_.batch_rows.Observe(static_cast<double>(unit.rows));
    metrics_.batch_fill.Observe(static_cast<double>(unit.rows) / static_cast<double>(options_.max_batch));
  }

  for (Unit::Part& part : unit.parts) {
    if (!status.ok()) break;
    // What came is on the strand before the request can be finished, so OnDone stays the last call.
    for (SampleBatch& preview : part.previews) Deliver(part.request, std::move(preview), /*is_preview=*/true);
    {
      absl::MutexLock lock(&mutex_);
      Request& request = *part.request;
      for (const Lane* lane : part.lanes) {
        if (!lane->in_second_phase) ++request.progress.solver_steps;
        if (lane->done()) request.finished_evaluations += lane->evaluations;
      }
      if (part.samples) request.progress.samples_done += part.samples->x.size(0);
    }
    if (part.samples) Deliver(part.request, *part.samples, /*is_preview=*/false);
    PostProgress(part.request);
  }

  absl::MutexLock lock(&mutex_);
  if (too_large) {
    group.max_rows = std::max<int64_t>(1, unit.rows / 2);
    status = absl::OkStatus();
  } else {
    group.lanes.model().cost->Observe(unit.rows, absl::ToDoubleSeconds(evaluated - start));
  }
  group.virtual_time += absl::ToDoubleSeconds(end - start) / static_cast<double>(group.requests.size());
  const std::vector<Unit::Part> parts = std::move(unit.parts);
  for (const Unit::Part& part : parts) {
    const RequestPtr& request = part.request;
    // The lanes that have arrived leave.
    std::erase_if(request->lanes, [&](const std::unique_ptr<Lane>& lane) {
      if (!lane->done()) return false;
      group.lanes.ReturnSlot(lane->slot);
      return true;
    });
    const double share = static_cast<double>(part.rows) / static_cast<double>(unit.rows);
    Account(request, start, end, (end - start) * share, part.samples ? part.samples->x.size(0) : 0);
    EndUnit(request, status);  // the last request takes the group with it
  }
}

void SamplerEngine::RunTask(const RequestPtr& request) {
  const absl::Time start = clock_.Now();
  StepOutcome outcome = request->task->Step();
  outcome.status.Update(worker_.Synchronize());
  if (outcome.status.ok() && request->resolved->decode) {
    std::vector<SampleBatch*> batches;
    for (std::optional<SampleBatch>* batch : {&outcome.preview, &outcome.samples}) {
      if (batch->has_value()) batches.push_back(&**batch);
    }
    outcome.status = Decode(*request->resolved->model, batches);
    if (!outcome.status.ok()) outcome.preview = outcome.samples = std::nullopt;
  }
  const absl::Time end = clock_.Now();
  metrics_.evaluations.Add(static_cast<double>(outcome.calls));
  metrics_.velocity_evaluations.Add(static_cast<double>(outcome.evaluations));
  const int64_t arrived = outcome.samples ? outcome.samples->x.size(0) : 0;
  {
    absl::MutexLock lock(&mutex_);
    request->progress = request->task->progress();
    request->finished_evaluations = request->task->finished_evaluations();
    request->virtual_time += absl::ToDoubleSeconds(end - start);
    Account(request, start, end, end - start, arrived);
  }
  if (outcome.preview) Deliver(request, *std::move(outcome.preview), /*is_preview=*/true);
  if (outcome.samples) Deliver(request, *std::move(outcome.samples), /*is_preview=*/false);
  PostProgress(request);
  absl::MutexLock lock(&mutex_);
  EndUnit(request, outcome.status);
}

void SamplerEngine::Account(const RequestPtr& request, absl::Time start, absl::Time end, absl::Duration share,
                            int64_t arrived) {
  if (!request->start_time) {
    request->start_time = start;
    request->summary.queue_time = start - request->accept_time;
    metrics_.queue_seconds.Observe(absl::ToDoubleSeconds(start - request->submit_time));
  }
  request->device_time += share;
  request->summary.compute_time = end - *request->start_time;
  request->summary.compute_end = end;
  const int64_t done = request->progress.samples_done;
  request->summary.nfe =
      done == 0 ? 0.0 : static_cast<double>(request->finished_evaluations) / static_cast<double>(done);
  device_time_ += share;
  samples_done_ += arrived;
  Release(request, arrived);
}

void SamplerEngine::EndUnit(const RequestPtr& request, const absl::Status& status) {
  request->in_unit = false;
  if (!request->stop.ok()) {
    FinishLocked(request, request->stop);
  } else if (!status.ok() || request->progress.samples_done == request->request.num_samples) {
    FinishLocked(request, status);
  }
}

void SamplerEngine::UpdateLaneGauges() {
  int64_t in_flight = 0;
  for (const RequestPtr& request : active_) in_flight += static_cast<int64_t>(request->lanes.size());
  metrics_.lanes_active.Set(static_cast<double>(in_flight));
  metrics_.lanes_waiting.Set(static_cast<double>(queued_samples_ - in_flight));
}

}  // namespace boss::server
