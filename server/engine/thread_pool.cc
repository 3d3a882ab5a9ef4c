#include "server/engine/thread_pool.h"

#include <limits>
#include <utility>

namespace boss::server {

ThreadPool::ThreadPool(int num_threads) {
  const std::lock_guard lock(join_mutex_);
  for (int i = 0; i < num_threads; ++i) threads_.emplace_back([this] { ThreadLoop(); });
}

ThreadPool::~ThreadPool() { Shutdown(); }

bool ThreadPool::Post(std::function<void()> task) {
  return TryPost(std::move(task), std::numeric_limits<size_t>::max());
}

bool ThreadPool::TryPost(std::function<void()> task, size_t max_waiting) {
  const std::lock_guard lock(mutex_);
  if (stopping_ || tasks_.size() >= max_waiting) return false;
  tasks_.push_back(std::move(task));
  has_work_.notify_one();
  return true;
}

void ThreadPool::Shutdown() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  has_work_.notify_all();
  const std::lock_guard lock(join_mutex_);
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void ThreadPool::ThreadLoop() {
  while (true) {
    std::function<void()> task;
    {
      std::unique_lock lock(mutex_);
      has_work_.wait(lock, [this] { return stopping_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

void Strand::Post(std::function<void()> task) {
  {
    const std::lock_guard lock(state_->mutex);
    state_->tasks.push_back(std::move(task));
    if (state_->running) return;
    state_->running = true;
  }
  state_->pool.Post([state = state_] { RunNext(state); });
}

void Strand::RunNext(const std::shared_ptr<State>& state) {
  std::function<void()> task;
  {
    const std::lock_guard lock(state->mutex);
    task = std::move(state->tasks.front());
    state->tasks.pop_front();
  }
  task();
  task = nullptr;  // what it owns is released before the next one runs
  {
    const std::lock_guard lock(state->mutex);
    if (state->tasks.empty()) {
      state->running = false;
      return;
    }
  }
  // One task a turn, so that strands share the pool's threads fairly. While the pool shuts down it takes no more, so
  // the rest runs here.
  if (!state->pool.Post([state] { RunNext(state); })) RunNext(state);
}

}  // namespace boss::server
