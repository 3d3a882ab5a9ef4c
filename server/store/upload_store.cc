#include "server/store/upload_store.h"

#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/base/error_details.h"
#include "core/base/parse_json.h"
#include "core/base/status_macros.h"
#include "core/io/atomic_file.h"
#include "server/store/json_reader.h"

namespace boss::server {
namespace {

constexpr char kRecordFile[] = "upload.json";
constexpr char kUnnamed[] = ".unnamed-";
// How far behind the recorded activity of a long upload may be.
constexpr absl::Duration kRecordInterval = absl::Hours(1);
constexpr absl::Duration kRetryDelay = absl::Seconds(1);

absl::Status OtherContents(const std::string& id) {
  return WithField(absl::AlreadyExistsError(absl::StrCat("start.upload_id: \"", id,
                                                         "\" belongs to another upload: take another id, or send what "
                                                         "that one began with")),
                   "start.upload_id");
}

}  // namespace

// ---- The disk ----

std::string UploadStore::FolderOf(const std::string& name) const { return absl::StrCat(folder_, "/", name); }

absl::StatusOr<UploadStore::Record> UploadStore::ReadRecord(const std::string& name) const {
  BOSS_ASSIGN_OR_RETURN(const FileInfo info, files_.Stat(FolderOf(name)));
  if (info.kind != FileInfo::Kind::kFolder) return absl::NotFoundError(absl::StrCat(name, " is no folder"));
  BOSS_ASSIGN_OR_RETURN(const std::string text, files_.ReadFile(absl::StrCat(FolderOf(name), "/", kRecordFile)));
  Record record;
  const absl::StatusOr<Json> json = ParseJson(text);
  if (!json.ok()) return absl::NotFoundError(json.status().message());
  JsonReader reader(*json, "upload");
  reader.Required("digest", record.digest);
  record.active = absl::InfinitePast();
  reader.Time("active", record.active);
  if (!reader.status().ok()) return absl::NotFoundError(reader.status().message());
  return record;
}

absl::Status UploadStore::WriteRecord(const std::string& name, const UploadPlan& plan, absl::Time active) const {
  Json json = {{"digest", plan.digest}};
  PutTime(json, "active", active);
  return WriteFileAtomically(absl::StrCat(FolderOf(name), "/", kRecordFile), DumpJson(json), files_);
}

void UploadStore::Sweep() {
  const std::lock_guard lock(mutex_);
  SweepLocked();
}

void UploadStore::SweepLocked() const {
  const absl::StatusOr<std::vector<std::string>> names = files_.ListFolder(folder_);
  if (!names.ok()) return;
  for (const std::string& name : *names) {
    if (held_.contains(name)) continue;
    if (!absl::StartsWith(name, ".")) {
      const absl::StatusOr<Record> record = ReadRecord(name);
      // What cannot be read today may be read tomorrow.
      if (!record.ok() && !absl::IsNotFound(record.status())) continue;
      if (record.ok() && clock_.Now() - record->active < kUploadLifetime) continue;
    }
    files_.RemoveAll(FolderOf(name)).IgnoreError();  // the next sweep tries again
  }
}

absl::StatusOr<std::unique_ptr<SegmentedFile>> UploadStore::OpenFile(const std::string& name, const UploadPlan& plan,
                                                                     bool exists) const {
  if (!exists) {
    BOSS_RETURN_IF_ERROR(files_.RemoveAll(FolderOf(name)));
    BOSS_RETURN_IF_ERROR(files_.CreateFolders(FolderOf(name)));
  }
  BOSS_RETURN_IF_ERROR(WriteRecord(name, plan, clock_.Now()));
  return SegmentedFile::Open(files_, FolderOf(name));
}

// ---- Holding ----

absl::StatusOr<std::unique_ptr<UploadStore>> UploadStore::Open(std::string folder, const FileSystem& files,
                                                               const Clock& clock) {
  auto store = std::unique_ptr<UploadStore>(new UploadStore(std::move(folder), files, clock));
  BOSS_RETURN_IF_ERROR(files.CreateFolders(store->folder_));
  const std::lock_guard lock(store->mutex_);
  store->SweepLocked();
  return store;
}

absl::StatusOr<int64_t> UploadStore::Query(const UploadPlan& plan) {
  const std::lock_guard lock(mutex_);
  if (const auto found = held_.find(plan.id); found != held_.end()) {
    const std::shared_ptr<Entry> entry = found->second;
    if (entry->plan.digest != plan.digest) return OtherContents(plan.id);
    const std::lock_guard entry_lock(entry->mutex);
    if (entry->sealed) return entry->file->size();
    entry->holder = nullptr;
    held_.erase(found);
    entry->file->Commit().IgnoreError();  // what could not be committed is not counted
    return entry->file->committed_bytes();
  }
  const absl::StatusOr<Record> record = ReadRecord(plan.id);
  if (absl::IsNotFound(record.status())) return 0;
  BOSS_RETURN_IF_ERROR(record.status());
  if (record->digest != plan.digest) return OtherContents(plan.id);
  BOSS_ASSIGN_OR_RETURN(const std::unique_ptr<SegmentedFile> file, SegmentedFile::Open(files_, FolderOf(plan.id)));
  return file->committed_bytes();
}

absl::StatusOr<std::unique_ptr<Upload>> UploadStore::Take(const UploadPlan& plan) {
  const std::lock_guard lock(mutex_);
  const std::string name = plan.id.empty() ? absl::StrCat(kUnnamed, next_unnamed_++) : plan.id;
  if (const auto found = held_.find(name); found != held_.end()) {
    const std::shared_ptr<Entry>& entry = found->second;
    if (entry->plan.digest != plan.digest) return OtherContents(plan.id);
    const std::lock_guard entry_lock(entry->mutex);
    if (entry->sealed) {
      return WithRetryDelay(absl::UnavailableError(absl::StrCat("upload ", plan.id, " is just being checked")),
                            kRetryDelay);
    }
    entry->file->Commit().IgnoreError();  // what could not be committed is not there
    auto upload = std::unique_ptr<Upload>(new Upload(*this, entry, /*resumed=*/true, entry->file->size()));
    entry->holder = upload.get();
    return upload;
  }
  SweepLocked();
  bool exists = false;
  if (!plan.id.empty()) {
    const absl::StatusOr<Record> record = ReadRecord(name);
    if (!record.ok() && !absl::IsNotFound(record.status())) return record.status();
    if (record.ok() && record->digest != plan.digest) return OtherContents(plan.id);
    exists = record.ok();
  }
  absl::StatusOr<std::unique_ptr<SegmentedFile>> file = OpenFile(name, plan, exists);
  if (!file.ok()) {
    if (!exists) files_.RemoveAll(FolderOf(name)).IgnoreError();  // else swept later
    return file.status();
  }
  auto entry = std::make_shared<Entry>();
  entry->name = name;
  entry->plan = plan;
  const std::lock_guard entry_lock(entry->mutex);
  entry->file = *std::move(file);
  entry->recorded = clock_.Now();
  auto upload = std::unique_ptr<Upload>(new Upload(*this, entry, exists, entry->file->size()));
  entry->holder = upload.get();
  held_.emplace(name, entry);
  return upload;
}

int64_t UploadStore::PromisedBytes() const {
  const std::lock_guard lock(mutex_);
  int64_t bytes = 0;
  for (const auto& [name, entry] : held_) {
    const std::lock_guard entry_lock(entry->mutex);
    bytes += entry->plan.total_bytes - entry->file->size();
  }
  return bytes;
}

void UploadStore::Release(const std::shared_ptr<Entry>& entry, const Upload* holder, bool remove) {
  const std::lock_guard lock(mutex_);
  const std::lock_guard entry_lock(entry->mutex);
  if (entry->holder != holder) return;
  entry->holder = nullptr;
  held_.erase(entry->name);
  if (remove || entry->plan.id.empty()) {
    entry->file.reset();
    files_.RemoveAll(FolderOf(entry->name)).IgnoreError();  // else swept later
    return;
  }
  entry->file->Commit().IgnoreError();  // what could not be committed has to be sent again
  WriteRecord(entry->name, entry->plan, clock_.Now()).IgnoreError();
}

// ---- One hold ----

Upload::~Upload() { store_.Release(entry_, this, /*remove=*/false); }

void Upload::Remove() { store_.Release(entry_, this, /*remove=*/true); }

absl::Status Upload::CheckHeld() const {
  if (entry_->holder == this) return absl::OkStatus();
  return absl::AbortedError(absl::StrCat("another connection goes on with upload ", entry_->plan.id));
}

absl::Status Upload::Append(std::string_view data) {
  const std::lock_guard lock(entry_->mutex);
  BOSS_RETURN_IF_ERROR(CheckHeld());
  const int64_t committed = entry_->file->committed_bytes();
  BOSS_RETURN_IF_ERROR(entry_->file->Append(data));
  size_ = entry_->file->size();
  const absl::Time now = store_.clock_.Now();
  if (entry_->file->committed_bytes() > committed && now - entry_->recorded >= kRecordInterval) {
    store_.WriteRecord(entry_->name, entry_->plan, now).IgnoreError();  // the next piece tries again
    entry_->recorded = now;
  }
  return absl::OkStatus();
}

absl::Status Upload::Seal() {
  const std::lock_guard lock(entry_->mutex);
  BOSS_RETURN_IF_ERROR(CheckHeld());
  BOSS_RETURN_IF_ERROR(entry_->file->Commit());
  entry_->sealed = true;
  return absl::OkStatus();
}

absl::Status Upload::Read(absl::FunctionRef<absl::Status(std::string_view)> visit) const {
  const SegmentedFile* file = nullptr;
  {
    const std::lock_guard lock(entry_->mutex);
    BOSS_RETURN_IF_ERROR(CheckHeld());
    file = entry_->file.get();
  }
  return file->Read(visit);  // sealed: nobody else touches it
}

}  // namespace boss::server
