#include "server/engine/velocity_runner.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cstddef>
#include <utility>

#include "core/base/torch_guard.h"
#include "server/log/log.h"

namespace boss::server {
namespace {

constexpr double kWarmUpTime = 0.5;  // any in (0, 1)

}  // namespace

std::vector<int64_t> BatchBuckets(int64_t max_batch) {
  std::vector<int64_t> buckets;
  for (int64_t rows = 1; rows < max_batch; rows *= 2) buckets.push_back(rows);
  buckets.push_back(max_batch);
  return buckets;
}

VelocityRunner::VelocityRunner(std::shared_ptr<const VelocityModel> network, VelocityRunnerOptions options)
    : network_(std::move(network)), options_(std::move(options)) {
  for (const int64_t rows : options_.buckets) {
    buckets_.push_back(std::make_unique<Bucket>());
    buckets_.back()->rows = rows;
  }
}

absl::Status VelocityRunner::WarmUp(StepExecutor& executor) {
  const absl::Status status = executor.Run([&] {
    return GuardTorch("warming up", [&]() -> absl::Status {
      const c10::InferenceMode inference_mode;
      MakeBuffers();
      if (buckets_.empty()) Evaluate(1);
      return absl::OkStatus();
    });
  });
  if (!status.ok()) return status;
  // The largest first: what its graph needs is enough for those that share its memory.
  absl::Status unrecorded;
  for (size_t i = buckets_.size(); i > 0; --i) {
    Bucket& bucket = *buckets_[i - 1];
    const absl::Status evaluated = executor.Run([&] {
      const c10::InferenceMode inference_mode;
      return GuardTorch("warming up", [&]() -> absl::Status {
        Evaluate(bucket.rows);
        return absl::OkStatus();
      });
    });
    if (absl::IsResourceExhausted(evaluated) && i > 1) {
      LogWarn("a batch of the model does not fit into memory", {{"rows", bucket.rows}, {"error", evaluated}});
      buckets_.erase(buckets_.begin() + static_cast<std::ptrdiff_t>(i) - 1);
      continue;
    }
    if (!evaluated.ok()) return evaluated;
    const absl::Status recorded = executor.Run([&] { return Record(bucket); });
    if (absl::IsUnavailable(recorded)) return recorded;
    unrecorded.Update(recorded);
  }
  if (!unrecorded.ok()) {
    LogWarn("batches of the model run without CUDA graphs",
            {{"graphs", num_graphs()}, {"batch_sizes", buckets_.size()}, {"error", unrecorded}});
  }
  return absl::OkStatus();
}

absl::Status VelocityRunner::Record(Bucket& bucket) {
  const c10::InferenceMode inference_mode;
  const absl::Status status = GuardTorch("recording a graph", [&]() -> absl::Status {
    bucket.graph = options_.backend->Capture([&] { bucket.velocity = Evaluate(bucket.rows); }, SharedGraph());
    return absl::OkStatus();
  });
  if (!status.ok()) bucket.velocity.reset();
  return status;
}

void VelocityRunner::MakeBuffers() {
  const int64_t rows = buckets_.empty() ? 1 : buckets_.back()->rows;
  std::vector<int64_t> shape = network_->SampleShape();
  shape.insert(shape.begin(), rows);
  const auto options = at::TensorOptions(at::kFloat).device(network_->device());
  const bool channels_last = options_.channels_last && shape.size() == 4;
  x_ = at::zeros(shape, options)
           .contiguous(channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous);
  t_ = at::full({rows}, kWarmUpTime, options);
  if (network_->NumClasses() > 0) labels_ = at::full({rows}, network_->NumClasses(), options.dtype(at::kLong));
  for (const ConditioningSpec& spec : network_->ConditioningSpecs()) {
    std::vector<int64_t> tensor_shape = spec.shape;
    tensor_shape.insert(tensor_shape.begin(), rows);
    tensors_.emplace_back(spec.name, at::zeros(tensor_shape, options.dtype(spec.dtype)));
  }
}

at::Tensor VelocityRunner::Evaluate(int64_t rows) const {
  Condition condition;
  if (labels_.defined()) condition.class_labels = labels_.slice(0, 0, rows);
  for (const auto& [name, tensor] : tensors_) condition.tensors.emplace_back(name, tensor.slice(0, 0, rows));
  return network_->Velocity(x_.slice(0, 0, rows), t_.slice(0, 0, rows), condition);
}

at::Tensor VelocityRunner::Velocity(const at::Tensor& x, const at::Tensor& t, const Condition& condition) const {
  const int64_t rows = x.size(0);
  const auto found = std::find_if(buckets_.begin(), buckets_.end(),
                                  [&](const std::unique_ptr<Bucket>& bucket) { return bucket->rows >= rows; });
  if (found == buckets_.end()) {
    const bool channels_last = options_.channels_last && x.dim() == 4;
    return network_->Velocity(channels_last ? x.contiguous(at::MemoryFormat::ChannelsLast) : x, t, condition);
  }
  const Bucket& bucket = **found;
  x_.slice(0, 0, rows).copy_(x);
  t_.slice(0, 0, rows).copy_(t);
  if (labels_.defined()) {
    const at::Tensor labels = labels_.slice(0, 0, rows);
    condition.class_labels.defined() ? labels.copy_(condition.class_labels) : labels.fill_(network_->NumClasses());
  }
  for (const auto& [name, tensor] : tensors_) {
    const at::Tensor rows_of_it = tensor.slice(0, 0, rows), given = FindTensor(condition.tensors, name);
    given.defined() ? rows_of_it.copy_(given) : rows_of_it.zero_();
  }
  if (bucket.graph == nullptr) return Evaluate(bucket.rows).slice(0, 0, rows);
  bucket.graph->Replay();
  // The graph's own memory is overwritten by the next one.
  return bucket.velocity.slice(0, 0, rows).clone();
}

int64_t VelocityRunner::num_graphs() const {
  return std::count_if(buckets_.begin(), buckets_.end(),
                       [](const std::unique_ptr<Bucket>& bucket) { return bucket->graph != nullptr; });
}

const DeviceGraph* VelocityRunner::SharedGraph() const {
  for (const auto& bucket : buckets_) {
    if (bucket->graph != nullptr) return bucket->graph.get();
  }
  return nullptr;
}

}  // namespace boss::server
