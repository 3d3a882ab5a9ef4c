// The safetensors format: an 8-byte little-endian header length, a JSON header, then the tensors' bytes back to back.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/io/file_system.h"

namespace boss {

struct Safetensors {
  std::vector<std::pair<std::string, at::Tensor>>
      tensors;                                  // sorted by name; contiguous, on the CPU, owning their memory
  std::map<std::string, std::string> metadata;  // "__metadata__"
  // The tensor of that name; undefined if there is none.
  at::Tensor Find(std::string_view name) const;
};

// dtypes: F64, F32, F16, BF16, I64, I32, I16, I8, U8, BOOL. Reads are checked: header length, offsets in order without
// gaps or overlap, sizes against shape and dtype without overflow. Thread-safe. \error DATA_LOSS saying what is wrong,
// got and expected, for a corrupt or truncated file; NOT_FOUND if there is none.
absl::StatusOr<Safetensors> ReadSafetensors(const std::string& path, const FileSystem& files = PosixFileSystem());
absl::StatusOr<Safetensors> ParseSafetensors(std::string_view bytes);
// The tensors are views of `bytes`, which live as long as any of them; only what is not aligned is copied.
absl::StatusOr<Safetensors> ParseSafetensors(std::shared_ptr<const std::string> bytes);

// A file that is about to be written, one tensor at a time, so that it needs no memory of its own. The bytes are those
// of SerializeSafetensors.
class SafetensorsLayout {
 public:
  // Shares the tensors with `contents`. \error as SerializeSafetensors.
  static absl::StatusOr<SafetensorsLayout> Create(const Safetensors& contents);

  uint64_t file_size() const { return header_.size() + data_size_; }
  // Gives `sink` the file from its first byte to its last. A tensor that is elsewhere or not contiguous is copied, one
  // at a time. \error the first of `sink`, which is not called again.
  absl::Status Write(absl::FunctionRef<absl::Status(std::string_view)> sink) const;

 private:
  std::string header_;  // the length before it included
  uint64_t data_size_ = 0;
  std::vector<at::Tensor> tensors_;  // sorted by name
};

// The file's bytes; keys sorted, the header padded with spaces to 8 bytes, so that equal contents give equal bytes.
// \error INVALID_ARGUMENT for an unsupported dtype or a name that occurs twice.
absl::StatusOr<std::string> SerializeSafetensors(const Safetensors& contents);
// Atomically (see atomic_file.h).
absl::Status WriteSafetensors(const std::string& path, const Safetensors& contents,
                              const FileSystem& files = PosixFileSystem());

}  // namespace boss
