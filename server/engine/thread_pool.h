// Threads for short work that must not run where it was asked for: resolving requests, encoding samples, calls that
// touch the disk.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"

namespace boss::server {

// Runs tasks in the order in which they were posted, each on the next free thread. Thread-safe. Tasks must not throw.
class ThreadPool {
 public:
  explicit ThreadPool(int num_threads);
  // As Shutdown().
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // Returns at once. Whoever posts bounds the number of tasks. False after Shutdown(); then the task is dropped.
  bool Post(std::function<void()> task) ABSL_LOCKS_EXCLUDED(mutex_);
  // As Post, unless `max_waiting` tasks wait already; then false.
  bool TryPost(std::function<void()> task, size_t max_waiting) ABSL_LOCKS_EXCLUDED(mutex_);

  // Runs what was posted, then joins the threads. Idempotent; not to be called from a task.
  void Shutdown() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void ThreadLoop();

  std::mutex mutex_;
  std::condition_variable has_work_;  // a task, or stopping
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::mutex join_mutex_;
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(join_mutex_);
};

// Runs its tasks on a pool, one after another in the order in which they were posted. Thread-safe; may be destroyed
// while tasks wait, which run all the same.
class Strand {
 public:
  explicit Strand(ThreadPool& pool) : state_(std::make_shared<State>(pool)) {}
  // Tasks are dropped once the pool has shut down.
  void Post(std::function<void()> task);

 private:
  struct State {
    explicit State(ThreadPool& pool) : pool(pool) {}
    ThreadPool& pool;
    std::mutex mutex;
    std::deque<std::function<void()>> tasks ABSL_GUARDED_BY(mutex);
    bool running ABSL_GUARDED_BY(mutex) = false;
  };
  static void RunNext(const std::shared_ptr<State>& state);

  std::shared_ptr<State> state_;
};

}  // namespace boss::server
