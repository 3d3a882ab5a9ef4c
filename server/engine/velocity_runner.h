// One model version's velocity as sampling evaluates it: on the CPU as it is, on CUDA in a few batch sizes, each
// recorded as a graph.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "core/base/step_executor.h"
#include "core/flow/velocity_model.h"
#include "server/device/device_backend.h"

namespace boss::server {

struct VelocityRunnerOptions {
  // Batch sizes, ascending. A batch is filled up to the next one; one that is larger than all of them runs as it is.
  // Empty: every batch runs as it is.
  std::vector<int64_t> buckets;
  // Whether samples [channels, height, width] are passed in channels-last order.
  bool channels_last = false;
  // Records a graph a bucket, if it has graphs.
  std::shared_ptr<const DeviceBackend> backend = std::make_shared<CpuBackend>();
};

// 1, 2, 4, ... and `max_batch`.
std::vector<int64_t> BatchBuckets(int64_t max_batch);

// A batch that is filled up is copied into fixed buffers, whose further rows hold what earlier batches left there. Rows
// of a batch do not influence each other in a network; a result differs from that of the batch as it is by float
// rounding alone.
//
// Not thread-safe with buckets: WarmUp and Velocity are then the device's sampling thread's. Without, Velocity is
// thread-safe.
class VelocityRunner {
 public:
  VelocityRunner(std::shared_ptr<const VelocityModel> network, VelocityRunnerOptions options);

  // Evaluates every bucket, or one row without buckets, so that kernels and plans are there when requests come, and
  // records its graph. Each is a unit of `executor`, which with graphs lets nothing else run on the device meanwhile
  // (DeviceWorker::exclusive_executor). A bucket that cannot be recorded runs without a graph, one that does not fit
  // into memory is given up; neither is an error.
  // \error of `executor`; what LibTorch reports of an evaluation.
  absl::Status WarmUp(StepExecutor& executor);

  // As VelocityModel::Velocity, x on the network's device. The result is the caller's. \pre WarmUp has been successful,
  // or there are no buckets.
  at::Tensor Velocity(const at::Tensor& x, const at::Tensor& t, const Condition& condition) const;

  // Buckets that have a graph.
  int64_t num_graphs() const;

 private:
  struct Bucket {
    int64_t rows = 0;
    std::unique_ptr<DeviceGraph> graph;  // null: evaluated anew each time
    at::Tensor velocity;                 // that the graph writes
  };

  void MakeBuffers();
  at::Tensor Evaluate(int64_t rows) const;  // of the buffers' first rows
  absl::Status Record(Bucket& bucket);
  // One whose memory the next one shares; null if there is none yet.
  const DeviceGraph* SharedGraph() const;

  const std::shared_ptr<const VelocityModel> network_;
  const VelocityRunnerOptions options_;
  std::vector<std::unique_ptr<Bucket>> buckets_;  // ascending; graphs refer to them
  // As large as the largest bucket; labels_ only for models with labels, tensors_ by the network's ConditioningSpecs().
  at::Tensor x_, t_, labels_;
  ConditioningTensors tensors_;
};

}  // namespace boss::server
