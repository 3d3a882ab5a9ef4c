#include "core/io/image_dataset.h"

#include <ATen/ATen.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "core/base/status_macros.h"
#include "core/base/torch_guard.h"
#include "core/io/atomic_file.h"
#include "core/io/png.h"

namespace boss {
namespace {

constexpr uint32_t kIdxImages = 0x803;  // unsigned bytes, three dimensions
constexpr uint32_t kIdxLabels = 0x801;  // unsigned bytes, one dimension
constexpr size_t kReadChunk = size_t{1} << 20;
constexpr char kFashionMnistFolder[] = "/usr/share/datasets/fashion-mnist";
constexpr std::array kFashionMnistLabels = {"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
                                            "Sandal",      "Shirt",   "Sneaker",  "Bag",   "Ankle boot"};

struct IdxFile {
  std::vector<int64_t> sizes;
  std::string values;
};

uint32_t BigEndian32(const char* bytes) {
  const auto* b = reinterpret_cast<const unsigned char*>(bytes);
  return uint32_t{b[0]} << 24 | uint32_t{b[1]} << 16 | uint32_t{b[2]} << 8 | uint32_t{b[3]};
}

// Reads up to `size` bytes; fewer at the end of the file. Grows chunk by chunk, so that a size out of a corrupt header
// allocates nothing.
absl::StatusOr<std::string> ReadUpTo(gzFile file, uint64_t size, const std::string& path) {
  std::string bytes;
  while (bytes.size() < size) {
    const size_t old = bytes.size();
    const size_t want = static_cast<size_t>(std::min<uint64_t>(kReadChunk, size - old));
    bytes.resize(old + want);
    const int got = gzread(file, bytes.data() + old, static_cast<unsigned>(want));
    if (got < 0) {
      int code = Z_OK;
      return absl::DataLossError(absl::StrCat("read ", path, ": ", gzerror(file, &code)));
    }
    bytes.resize(old + static_cast<size_t>(got));
    if (static_cast<size_t>(got) < want) break;
  }
  return bytes;
}

absl::StatusOr<IdxFile> ReadIdx(const std::string& path, uint32_t expected_magic) {
  errno = 0;
  gzFile file = gzopen(path.c_str(), "rb");
  if (file == nullptr) return ErrnoToStatus(errno == 0 ? ENOMEM : errno, "open", path);
  auto close_file = absl::MakeCleanup([file] { gzclose(file); });

  const size_t dimensions = expected_magic & 0xff;
  BOSS_ASSIGN_OR_RETURN(const std::string header, ReadUpTo(file, 4 + 4 * dimensions, path));
  if (header.size() >= 4 && BigEndian32(header.data()) != expected_magic) {
    return absl::DataLossError(absl::StrFormat("%s: got the magic number %#x, expected %#x", path,
                                               BigEndian32(header.data()), expected_magic));
  }
  if (header.size() != 4 + 4 * dimensions) {
    return absl::DataLossError(
        absl::StrCat(path, ": got a header of ", header.size(), " bytes, expected ", 4 + 4 * dimensions));
  }
  IdxFile idx;
  int64_t count = 1;
  for (size_t i = 0; i < dimensions; ++i) {
    const int64_t size = BigEndian32(header.data() + 4 + 4 * i);
    if (size == 0 || __builtin_mul_overflow(count, size, &count)) {
      return absl::DataLossError(
          absl::StrCat(path, ": got size ", size, " in dimension ", i, ", expected a positive one that fits"));
    }
    idx.sizes.push_back(size);
  }
  BOSS_ASSIGN_OR_RETURN(idx.values, ReadUpTo(file, static_cast<uint64_t>(count), path));
  if (idx.values.size() != static_cast<uint64_t>(count)) {
    return absl::DataLossError(
        absl::StrCat(path, ": got ", idx.values.size(), " bytes of data, expected ", count, " (truncated)"));
  }
  // Reading past the end also makes zlib compare its checksum.
  BOSS_ASSIGN_OR_RETURN(const std::string rest, ReadUpTo(file, 1, path));
  if (!rest.empty())
    return absl::DataLossError(absl::StrCat(path, ": got more data than the expected ", count, " bytes"));
  int code = Z_OK;
  const char* message = gzerror(file, &code);
  if (code != Z_OK) return absl::DataLossError(absl::StrCat("read ", path, ": ", message));
  return idx;
}

at::Tensor ToTensor(std::string_view values, at::IntArrayRef shape) {
  at::Tensor tensor = at::empty(shape, at::TensorOptions(at::kByte));
  std::memcpy(tensor.mutable_data_ptr(), values.data(), values.size());
  return tensor;
}

// The entries of a folder with their names in order; hidden ones are left out.
absl::StatusOr<std::vector<std::filesystem::directory_entry>> ListFolder(const std::string& folder) {
  std::vector<std::filesystem::directory_entry> entries;
  std::error_code error;
  std::filesystem::directory_iterator iterator(folder, error);
  for (; !error && iterator != std::filesystem::directory_iterator(); iterator.increment(error)) {
    if (!absl::StartsWith(iterator->path().filename().string(), ".")) entries.push_back(*iterator);
  }
  if (error) return ErrnoToStatus(error.value(), "list", folder);
  std::sort(entries.begin(), entries.end());
  return entries;
}

// Collects images of one size.
class ImageCollector {
 public:
  absl::Status AddFile(const std::string& path, int64_t label) {
    BOSS_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path));
    absl::StatusOr<Image> image = DecodePng(bytes);
    if (!image.ok()) return absl::Status(image.status().code(), absl::StrCat(path, ": ", image.status().message()));
    if (labels_.empty()) {
      width_ = image->width, height_ = image->height, channels_ = image->channels;
    } else if (image->width != width_ || image->height != height_ || image->channels != channels_) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": got ", image->width, " x ", image->height, " with ",
                                                     image->channels, " channels, expected ", width_, " x ", height_,
                                                     " with ", channels_, " as the images before it"));
    }
    pixels_.append(image->pixels.begin(), image->pixels.end());
    labels_.push_back(label);
    return absl::OkStatus();
  }

  // Adds every PNG file among the entries.
  absl::Status AddFiles(const std::vector<std::filesystem::directory_entry>& entries, int64_t label) {
    for (const auto& entry : entries) {
      if (!absl::EndsWithIgnoreCase(entry.path().filename().string(), ".png")) continue;
      BOSS_RETURN_IF_ERROR(AddFile(entry.path().string(), label));
    }
    return absl::OkStatus();
  }

  int64_t size() const { return static_cast<int64_t>(labels_.size()); }

  at::Tensor Images() const {
    return ToTensor(pixels_, {size(), height_, width_, channels_}).permute({0, 3, 1, 2}).contiguous();
  }
  at::Tensor Labels() const { return at::tensor(labels_, at::TensorOptions(at::kLong)); }

 private:
  int width_ = 0, height_ = 0, channels_ = 0;
  std::string pixels_;
  std::vector<int64_t> labels_;
};

}  // namespace

absl::StatusOr<ImageDataset> ReadIdxDataset(const std::string& images_path, const std::string& labels_path) {
  BOSS_ASSIGN_OR_RETURN(const IdxFile images, ReadIdx(images_path, kIdxImages));
  ImageDataset dataset;
  if (!labels_path.empty()) {
    BOSS_ASSIGN_OR_RETURN(const IdxFile labels, ReadIdx(labels_path, kIdxLabels));
    if (labels.sizes[0] != images.sizes[0]) {
      return absl::DataLossError(absl::StrCat(labels_path, ": got ", labels.sizes[0], " labels, expected ",
                                              images.sizes[0], " as there are images"));
    }
    dataset.labels = ToTensor(labels.values, labels.sizes).to(at::kLong);
  }
  dataset.images = ToTensor(images.values, {images.sizes[0], 1, images.sizes[1], images.sizes[2]});
  return dataset;
}

absl::StatusOr<ImageDataset> ReadPngFolder(const std::string& folder) {
  BOSS_ASSIGN_OR_RETURN(const auto entries, ListFolder(folder));
  ImageCollector collector;
  ImageDataset dataset;
  for (const auto& entry : entries) {
    if (!entry.is_directory()) continue;
    BOSS_ASSIGN_OR_RETURN(const auto files, ListFolder(entry.path().string()));
    BOSS_RETURN_IF_ERROR(collector.AddFiles(files, static_cast<int64_t>(dataset.label_names.size())));
    dataset.label_names.push_back(entry.path().filename().string());
  }
  const int64_t labelled = collector.size();
  BOSS_RETURN_IF_ERROR(collector.AddFiles(entries, 0));
  if (!dataset.label_names.empty() && collector.size() != labelled) {
    return absl::InvalidArgumentError(
        absl::StrCat(folder, ": got images both in the folder and in sub-folders, expected one or the other"));
  }
  if (collector.size() == 0) return absl::NotFoundError(absl::StrCat(folder, ": no *.png file"));
  return GuardTorch("collect images", [&] {
    dataset.images = collector.Images();
    if (!dataset.label_names.empty()) dataset.labels = collector.Labels();
    return dataset;
  });
}

absl::StatusOr<ImageDataset> ReadFashionMnist(bool train) {
  const std::string prefix = absl::StrCat(kFashionMnistFolder, "/", train ? "train" : "t10k");
  absl::StatusOr<ImageDataset> dataset =
      ReadIdxDataset(absl::StrCat(prefix, "-images-idx3-ubyte.gz"), absl::StrCat(prefix, "-labels-idx1-ubyte.gz"));
  if (absl::IsNotFound(dataset.status())) {
    return absl::NotFoundError(
        absl::StrCat(dataset.status().message(), "; install Debian's package dataset-fashion-mnist"));
  }
  if (dataset.ok()) dataset->label_names.assign(kFashionMnistLabels.begin(), kFashionMnistLabels.end());
  return dataset;
}

absl::StatusOr<ImageDataset> OpenDataset(const std::string& source) {
  if (source == "fashion-mnist-train") return ReadFashionMnist(/*train=*/true);
  if (source == "fashion-mnist-test") return ReadFashionMnist(/*train=*/false);
  absl::string_view rest = source;
  if (absl::ConsumePrefix(&rest, "png:") && !rest.empty()) return ReadPngFolder(std::string(rest));
  if (absl::ConsumePrefix(&rest, "idx:") && !rest.empty()) {
    const std::pair<std::string, std::string> paths = absl::StrSplit(rest, absl::MaxSplits(',', 1));
    return ReadIdxDataset(paths.first, paths.second);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("data set: got \"", source,
                   "\", expected fashion-mnist-train, fashion-mnist-test, idx:IMAGES[,LABELS] or png:FOLDER"));
}

std::vector<std::string> InstalledDatasets() {
  std::vector<std::string> installed;
  for (const auto& [source, file] : {std::pair("fashion-mnist-train", "train"), std::pair("fashion-mnist-test", "t10k")}) {
    if (std::filesystem::exists(absl::StrCat(kFashionMnistFolder, "/", file, "-images-idx3-ubyte.gz"))) installed.push_back(source);
  }
  return installed;
}

at::Tensor ToModelRange(const at::Tensor& images) { return images.to(at::kFloat).div(127.5).sub_(1.0); }

at::Tensor ToUint8(const at::Tensor& images) {
  return at::nan_to_num(images).add(1.0).mul_(127.5).round_().clamp_(0.0, 255.0).to(at::kByte);
}

}  // namespace boss
