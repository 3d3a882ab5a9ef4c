// Zip archives whose files are stored as they are, not compressed, as torch.save writes them.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace boss {

// The directory of an archive that lies in memory, with or without the zip64 extension. Reads are thread-safe.
class ZipArchive {
 public:
  // Keeps a view of `bytes`. Time and memory are linear in bytes.size(); checksums are not compared, because torch.save
  // can be told to leave them out. \error DATA_LOSS for a corrupt or truncated archive, files that overlap, or a name
  // that occurs twice; INVALID_ARGUMENT for compressed or encrypted files.
  static absl::StatusOr<ZipArchive> Open(std::string_view bytes);

  // In the directory's order.
  const std::vector<std::string>& names() const { return names_; }
  // The file's bytes, a part of the archive's; nothing if there is none of that name.
  std::optional<std::string_view> Find(std::string_view name) const;

 private:
  std::vector<std::string> names_;
  std::map<std::string, std::string_view, std::less<>> files_;
};

}  // namespace boss
