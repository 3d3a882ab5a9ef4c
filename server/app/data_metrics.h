// What the data folder holds, for metrics.
#pragma once

#include <string>
#include <vector>

#include "core/io/file_system.h"
#include "server/metrics/metrics.h"
#include "server/store/model_store.h"

namespace boss::server {

// In the data folder.
inline constexpr char kJournalFile[] = "bossd.db";

// boss_model_versions and boss_store_bytes; boss_journal_bytes, its write-ahead log included; boss_data_free_bytes and
// boss_data_size_bytes of the folder's file system. What the disk does not tell is left out.
std::vector<CollectedFamily> CollectData(const ModelStore& store, const FileSystem& files,
                                         const std::string& data_folder);

}  // namespace boss::server
