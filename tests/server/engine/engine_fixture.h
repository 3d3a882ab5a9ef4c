// An engine with real parts around it, and a device that a test can keep busy.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "core/base/clock.h"
#include "server/device/device_worker.h"
#include "server/engine/model_registry.h"
#include "server/engine/sampler_engine.h"
#include "server/store/model_store.h"
#include "tests/support/manual_clock.h"
#include "tests/support/temp_folder.h"
#include "tests/support/tiny_models.h"

namespace boss::server::testing {

// Keeps what it is told; a test reads it after Wait().
class CollectingSink final : public SampleSink {
 public:
  void OnAccepted(AcceptedRequest value) override {
    absl::MutexLock lock(&mutex);
    order += 'a';
    accepted = std::move(value);
  }
  void OnProgress(SampleProgress value) override {
    absl::MutexLock lock(&mutex);
    progress.push_back(value);
  }
  void OnPreview(EncodedSample value) override {
    absl::MutexLock lock(&mutex);
    order += 'p';
    previews.push_back(std::move(value));
  }
  void OnSample(EncodedSample value) override {
    absl::MutexLock lock(&mutex);
    order += 's';
    samples.push_back(std::move(value));
  }
  void OnDone(absl::Status value, SampleSummary value_summary) override {
    absl::MutexLock lock(&mutex);
    order += 'd';
    status = std::move(value);
    summary = std::move(value_summary);
    done_number = ++done_count;
    done = true;
  }

  void Wait() {
    absl::MutexLock lock(&mutex);
    mutex.Await(absl::Condition(&done));
  }
  void WaitUntilAccepted() {
    absl::MutexLock lock(&mutex);
    const auto is_accepted = [&] { return !order.empty(); };
    mutex.Await(absl::Condition(&is_accepted));
  }
  void WaitForSamples(size_t count) {
    absl::MutexLock lock(&mutex);
    const auto has_them = [&] { return samples.size() >= count || done; };
    mutex.Await(absl::Condition(&has_them));
  }
  // Float32 samples in the order of their index, [count, shape...].
  at::Tensor Values() const {
    std::vector<at::Tensor> rows(samples.size());
    for (const EncodedSample& sample : samples) {
      at::Tensor row = at::empty(sample.shape);
      EXPECT_EQ(row.nbytes(), sample.data.size());
      std::memcpy(row.data_ptr(), sample.data.data(), row.nbytes());
      rows.at(static_cast<size_t>(sample.index)) = row;
    }
    return at::stack(rows);
  }

  absl::Mutex mutex;
  AcceptedRequest accepted;
  std::vector<SampleProgress> progress;
  std::vector<EncodedSample> previews, samples;
  absl::Status status;
  SampleSummary summary;
  std::string order;  // of the calls
  bool done = false;
  int done_number = 0;  // 1 for the first of all sinks that was done, 2 for the next, ...

 private:
  static inline std::atomic<int> done_count = 0;
};

class EngineTest : public ::testing::Test {
 protected:
  EngineTest() {
    auto store = ModelStore::Open(folder_.path(), clock_);
    EXPECT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    worker_ = std::make_unique<DeviceWorker>(DeviceWorkerOptions{.num_threads = 1}, clock_);
    registry_ = std::make_unique<ModelRegistry>(*store_);
    vectors_ = boss::testing::PublishTinyModel(*store_, "vectors", boss::testing::kTinyVectorArchitecture);
    StartEngine({});
  }

  ~EngineTest() override {
    if (open_ && !open_->HasBeenNotified()) open_->Notify();  // a failed test must not hang
  }

  void StartEngine(SamplerEngineOptions options) {
    engine_.reset();
    engine_ = std::make_unique<SamplerEngine>(options, *store_, *registry_, *worker_, metrics_, clock_);
  }

  // Requests of the model of vectors.
  static SampleRequest Request(int64_t num_samples = 3, int steps = 4) {
    SampleRequest request;
    request.model = "vectors";
    request.num_samples = num_samples;
    request.steps = steps;
    request.seed = 7;
    return request;
  }

  std::shared_ptr<SampleHandle> Submit(SampleRequest request, const std::shared_ptr<CollectingSink>& sink) {
    auto handle = engine_->Submit(std::move(request), sink);
    EXPECT_TRUE(handle.ok()) << handle.status();
    return handle.ok() ? *handle : nullptr;
  }
  std::shared_ptr<CollectingSink> Run(SampleRequest request) {
    auto sink = std::make_shared<CollectingSink>();
    Submit(std::move(request), sink);
    sink->Wait();
    return sink;
  }

  // Between the two, nothing runs on the device.
  void CloseDevice() {
    absl::Notification closed;
    open_ = std::make_unique<absl::Notification>();
    worker_->PostSampling([&closed, open = open_.get()] {
      closed.Notify();
      open->WaitForNotification();
    });
    closed.WaitForNotification();
  }
  void OpenDevice() { open_->Notify(); }

  boss::testing::TempFolder folder_;
  boss::testing::ManualClock clock_;
  std::unique_ptr<absl::Notification> open_;
  std::unique_ptr<ModelStore> store_;
  std::unique_ptr<DeviceWorker> worker_;
  std::unique_ptr<ModelRegistry> registry_;
  EngineMetrics metrics_;  // of engines that are started after it was set
  std::unique_ptr<SamplerEngine> engine_;
  VersionKey vectors_;
};

}  // namespace boss::server::testing
