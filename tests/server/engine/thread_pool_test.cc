#include "server/engine/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <vector>

#include "absl/synchronization/notification.h"

namespace boss::server {
namespace {

TEST(ThreadPoolTest, ShutdownRunsWhatWasPostedAndRefusesMore) {
  ThreadPool pool(3);
  std::atomic<int> ran = 0;
  for (int i = 0; i < 200; ++i) EXPECT_TRUE(pool.Post([&] { ++ran; }));
  pool.Shutdown();
  EXPECT_EQ(ran, 200);
  EXPECT_FALSE(pool.Post([&] { ++ran; }));
  EXPECT_EQ(ran, 200);
}

TEST(ThreadPoolTest, TryPostRefusesWhenTooManyWait) {
  ThreadPool pool(1);
  absl::Notification started, go;
  pool.Post([&] {
    started.Notify();
    go.WaitForNotification();
  });
  started.WaitForNotification();
  EXPECT_TRUE(pool.TryPost([] {}, 2));
  EXPECT_TRUE(pool.TryPost([] {}, 2));
  EXPECT_FALSE(pool.TryPost([] { ADD_FAILURE(); }, 2));
  go.Notify();
  pool.Shutdown();
}

TEST(StrandTest, RunsOneTaskAtATimeInOrder) {
  ThreadPool pool(4);
  std::vector<int> order;  // without a lock: the strand is one
  {
    Strand strand(pool);
    for (int i = 0; i < 500; ++i) strand.Post([&order, i] { order.push_back(i); });
  }
  pool.Shutdown();
  ASSERT_EQ(order.size(), 500u);
  for (int i = 0; i < 500; ++i) EXPECT_EQ(order[i], i);
}

TEST(StrandTest, StrandsRunBesideEachOther) {
  ThreadPool pool(2);
  Strand first(pool), second(pool);
  absl::Notification from_first, from_second;
  first.Post([&] {
    from_first.Notify();
    from_second.WaitForNotification();
  });
  second.Post([&] {
    from_first.WaitForNotification();
    from_second.Notify();
  });
  from_second.WaitForNotification();
}

}  // namespace
}  // namespace boss::server
