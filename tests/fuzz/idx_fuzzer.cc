// Any bytes as a file of images in the IDX format, plain or packed by gzip.
#include <ATen/ATen.h>

#include <cstdint>
#include <string_view>

#include "core/io/image_dataset.h"
#include "tests/fuzz/check.h"
#include "tests/fuzz/memory_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using boss::testing::FuzzCheck;
  static const boss::testing::MemoryFile file;
  file.Write({reinterpret_cast<const char*>(data), size});
  const auto dataset = boss::ReadIdxDataset(file.path(), /*labels_path=*/"");
  if (!dataset.ok()) {
    boss::testing::FuzzCheckError(dataset.status(), absl::StatusCode::kDataLoss);
    return 0;
  }
  FuzzCheck(dataset->images.dim() == 4 && dataset->images.numel() > 0, "images without pixels");
  FuzzCheck(dataset->images.clone().numel() == dataset->images.numel(), "the clone has another size");
  FuzzCheck(!dataset->labels.defined(), "labels out of nothing");
  // gzip makes a byte of at most 1,032.
  FuzzCheck(dataset->images.nbytes() <= 1032 * size, "more pixels than the file can hold");
  return 0;
}
