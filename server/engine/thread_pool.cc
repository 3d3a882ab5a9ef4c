#include "server/engine/thread_pool.h"

#include <limits>
#include <utility>

namespace boss::server {

ThreadPool::ThreadPool(int num_threads) {
  absl::MutexLock lock(&join_mutex_);
  for (int i = 0; i < num_threads; ++i) threads_.emplace_back([this] { ThreadLoop(); });
}

ThreadPool::~ThreadPool() { Shutdown(); }

bool ThreadPool::Post(std::function<void()> task) {
  return TryPost(std::move(task), std::numeric_limits<size_t>::max());
}

bool ThreadPool::TryPost(std::function<void()> task, size_t max_waiting) {
  absl::MutexLock lock(&mutex_);
  if (stopping_ || tasks_.size() >= max_waiting) return false;
  tasks_.push_back(std::move(task));
  return true;
}

void ThreadPool::Shutdown() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  absl::MutexLock lock(&join_mutex_);
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void ThreadPool::ThreadLoop() {
  while (true) {
    std::function<void()> task;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(this, &ThreadPool::HasWork));
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

void Strand::Post(std::function<void()> task) {
  {
    absl::MutexLock lock(&state_->mutex);
    state_->tasks.push_back(std::move(task));
    if (state_->running) return;
    state_->running = true;
  }
  state_->pool.Post([state = state_] { RunNext(state); });
}

void Strand::RunNext(const std::shared_ptr<State>& state) {
  std::function<void()> task;
  {
    absl::MutexLock lock(&state->mutex);
    task = std::move(state->tasks.front());
    state->tasks.pop_front();
  }
  task();
  task = nullptr;  // what it owns is released before the next one runs
  {
    absl::MutexLock lock(&state->mutex);
    if (state->tasks.empty()) {
      state->running = false;
      return;
    }
  }
  // One task a turn, so that strands share the pool's threads fairly. While the pool shuts down it takes no more, so the rest runs here.
  if (!state->pool.Post([state] { RunNext(state); })) RunNext(state);
}

}  // namespace boss::server
