#include "server/app/data_metrics.h"

#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace boss::server {
namespace {

CollectedFamily Bytes(const char* name, const char* help, double bytes) {
  return {.name = name, .help = help, .series = {{{}, bytes}}};
}

}  // namespace

std::vector<CollectedFamily> CollectData(const ModelStore& store, const FileSystem& files,
                                         const std::string& data_folder) {
  const StoreTotals totals = store.Totals();
  std::vector<CollectedFamily> families = {
      {.name = "boss_model_versions",
       .help = "Model versions on the disk by state",
       .series = {{{{"state", "published"}}, static_cast<double>(totals.published)},
                  {{{"state", "quarantined"}}, static_cast<double>(totals.quarantined)}}},
      Bytes("boss_store_bytes", "Bytes of the files of all model versions", static_cast<double>(totals.bytes))};
  int64_t journal_bytes = 0;
  for (const char* suffix : {"", "-wal"}) {
    const absl::StatusOr<FileInfo> file = files.Stat(absl::StrCat(data_folder, "/", kJournalFile, suffix));
    if (file.ok()) journal_bytes += file->size_bytes;
  }
  families.push_back(Bytes("boss_journal_bytes", "Bytes of the job journal and its write-ahead log",
                           static_cast<double>(journal_bytes)));
  if (const absl::StatusOr<int64_t> free = files.FreeBytes(data_folder); free.ok()) {
    families.push_back(Bytes("boss_data_free_bytes", "Bytes that may still be written to the data folder's disk",
                             static_cast<double>(*free)));
  }
  std::error_code error;
  const std::filesystem::space_info space = std::filesystem::space(data_folder, error);
  if (!error) {
    families.push_back(
        Bytes("boss_data_size_bytes", "Size of the data folder's disk", static_cast<double>(space.capacity)));
  }
  return families;
}

}  // namespace boss::server
