#include "tests/support/fault_vfs.h"

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace boss::testing {
namespace {

// In front of the base VFS's own file in the memory that SQLite allocates.
struct File {
  sqlite3_file head;
  FaultVfs* vfs;
  const char* area;  // nullptr: a temporary file
};

FaultVfs& VfsOf(sqlite3_vfs* vfs) { return *static_cast<FaultVfs*>(vfs->pAppData); }
File& Self(sqlite3_file* file) { return *reinterpret_cast<File*>(file); }
sqlite3_file* Base(sqlite3_file* file) {
  return reinterpret_cast<sqlite3_file*>(reinterpret_cast<char*>(file) + sizeof(File));
}
static_assert(sizeof(File) % alignof(sqlite3_int64) == 0);

// As SQLite's own VFS maps what the system says.
int ErrorCode(int error, int io_error) {
  return error == ENOSPC && io_error == SQLITE_IOERR_WRITE ? SQLITE_FULL : io_error;
}

int RunOperation(FaultVfs& vfs, absl::string_view site, int io_error, absl::FunctionRef<int()> whole,
                 absl::FunctionRef<void()> half) {
  int code = SQLITE_OK;
  const int error = vfs.plan().Run(
      site, [&] { code = whole(); }, half);
  if (error == 0) return code;
  vfs.last_error = error;
  return ErrorCode(error, io_error);
}

void Nothing() {}

PowerLoss* PowerLossOf(const File& self) { return self.vfs->plan().power_loss(); }

int Close(sqlite3_file* file) {
  if (PowerLoss* power_loss = PowerLossOf(Self(file))) {
    absl::MutexLock lock(&power_loss->mutex());
    power_loss->ClosingDatabase(Base(file));
  }
  return Base(file)->pMethods->xClose(Base(file));
}
int Read(sqlite3_file* file, void* data, int size, sqlite3_int64 offset) {
  return Base(file)->pMethods->xRead(Base(file), data, size, offset);
}
int Write(sqlite3_file* file, const void* data, int size, sqlite3_int64 offset) {
  const File& self = Self(file);
  const auto write = [&](int bytes) {
    if (self.area != nullptr && PowerLossOf(self) != nullptr)
      PowerLossOf(self)->WritingDatabase(Base(file), offset, bytes);
    return Base(file)->pMethods->xWrite(Base(file), data, bytes, offset);
  };
  if (self.area == nullptr) return write(size);
  return RunOperation(
      *self.vfs, absl::StrCat(self.area, ".write"), SQLITE_IOERR_WRITE, [&] { return write(size); },
      [&] { write(size / 2); });
}
int Truncate(sqlite3_file* file, sqlite3_int64 size) {
  const File& self = Self(file);
  const auto truncate = [&] {
    if (self.area != nullptr && PowerLossOf(self) != nullptr) {
      sqlite3_int64 file_size = 0;
      Base(file)->pMethods->xFileSize(Base(file), &file_size);
      PowerLossOf(self)->WritingDatabase(Base(file), size, file_size - size);
    }
    return Base(file)->pMethods->xTruncate(Base(file), size);
  };
  if (self.area == nullptr) return truncate();
  return RunOperation(*self.vfs, absl::StrCat(self.area, ".truncate"), SQLITE_IOERR_TRUNCATE, truncate, Nothing);
}
int Sync(sqlite3_file* file, int flags) {
  const File& self = Self(file);
  const auto sync = [&] {
    const int code = Base(file)->pMethods->xSync(Base(file), flags);
    if (code == SQLITE_OK && self.area != nullptr && PowerLossOf(self) != nullptr)
      PowerLossOf(self)->SyncedDatabase(Base(file));
    return code;
  };
  if (self.area == nullptr) return sync();
  return RunOperation(*self.vfs, absl::StrCat(self.area, ".sync"), SQLITE_IOERR_FSYNC, sync, Nothing);
}
int FileSize(sqlite3_file* file, sqlite3_int64* size) { return Base(file)->pMethods->xFileSize(Base(file), size); }
int Lock(sqlite3_file* file, int lock) { return Base(file)->pMethods->xLock(Base(file), lock); }
int Unlock(sqlite3_file* file, int lock) { return Base(file)->pMethods->xUnlock(Base(file), lock); }
int CheckReservedLock(sqlite3_file* file, int* out) {
  return Base(file)->pMethods->xCheckReservedLock(Base(file), out);
}
int FileControl(sqlite3_file* file, int operation, void* argument) {
  return Base(file)->pMethods->xFileControl(Base(file), operation, argument);
}
int SectorSize(sqlite3_file* file) { return Base(file)->pMethods->xSectorSize(Base(file)); }
int DeviceCharacteristics(sqlite3_file* file) { return Base(file)->pMethods->xDeviceCharacteristics(Base(file)); }
int ShmMap(sqlite3_file* file, int page, int page_size, int extend, void volatile** out) {
  return Base(file)->pMethods->xShmMap(Base(file), page, page_size, extend, out);
}
int ShmLock(sqlite3_file* file, int offset, int n, int flags) {
  return Base(file)->pMethods->xShmLock(Base(file), offset, n, flags);
}
void ShmBarrier(sqlite3_file* file) { Base(file)->pMethods->xShmBarrier(Base(file)); }
int ShmUnmap(sqlite3_file* file, int remove) { return Base(file)->pMethods->xShmUnmap(Base(file), remove); }

// Version 2: without xFetch, so that nothing is written through mapped memory.
constexpr sqlite3_io_methods kMethods = {.iVersion = 2,
                                         .xClose = Close,
                                         .xRead = Read,
                                         .xWrite = Write,
                                         .xTruncate = Truncate,
                                         .xSync = Sync,
                                         .xFileSize = FileSize,
                                         .xLock = Lock,
                                         .xUnlock = Unlock,
                                         .xCheckReservedLock = CheckReservedLock,
                                         .xFileControl = FileControl,
                                         .xSectorSize = SectorSize,
                                         .xDeviceCharacteristics = DeviceCharacteristics,
                                         .xShmMap = ShmMap,
                                         .xShmLock = ShmLock,
                                         .xShmBarrier = ShmBarrier,
                                         .xShmUnmap = ShmUnmap,
                                         .xFetch = nullptr,
                                         .xUnfetch = nullptr};

const char* AreaOf(int flags) {
  if ((flags & SQLITE_OPEN_WAL) != 0) return "wal";
  if ((flags & (SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_MAIN_JOURNAL)) != 0) return "journal";
  return nullptr;
}

int Open(sqlite3_vfs* vfs, sqlite3_filename name, sqlite3_file* file, int flags, int* out_flags) {
  File& self = Self(file);
  self.vfs = &VfsOf(vfs);
  self.area = AreaOf(flags);
  sqlite3_vfs* base = self.vfs->base();
  const int code = base->xOpen(base, name, Base(file), flags, out_flags);
  // SQLite closes the file if and only if it has methods.
  self.head.pMethods = Base(file)->pMethods != nullptr ? &kMethods : nullptr;
  return code;
}

int Delete(sqlite3_vfs* vfs, const char* name, int sync_folder) {
  FaultVfs& self = VfsOf(vfs);
  const char* area = absl::EndsWith(name, "-wal") ? "wal" : "journal";
  return RunOperation(
      self, absl::StrCat(area, ".delete"), SQLITE_IOERR_DELETE,
      [&] { return self.base()->xDelete(self.base(), name, sync_folder); }, Nothing);
}
int Access(sqlite3_vfs* vfs, const char* name, int flags, int* out) {
  sqlite3_vfs* base = VfsOf(vfs).base();
  return base->xAccess(base, name, flags, out);
}
int FullPathname(sqlite3_vfs* vfs, const char* name, int size, char* out) {
  sqlite3_vfs* base = VfsOf(vfs).base();
  return base->xFullPathname(base, name, size, out);
}
int Randomness(sqlite3_vfs* vfs, int size, char* out) {
  sqlite3_vfs* base = VfsOf(vfs).base();
  return base->xRandomness(base, size, out);
}
int Sleep(sqlite3_vfs* vfs, int microseconds) {
  sqlite3_vfs* base = VfsOf(vfs).base();
  return base->xSleep(base, microseconds);
}
int CurrentTime(sqlite3_vfs* vfs, double* out) {
  sqlite3_vfs* base = VfsOf(vfs).base();
  return base->xCurrentTime(base, out);
}
int CurrentTimeInt64(sqlite3_vfs* vfs, sqlite3_int64* out) {
  sqlite3_vfs* base = VfsOf(vfs).base();
  return base->xCurrentTimeInt64(base, out);
}
int GetLastError(sqlite3_vfs* vfs, int, char*) { return VfsOf(vfs).last_error; }

std::string NextName() {
  static std::atomic<int> number = 0;
  return absl::StrCat("boss-fault-", ++number);
}

}  // namespace

FaultVfs::FaultVfs(FaultPlan& plan) : plan_(plan), name_(NextName()), base_(sqlite3_vfs_find(nullptr)), vfs_{} {
  vfs_.iVersion = 2;
  vfs_.szOsFile = static_cast<int>(sizeof(File)) + base_->szOsFile;
  vfs_.mxPathname = base_->mxPathname;
  vfs_.zName = name_.c_str();
  vfs_.pAppData = this;
  vfs_.xOpen = Open;
  vfs_.xDelete = Delete;
  vfs_.xAccess = Access;
  vfs_.xFullPathname = FullPathname;
  vfs_.xRandomness = Randomness;
  vfs_.xSleep = Sleep;
  vfs_.xCurrentTime = CurrentTime;
  vfs_.xGetLastError = GetLastError;
  vfs_.xCurrentTimeInt64 = CurrentTimeInt64;
  if (sqlite3_vfs_register(&vfs_, /*makeDflt=*/0) != SQLITE_OK) abort();
}

FaultVfs::~FaultVfs() { sqlite3_vfs_unregister(&vfs_); }

}  // namespace boss::testing
