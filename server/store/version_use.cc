#include "server/store/version_use.h"

#include <algorithm>
#include <utility>

namespace boss::server {

void VersionUses::Add(const VersionKey& key, const std::string& by) {
  absl::MutexLock lock(&mutex_);
  uses_.emplace(key, by);
}

void VersionUses::Remove(const VersionKey& key, const std::string& by) {
  absl::MutexLock lock(&mutex_);
  const auto [begin, end] = uses_.equal_range(key);
  const auto found = std::find_if(begin, end, [&](const auto& use) { return use.second == by; });
  if (found != end) uses_.erase(found);
}

std::vector<std::string> VersionUses::Of(const VersionKey& key) const {
  absl::MutexLock lock(&mutex_);
  std::vector<std::string> users;
  const auto [begin, end] = uses_.equal_range(key);
  for (auto use = begin; use != end; ++use) users.push_back(use->second);
  std::sort(users.begin(), users.end());
  return users;
}

VersionUse::VersionUse(std::shared_ptr<VersionUses> uses, VersionKey key, std::string by)
    : uses_(std::move(uses)), key_(std::move(key)), by_(std::move(by)) {
  uses_->Add(key_, by_);
}

VersionUse& VersionUse::operator=(VersionUse&& other) noexcept {
  if (this == &other) return *this;
  Release();
  uses_ = std::move(other.uses_);
  key_ = std::move(other.key_);
  by_ = std::move(other.by_);
  return *this;
}

VersionUse::~VersionUse() { Release(); }

void VersionUse::Release() {
  if (uses_) uses_->Remove(key_, by_);
  uses_ = nullptr;
}

}  // namespace boss::server
