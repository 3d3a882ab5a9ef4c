// Images to train on and to compare with.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace boss {

struct ImageDataset {
  at::Tensor images;                     // uint8 [N, C, H, W]
  at::Tensor labels;                     // int64 [N], or undefined
  std::vector<std::string> label_names;  // may be empty
  int64_t size() const { return images.size(0); }
};

// An IDX pair (LeCun's MNIST format), gzip or plain; `labels_path` may be empty. Sizes and magic numbers are checked.
// \error NOT_FOUND, DATA_LOSS (what, got, expected).
absl::StatusOr<ImageDataset> ReadIdxDataset(const std::string& images_path, const std::string& labels_path);

// Every *.png under `folder` in the order of names, all of one size; RGB or grey, alpha composited on white. Sub-folders, if there are any, are
// the labels, in the order of names. \error NOT_FOUND, INVALID_ARGUMENT for mixed sizes, DATA_LOSS for a corrupt file.
absl::StatusOr<ImageDataset> ReadPngFolder(const std::string& folder);

// Debian's package dataset-fashion-mnist: 60,000 training or 10,000 test images, with the ten label names.
// \error NOT_FOUND naming the package if it is not installed.
absl::StatusOr<ImageDataset> ReadFashionMnist(bool train);

// `source`: "fashion-mnist-train", "fashion-mnist-test", "idx:IMAGES[,LABELS]" or "png:FOLDER". \error INVALID_ARGUMENT for anything else.
absl::StatusOr<ImageDataset> OpenDataset(const std::string& source);

// Those sources without a path whose files are installed.
std::vector<std::string> InstalledDatasets();

// uint8 [0, 255] -> float32 [-1, 1].
at::Tensor ToModelRange(const at::Tensor& images);
// float32 [-1, 1] -> uint8, clamped and rounded.
at::Tensor ToUint8(const at::Tensor& images);

}  // namespace boss
