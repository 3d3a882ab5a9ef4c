#include "server/engine/device_pool.h"

#include <memory>
#include <utility>
#include <vector>

#include "core/base/error_details.h"
#include "tests/server/engine/engine_fixture.h"

namespace boss::server {
namespace {

using testing::CollectingSink;

// Two devices; the pool does not care that both are the CPU.
class DevicePoolTest : public ::testing::Test {
 protected:
  DevicePoolTest() {
    auto store = ModelStore::Open(folder_.path(), clock_);
    EXPECT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    vectors_ = boss::testing::PublishTinyModel(*store_, "vectors", boss::testing::kTinyVectorArchitecture);
    std::vector<PoolDevice> devices;
    for (int i = 0; i < 2; ++i) {
      PoolDevice device;
      device.worker = std::make_unique<DeviceWorker>(DeviceWorkerOptions{.num_threads = 1}, clock_);
      device.registry = std::make_unique<ModelRegistry>(*store_);
      device.engine = std::make_unique<SamplerEngine>(SamplerEngineOptions{.max_batch = 4}, *store_, *device.registry,
                                                      *device.worker, EngineMetrics(), clock_);
      devices.push_back(std::move(device));
    }
    pool_ = std::make_unique<DevicePool>(*store_, std::move(devices));
  }
  ~DevicePoolTest() override {
    if (!open_.HasBeenNotified()) open_.Notify();  // a failed test must not hang
    pool_.reset();
  }

  static SampleRequest Request(int64_t num_samples) {
    SampleRequest request;
    request.model = "vectors";
    request.num_samples = num_samples;
    request.steps = 3;
    return request;
  }
  std::shared_ptr<CollectingSink> Submit(SampleRequest request) {
    auto sink = std::make_shared<CollectingSink>();
    const auto handle = pool_->Submit(std::move(request), sink);
    EXPECT_TRUE(handle.ok()) << handle.status();
    return sink;
  }
  void Run(int64_t num_samples) {
    const auto sink = Submit(Request(num_samples));
    sink->Wait();
    EXPECT_TRUE(sink->status.ok()) << sink->status;
    for (const PoolDevice& device : pool_->devices()) EXPECT_TRUE(device.engine->WaitIdle(absl::InfiniteFuture()));
  }
  // Until the end of the test, or until open_.
  void Close(size_t device) {
    absl::Notification closed;
    pool_->devices()[device].worker->PostSampling([this, &closed] {
      closed.Notify();
      open_.WaitForNotification();
    });
    closed.WaitForNotification();
  }
  ModelState State(size_t device) const { return pool_->devices()[device].registry->Status(vectors_).state; }
  absl::Status Acquire(const std::string& device) {
    absl::Notification done;
    absl::Status result;
    const absl::Status status =
        pool_->Acquire(vectors_, device, [&](const absl::StatusOr<std::shared_ptr<const LoadedModel>>& model) {
          result = model.status();
          done.Notify();
        });
    if (!status.ok()) return status;
    done.WaitForNotification();
    return result;
  }

  boss::testing::TempFolder folder_;
  boss::testing::ManualClock clock_;
  absl::Notification open_;
  std::unique_ptr<ModelStore> store_;
  VersionKey vectors_;
  std::unique_ptr<DevicePool> pool_;
};

TEST_F(DevicePoolTest, ARequestGoesWhereItsVersionIs) {
  for (int i = 0; i < 3; ++i) Run(2);
  EXPECT_EQ(State(0), ModelState::kReady);
  EXPECT_EQ(State(1), ModelState::kUnloaded);
}

TEST_F(DevicePoolTest, AnotherDeviceHelpsWhenThoseWithTheVersionAreBusy) {
  Run(1);
  Close(0);
  const auto waiting = Submit(Request(4));  // a full batch, and so not yet more than loading elsewhere counts
  const auto waiting_too = Submit(Request(1));
  EXPECT_EQ(pool_->devices()[0].engine->queued_samples(), 5);
  const auto elsewhere = Submit(Request(3));
  elsewhere->Wait();  // though the first device is closed
  EXPECT_TRUE(elsewhere->status.ok()) << elsewhere->status;
  EXPECT_EQ(State(1), ModelState::kReady);
  open_.Notify();
  waiting->Wait();
  waiting_too->Wait();
  EXPECT_TRUE(waiting->status.ok() && waiting_too->status.ok());
}

TEST_F(DevicePoolTest, OfTwoDevicesWithTheVersionTheLessLoadedOneIsTaken) {
  Run(1);
  Close(0);
  const auto first = Submit(Request(4)), second = Submit(Request(1)), third = Submit(Request(1));  // loads it there
  third->Wait();
  EXPECT_TRUE(pool_->devices()[1].engine->WaitIdle(absl::InfiniteFuture()));
  Close(1);
  const auto fourth = Submit(Request(3));
  EXPECT_EQ(pool_->devices()[0].engine->queued_samples(), 5);
  EXPECT_EQ(pool_->devices()[1].engine->queued_samples(), 3);
  open_.Notify();
  for (const auto& sink : {first, second, fourth}) sink->Wait();
}

TEST_F(DevicePoolTest, VersionsAreLoadedOnADeviceByNameAndUnloadedEverywhere) {
  EXPECT_EQ(pool_->Status(vectors_).state, ModelState::kUnloaded);
  EXPECT_TRUE(Acquire("cpu").ok());
  EXPECT_TRUE(Acquire("").ok());
  const int64_t bytes = pool_->Status(vectors_).memory_bytes;
  EXPECT_GT(bytes, 0);
  absl::Notification loaded;
  pool_->devices()[1].registry->Acquire(vectors_, [&](const auto&) { loaded.Notify(); });
  loaded.WaitForNotification();
  EXPECT_EQ(pool_->Status(vectors_).state, ModelState::kReady);
  EXPECT_EQ(pool_->Status(vectors_).memory_bytes, 2 * bytes);
  EXPECT_TRUE(pool_->Unload(vectors_).ok());
  EXPECT_NE(State(0), ModelState::kReady);
  EXPECT_NE(State(1), ModelState::kReady);

  const absl::Status unknown = Acquire("cuda:0");
  EXPECT_TRUE(absl::IsInvalidArgument(unknown)) << unknown;
  EXPECT_EQ(FieldOf(unknown), "device");
}

TEST_F(DevicePoolTest, TheFurthestStateOfAllDevicesCounts) {
  absl::Notification loaded;
  pool_->devices()[1].registry->Acquire(vectors_, [&](const auto&) { loaded.Notify(); });
  loaded.WaitForNotification();
  EXPECT_EQ(State(0), ModelState::kUnloaded);
  EXPECT_EQ(pool_->Status(vectors_).state, ModelState::kReady);
  EXPECT_TRUE(pool_->Shape(vectors_).ok());
}

TEST_F(DevicePoolTest, TheEndReachesEveryDevice) {
  Run(1);
  Close(0);
  const auto first = Submit(Request(5));
  Close(1);
  const auto second = Submit(Request(5));
  pool_->StopAccepting();
  EXPECT_TRUE(absl::IsUnavailable(pool_->Submit(Request(1), std::make_shared<CollectingSink>()).status()));
  pool_->CancelAll(absl::UnavailableError("the end"));
  open_.Notify();
  for (const auto& sink : {first, second}) {
    sink->Wait();
    EXPECT_EQ(sink->status, absl::UnavailableError("the end"));
  }
}

TEST_F(DevicePoolTest, AnUnknownModelIsToldByTheEngine) {
  SampleRequest request = Request(1);
  request.model = "nothing";
  const auto sink = Submit(request);
  sink->Wait();
  EXPECT_TRUE(absl::IsNotFound(sink->status)) << sink->status;
}

}  // namespace
}  // namespace boss::server
