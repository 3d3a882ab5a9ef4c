#include "server/device/device_worker.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "core/nets/norm_kernel.h"
#include "tests/support/fake_device.h"
#include "tests/support/manual_clock.h"

namespace boss::server {
namespace {

class DeviceWorkerTest : public ::testing::Test {
 protected:
  // Keeps the device busy until Open(), so that a test decides what waits before anything runs.
  void Close() {
    worker_.PostSampling([this] {
      closed_.Notify();
      open_.WaitForNotification();
    });
    closed_.WaitForNotification();
  }
  void Open() { open_.Notify(); }

  void PostSampling(absl::Duration takes) {
    worker_.PostSampling([this, takes] {
      ran_ += 's';
      clock_.Advance(takes);
    });
  }
  // Returns when the unit waits in the queue: the worker is closed, so all that can follow is that it runs.
  std::thread Train(absl::Duration takes) {
    return std::thread([this, takes] {
      EXPECT_TRUE(worker_
                      .RunTraining([&] {
                        ran_ += 't';
                        clock_.Advance(takes);
                        return absl::OkStatus();
                      })
                      .ok());
    });
  }

  boss::testing::ManualClock clock_;
  absl::Notification closed_, open_;
  std::string ran_;  // on the worker's thread; read after Shutdown
  DeviceWorker worker_{{.num_threads = 1, .training_share = 0.25}, clock_};
};

TEST_F(DeviceWorkerTest, SamplingUnitsRunInTheOrderOfPosting) {
  std::vector<int> order;
  for (int i = 0; i < 100; ++i) worker_.PostSampling([&order, i] { order.push_back(i); });
  worker_.Shutdown();
  ASSERT_EQ(order.size(), 100u);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(order[i], i);
}

TEST_F(DeviceWorkerTest, TrainingReturnsItsStatus) {
  EXPECT_EQ(worker_.RunTraining([] { return absl::DataLossError("x"); }), absl::DataLossError("x"));
  EXPECT_EQ(worker_.training_executor().Run([] { return absl::DataLossError("y"); }), absl::DataLossError("y"));
}

TEST_F(DeviceWorkerTest, WhatAUnitThrowsIsItsStatus) {
  const auto unit = []() -> absl::Status {
    TORCH_CHECK_WITH(OutOfMemoryError, false, "no memory");
    return absl::OkStatus();
  };
  EXPECT_TRUE(absl::IsResourceExhausted(worker_.RunTraining(unit)));
  EXPECT_TRUE(absl::IsResourceExhausted(worker_.RunAlone(unit)));
  EXPECT_TRUE(worker_.RunTraining([] { return absl::OkStatus(); }).ok());
}

TEST_F(DeviceWorkerTest, TrainingMovesOnUnderEndlessSamplingAndTakesNoMoreThanItsShare) {
  // Every unit takes 10 ms: with a share of a quarter, training is due after 30 ms of sampling.
  Train(absl::Milliseconds(10)).join();
  std::atomic<bool> trained = false;
  std::function<void()> unit = [&] {
    ran_ += 's';
    clock_.Advance(absl::Milliseconds(10));
    if (!trained) worker_.PostSampling(unit);  // so there is always one that waits
  };
  worker_.PostSampling(unit);
  for (int i = 0; i < 3; ++i) Train(absl::Milliseconds(10)).join();
  trained = true;
  worker_.Shutdown();
  ASSERT_EQ(std::count(ran_.begin(), ran_.end(), 't'), 4) << ran_;
  for (size_t at = ran_.find('t'), next = 0; (next = ran_.find('t', at + 1)) != std::string::npos; at = next) {
    EXPECT_GE(next - at, 4u) << ran_;
  }
}

TEST_F(DeviceWorkerTest, CountsTimeAndUnitsByWork) {
  Close();
  PostSampling(absl::Milliseconds(20));
  PostSampling(absl::Milliseconds(5));
  Open();
  Train(absl::Milliseconds(40)).join();
  worker_.Shutdown();
  const DeviceTimes times = worker_.times();
  EXPECT_EQ(times.sampling, absl::Milliseconds(25));
  EXPECT_EQ(times.training, absl::Milliseconds(40));
  EXPECT_EQ(times.sampling_units, 3);
  EXPECT_EQ(times.training_units, 1);
}

TEST_F(DeviceWorkerTest, ShutdownRunsWaitingSamplingAndRefusesNewWork) {
  Close();
  PostSampling(absl::Milliseconds(1));
  Open();
  worker_.Shutdown();
  EXPECT_EQ(ran_, "s");
  EXPECT_FALSE(worker_.PostSampling([] { FAIL(); }));
  EXPECT_TRUE(absl::IsUnavailable(worker_.RunTraining([] { return absl::OkStatus(); })));
}

// With streams that run side by side: a thread each for sampling and training.
class ConcurrentWorkerTest : public ::testing::Test {
 protected:
  using FakeBackend = boss::testing::FakeBackend;

  // A training unit that has begun and ends with End().
  void BeginTraining() {
    trainer_ = std::thread([this] {
      EXPECT_TRUE(worker_
                      .RunTraining([&] {
                        training_ = true;
                        begun_.Notify();
                        end_.WaitForNotification();
                        training_ = false;
                        return absl::OkStatus();
                      })
                      .ok());
    });
    begun_.WaitForNotification();
  }
  void End() {
    end_.Notify();
    trainer_.join();
  }

  const std::shared_ptr<FakeBackend> backend_ = std::make_shared<FakeBackend>();
  boss::testing::ManualClock clock_;
  std::thread trainer_;
  absl::Notification begun_, end_;
  std::atomic<bool> training_ = false;
  DeviceWorker worker_{{.num_threads = 1, .training_share = 0.25, .backend = backend_}, clock_};
};

TEST_F(ConcurrentWorkerTest, TrainingRunsBesideSamplingOnAStreamOfItsOwn) {
  absl::Notification sampling, trained;
  std::optional<StreamPriority> sampling_stream, training_stream;
  worker_.PostSampling([&] {
    sampling_stream = FakeBackend::CurrentStream();
    sampling.Notify();
    trained.WaitForNotification();  // for ever, if one waited for the other
  });
  sampling.WaitForNotification();
  EXPECT_TRUE(worker_
                  .RunTraining([&] {
                    training_stream = FakeBackend::CurrentStream();
                    trained.Notify();
                    return absl::OkStatus();
                  })
                  .ok());
  worker_.Shutdown();
  EXPECT_EQ(sampling_stream, StreamPriority::kHigh);
  EXPECT_EQ(training_stream, StreamPriority::kLow);
}

TEST_F(ConcurrentWorkerTest, WorkIsDoneWhereItIsHandedOver) {
  const auto waits = [&] { return std::vector<int>{backend_->caller_waits, backend_->training_waits}; };
  std::vector<int> in_unit;
  EXPECT_TRUE(worker_
                  .RunTraining([&] {
                    in_unit = waits();
                    return absl::OkStatus();
                  })
                  .ok());
  EXPECT_EQ(in_unit, (std::vector<int>{1, 0}));
  EXPECT_EQ(waits(), (std::vector<int>{1, 1}));
  EXPECT_TRUE(worker_.Synchronize().ok());
  EXPECT_EQ(backend_->sampling_waits, 1);
}

TEST_F(ConcurrentWorkerTest, TrainingThatIsDueHoldsSamplingUpUntilItsUnitIsOver) {
  // A unit of 10 ms by itself: with a share of a quarter, sampling may have 30 ms before the next one is over.
  EXPECT_TRUE(worker_
                  .RunTraining([&] {
                    clock_.Advance(absl::Milliseconds(10));
                    return absl::OkStatus();
                  })
                  .ok());
  absl::Mutex mutex;
  std::string ran;
  absl::Notification begun;
  std::thread trainer([&] {
    EXPECT_TRUE(worker_
                    .RunTraining([&] {
                      begun.Notify();
                      absl::MutexLock lock(&mutex);
                      const auto three_ran = [&] { return ran.size() >= 3; };
                      mutex.Await(absl::Condition(&three_ran));
                      ran += 't';
                      return absl::OkStatus();
                    })
                    .ok());
  });
  begun.WaitForNotification();
  for (int i = 0; i < 5; ++i) {
    worker_.PostSampling([&] {
      clock_.Advance(absl::Milliseconds(10));
      absl::MutexLock lock(&mutex);
      ran += 's';
    });
  }
  trainer.join();
  worker_.Shutdown();
  EXPECT_EQ(ran, "ssstss");
}

TEST_F(ConcurrentWorkerTest, NoTrainingRunsBesideAUnitThatRunsAlone) {
  BeginTraining();
  bool alone = false;
  std::thread recorder([&] {
    EXPECT_EQ(worker_.exclusive_executor().Run([&] {
      alone = !training_;
      return absl::DataLossError("x");
    }),
              absl::DataLossError("x"));
  });
  End();
  recorder.join();
  EXPECT_TRUE(alone);
}

TEST_F(ConcurrentWorkerTest, ShutdownEndsBothThreads) {
  bool ran = false;
  BeginTraining();
  worker_.PostSampling([&] { ran = true; });
  End();
  worker_.Shutdown();
  EXPECT_TRUE(ran);
  EXPECT_TRUE(absl::IsUnavailable(worker_.RunTraining([] { return absl::OkStatus(); })));
  EXPECT_TRUE(absl::IsUnavailable(worker_.RunAlone([] { return absl::OkStatus(); })));
}

TEST(DeviceWorkerThreadsTest, KeepsItsThreadsWhateverTheOthersSet) {
  const RealClock clock;
  DeviceWorker worker({.num_threads = 2}, clock);
  at::set_num_threads(1);
  int threads = 0;
  const absl::Status status = worker.RunTraining([&] {
    // What asks how many there are: an operator of LibTorch, and a kernel of our own.
    at::zeros({100'000}).add_(1);
    ChannelsLastNorm(at::zeros({4, 32, 16, 16}), {}, at::ones({32}), at::zeros({32}), {.groups = 8});
    threads = at::get_num_threads();
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(threads, 2);
  EXPECT_EQ(at::get_num_threads(), 1);
}

}  // namespace
}  // namespace boss::server
