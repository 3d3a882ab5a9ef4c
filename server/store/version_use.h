// Who needs a published version.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/store/manifest.h"

namespace boss::server {

// Which versions are in use, and by whom. Thread-safe.
class VersionUses {
 public:
  void Add(const VersionKey& key, const std::string& by);
  void Remove(const VersionKey& key, const std::string& by);
  // Who uses the version, sorted; one that uses it twice is there twice.
  std::vector<std::string> Of(const VersionKey& key) const;

 private:
  mutable absl::Mutex mutex_;
  std::multimap<VersionKey, std::string> uses_ ABSL_GUARDED_BY(mutex_);
};

// One use of a version, from ModelStore::Use until this goes away. Moved from, it is a use of nothing.
class VersionUse {
 public:
  VersionUse() = default;
  VersionUse(std::shared_ptr<VersionUses> uses, VersionKey key, std::string by);
  VersionUse(VersionUse&& other) noexcept = default;
  VersionUse& operator=(VersionUse&& other) noexcept;
  ~VersionUse();

  const VersionKey& key() const { return key_; }

 private:
  void Release();

  std::shared_ptr<VersionUses> uses_;  // null: of nothing
  VersionKey key_;
  std::string by_;
};

}  // namespace boss::server
