// Any bytes as a zip archive. Files lie inside it and do not overlap as far as their sizes tell.
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "core/io/zip_archive.h"
#include "tests/fuzz/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using boss::testing::FuzzCheck;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto archive = boss::ZipArchive::Open(bytes);
  if (!archive.ok()) {
    boss::testing::FuzzCheckError(archive.status(), absl::StatusCode::kDataLoss, absl::StatusCode::kInvalidArgument);
    return 0;
  }
  const std::less_equal<const char*> before;
  size_t total = 0;
  for (const std::string& name : archive->names()) {
    const auto file = archive->Find(name);
    FuzzCheck(file.has_value(), "a name without a file");
    FuzzCheck(before(bytes.data(), file->data()) && before(file->data() + file->size(), bytes.data() + size),
              "a file lies outside the archive");
    total += file->size();
  }
  FuzzCheck(total <= size, "the files have more bytes than the archive");
  return 0;
}
