#include "tests/support/power_loss.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <iterator>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace boss::testing {
namespace {

std::string FolderOf(const std::string& path) { return path.substr(0, path.rfind('/')); }

// The path after `from`, a file or folder, was renamed.
std::string Moved(const std::string& path, const std::string& from, const std::string& to) {
  if (path == from) return to;
  return absl::StartsWith(path, absl::StrCat(from, "/")) ? absl::StrCat(to, path.substr(from.size())) : path;
}

}  // namespace

PowerLoss::PowerLoss(std::string attic) : attic_(std::move(attic)) {
  std::filesystem::remove_all(attic_);
  std::filesystem::create_directories(attic_);
}

std::string PowerLoss::NewKept() { return absl::StrCat(attic_, "/", next_kept_++); }

void PowerLoss::Created(const std::string& path) {
  changes_.push_back({.kind = Change::Kind::kCreated, .path = path, .from = "", .kept = ""});
}

void PowerLoss::Writing(const std::string& path) {
  const bool known = std::any_of(changes_.begin(), changes_.end(), [&](const Change& change) {
    return change.kind == Change::Kind::kWritten && change.path == path;
  });
  struct stat information;
  if (known || ::stat(path.c_str(), &information) != 0) return;
  changes_.push_back(
      {.kind = Change::Kind::kWritten, .path = path, .from = "", .kept = "", .old_size = information.st_size});
}

void PowerLoss::Synced(const std::string& path) {
  changes_.remove_if(
      [&](const Change& change) { return change.kind == Change::Kind::kWritten && change.path == path; });
}

int PowerLoss::Rename(const std::string& from, const std::string& to) {
  Change change = {.kind = Change::Kind::kRenamed, .path = to, .from = from, .kept = NewKept()};
  if (::link(to.c_str(), change.kept.c_str()) != 0) change.kept.clear();
  if (::rename(from.c_str(), to.c_str()) != 0) return errno;
  changes_.push_back(std::move(change));
  return 0;
}

int PowerLoss::Remove(const std::string& path) {
  Change change = {.kind = Change::Kind::kRemoved, .path = path, .from = "", .kept = NewKept()};
  if (::rename(path.c_str(), change.kept.c_str()) != 0) return errno == ENOENT ? 0 : errno;
  changes_.push_back(std::move(change));
  return 0;
}

void PowerLoss::SyncedFolder(const std::string& path) {
  for (auto it = changes_.begin(); it != changes_.end();) {
    if (it->kind == Change::Kind::kWritten || FolderOf(it->path) != path) {
      ++it;
      continue;
    }
    if (it->kind == Change::Kind::kRenamed) {
      // What was done before happened to what has another name for good now.
      for (auto earlier = changes_.begin(); earlier != it; ++earlier) {
        earlier->path = Moved(earlier->path, it->from, it->path);
        earlier->from = Moved(earlier->from, it->from, it->path);
      }
    }
    std::error_code ignored;
    if (!it->kept.empty()) std::filesystem::remove_all(it->kept, ignored);
    it = changes_.erase(it);
  }
}

void PowerLoss::WritingDatabase(sqlite3_file* file, int64_t offset, int64_t size) {
  OldBytes old;
  sqlite3_int64 file_size = 0;
  file->pMethods->xFileSize(file, &file_size);
  old.offset = offset;
  old.file_size = file_size;
  old.bytes.resize(static_cast<size_t>(std::clamp<int64_t>(file_size - offset, 0, size)));
  if (!old.bytes.empty()) file->pMethods->xRead(file, old.bytes.data(), static_cast<int>(old.bytes.size()), offset);
  database_changes_[file].push_back(std::move(old));
}

void PowerLoss::SyncedDatabase(sqlite3_file* file) { database_changes_.erase(file); }
void PowerLoss::ClosingDatabase(sqlite3_file* file) { database_changes_.erase(file); }

void PowerLoss::Undo(const Change& change) {
  switch (change.kind) {
    case Change::Kind::kCreated:
      ::unlink(change.path.c_str());
      break;
    case Change::Kind::kWritten:
      if (::truncate(change.path.c_str(), change.old_size) != 0) break;  // it has been removed since
      break;
    case Change::Kind::kRenamed:
      ::rename(change.path.c_str(), change.from.c_str());
      if (!change.kept.empty()) ::rename(change.kept.c_str(), change.path.c_str());
      break;
    case Change::Kind::kRemoved:
      ::rename(change.kept.c_str(), change.path.c_str());
      break;
  }
}

void PowerLoss::Strike() {
  for (auto change = changes_.rbegin(); change != changes_.rend(); ++change) Undo(*change);
  for (auto& [file, changes] : database_changes_) {
    for (auto old = changes.rbegin(); old != changes.rend(); ++old) {
      if (!old->bytes.empty())
        file->pMethods->xWrite(file, old->bytes.data(), static_cast<int>(old->bytes.size()), old->offset);
      file->pMethods->xTruncate(file, old->file_size);
    }
  }
}

}  // namespace boss::testing
