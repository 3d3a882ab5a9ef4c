#include "core/io/atomic_file.h"

#include <cstdint>
#include <memory>

#include "absl/cleanup/cleanup.h"
#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace boss {
namespace {

constexpr int kNameAttempts = 16;
constexpr char kTemporary[] = ".tmp-";

std::string FolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

// Opens a new file beside `path`; mkstemp() would leave it unreadable for everybody else, whatever the umask says.
absl::StatusOr<std::unique_ptr<WritableFile>> CreateTemporary(const std::string& path, const FileSystem& files,
                                                              std::string& temporary) {
  absl::BitGen random;
  for (int attempt = 1;; ++attempt) {
    temporary = absl::StrCat(path, kTemporary, absl::Hex(absl::Uniform<uint64_t>(random), absl::kZeroPad16));
    absl::StatusOr<std::unique_ptr<WritableFile>> file = files.OpenForWriting(temporary, WriteMode::kCreate);
    if (!absl::IsAlreadyExists(file.status()) || attempt == kNameAttempts) return file;
  }
}

}  // namespace

absl::Status WriteFileAtomically(const std::string& path, std::string_view contents, const FileSystem& files) {
  return WriteFileAtomically(
      path, [contents](WritableFile& file) { return file.Append(contents); }, files);
}

absl::Status WriteFileAtomically(const std::string& path, absl::FunctionRef<absl::Status(WritableFile&)> write,
                                 const FileSystem& files) {
  std::string temporary;
  BOSS_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, CreateTemporary(path, files, temporary));
  // What cannot be removed is recognised by its name.
  auto remove_temporary = absl::MakeCleanup([&] { files.RemoveAll(temporary).IgnoreError(); });
  BOSS_RETURN_IF_ERROR(write(*file));
  BOSS_RETURN_IF_ERROR(file->Sync());
  BOSS_RETURN_IF_ERROR(file->Close());
  BOSS_RETURN_IF_ERROR(files.Rename(temporary, path));
  std::move(remove_temporary).Cancel();
  return files.SyncFolder(FolderOf(path));
}

bool IsTemporary(std::string_view file_name) { return file_name.find(kTemporary) != std::string_view::npos; }

}  // namespace boss
