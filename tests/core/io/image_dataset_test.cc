#include "core/io/image_dataset.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <filesystem>

#include "core/io/atomic_file.h"
#include "core/io/png.h"
#include "tests/support/temp_folder.h"

namespace boss {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string BigEndian(std::initializer_list<uint32_t> numbers) {
  std::string bytes;
  for (const uint32_t number : numbers) {
    for (int shift = 24; shift >= 0; shift -= 8) bytes.push_back(static_cast<char>(number >> shift));
  }
  return bytes;
}

// Three images of 2 x 4 pixels, counted up.
std::string IdxImages() {
  std::string bytes = BigEndian({0x803, 3, 2, 4});
  for (int i = 0; i < 24; ++i) bytes.push_back(static_cast<char>(i * 10));
  return bytes;
}

std::string IdxLabels() { return BigEndian({0x801, 3}) + std::string("\x07\x00\xff", 3); }

void Write(const std::string& path, const std::string& bytes) { ASSERT_TRUE(WriteFileAtomically(path, bytes).ok()); }

void WriteGzip(const std::string& path, const std::string& bytes) {
  gzFile file = gzopen(path.c_str(), "wb");
  ASSERT_NE(file, nullptr);
  ASSERT_EQ(gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size())), static_cast<int>(bytes.size()));
  ASSERT_EQ(gzclose(file), Z_OK);
}

void WritePng(const std::string& path, int width, int height, int channels, uint8_t first) {
  Image image{.width = width, .height = height, .channels = channels};
  for (int i = 0; i < width * height * channels; ++i) image.pixels.push_back(static_cast<uint8_t>(first + i));
  Write(path, EncodePng(image).value());
}

TEST(IdxTest, ReadsPlainAndGzipFiles) {
  const testing::TempFolder folder;
  Write(folder / "images", IdxImages());
  Write(folder / "labels", IdxLabels());
  WriteGzip(folder / "images.gz", IdxImages());
  WriteGzip(folder / "labels.gz", IdxLabels());
  for (const std::string suffix : {"", ".gz"}) {
    const absl::StatusOr<ImageDataset> dataset =
        ReadIdxDataset(folder / ("images" + suffix), folder / ("labels" + suffix));
    ASSERT_TRUE(dataset.ok()) << dataset.status();
    EXPECT_EQ(dataset->images.scalar_type(), at::kByte);
    EXPECT_EQ(dataset->size(), 3);
    EXPECT_TRUE(at::equal(dataset->images, (at::arange(24) * 10).to(at::kByte).view({3, 1, 2, 4})));
    EXPECT_TRUE(at::equal(dataset->labels, at::tensor({7, 0, 255}, at::kLong)));
  }
  const absl::StatusOr<ImageDataset> unlabelled = OpenDataset("idx:" + (folder / "images"));
  ASSERT_TRUE(unlabelled.ok()) << unlabelled.status();
  EXPECT_FALSE(unlabelled->labels.defined());
  EXPECT_TRUE(OpenDataset("idx:" + (folder / "images.gz") + "," + (folder / "labels"))->labels.defined());
}

TEST(IdxTest, EveryTruncationIsDataLoss) {
  const testing::TempFolder folder;
  const std::string plain = IdxImages();
  for (size_t size = 0; size < plain.size(); ++size) {
    Write(folder / "images", plain.substr(0, size));
    ASSERT_EQ(ReadIdxDataset(folder / "images", "").status().code(), absl::StatusCode::kDataLoss) << size;
  }
  WriteGzip(folder / "images.gz", plain);
  const std::string compressed = ReadFile(folder / "images.gz").value();
  // From two bytes on the file is recognised as gzip.
  for (size_t size = 2; size < compressed.size(); ++size) {
    Write(folder / "images.gz", compressed.substr(0, size));
    ASSERT_EQ(ReadIdxDataset(folder / "images.gz", "").status().code(), absl::StatusCode::kDataLoss) << size;
  }
}

TEST(IdxTest, CorruptFilesSayWhatIsWrong) {
  const testing::TempFolder folder;
  Write(folder / "images", IdxImages());
  const auto status = [&folder](const std::string& images) {
    Write(folder / "damaged", images);
    return ReadIdxDataset(folder / "damaged", "").status();
  };
  EXPECT_THAT(status(IdxLabels()).ToString(), HasSubstr("got the magic number 0x801, expected 0x803"));
  EXPECT_THAT(status(IdxImages() + "x").ToString(), HasSubstr("more data"));
  EXPECT_THAT(status(BigEndian({0x803, 0, 2, 4})).ToString(), HasSubstr("got size 0"));
  EXPECT_EQ(status(BigEndian({0x803, 0xffffffff, 0xffffffff, 0xffffffff})).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(status(BigEndian({0x803, 0xffffffff, 0xffff, 1})).code(), absl::StatusCode::kDataLoss);

  Write(folder / "labels", BigEndian({0x801, 2}) + std::string("\x01\x02"));
  const absl::Status labels = ReadIdxDataset(folder / "images", folder / "labels").status();
  EXPECT_EQ(labels.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(labels.ToString(), HasSubstr("got 2 labels, expected 3"));

  WriteGzip(folder / "images.gz", IdxImages());
  std::string compressed = ReadFile(folder / "images.gz").value();
  compressed[compressed.size() - 6] ^= 1;  // in the checksum
  EXPECT_EQ(status(compressed).code(), absl::StatusCode::kDataLoss);

  EXPECT_EQ(ReadIdxDataset(folder / "missing", "").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReadIdxDataset(folder / "images", folder / "missing").status().code(), absl::StatusCode::kNotFound);
}

TEST(PngFolderTest, SubFoldersAreLabels) {
  const testing::TempFolder folder;
  for (const char* label : {"shoes", "bags", ".hidden"}) std::filesystem::create_directory(folder / label);
  WritePng(folder / "shoes/a.png", 3, 2, 3, 100);
  WritePng(folder / "bags/b.PNG", 3, 2, 3, 20);
  WritePng(folder / "bags/a.png", 3, 2, 3, 10);
  WritePng(folder / ".hidden/a.png", 9, 9, 1, 0);
  Write(folder / "bags/notes.txt", "no image");
  const absl::StatusOr<ImageDataset> dataset = OpenDataset("png:" + folder.path());
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  EXPECT_THAT(dataset->images.sizes().vec(), ElementsAre(3, 3, 2, 3));
  EXPECT_THAT(dataset->label_names, ElementsAre("bags", "shoes"));
  EXPECT_TRUE(at::equal(dataset->labels, at::tensor({0, 0, 1}, at::kLong)));
  // Pixels are interleaved in the file and planes in the tensor.
  EXPECT_TRUE(at::equal(dataset->images[2].permute({1, 2, 0}).flatten(), at::arange(100, 118).to(at::kByte)));
  EXPECT_EQ(dataset->images[0][0][0][0].item<int>(), 10);
  EXPECT_EQ(dataset->images[1][0][0][0].item<int>(), 20);
}

TEST(PngFolderTest, FlatFoldersHaveNoLabels) {
  const testing::TempFolder folder;
  WritePng(folder / "2.png", 2, 2, 1, 50);
  WritePng(folder / "1.png", 2, 2, 1, 0);
  const absl::StatusOr<ImageDataset> dataset = ReadPngFolder(folder.path());
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  EXPECT_FALSE(dataset->labels.defined());
  EXPECT_TRUE(at::equal(dataset->images.flatten(), at::tensor({0, 1, 2, 3, 50, 51, 52, 53}, at::kByte)));
}

TEST(PngFolderTest, ErrorsNameTheFile) {
  const testing::TempFolder folder;
  EXPECT_EQ(ReadPngFolder(folder.path()).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReadPngFolder(folder / "missing").status().code(), absl::StatusCode::kNotFound);

  WritePng(folder / "1.png", 2, 2, 1, 0);
  WritePng(folder / "2.png", 2, 3, 1, 0);
  const absl::Status mixed = ReadPngFolder(folder.path()).status();
  EXPECT_EQ(mixed.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(mixed.ToString(), HasSubstr("2.png: got 2 x 3 with 1 channels, expected 2 x 2 with 1"));

  Write(folder / "2.png", "no image");
  const absl::Status corrupt = ReadPngFolder(folder.path()).status();
  EXPECT_EQ(corrupt.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(corrupt.ToString(), HasSubstr("2.png"));

  std::filesystem::remove(folder / "2.png");
  std::filesystem::create_directory(folder / "label");
  EXPECT_EQ(ReadPngFolder(folder.path()).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(FashionMnistTest, IsReadAsPackaged) {
  const absl::StatusOr<ImageDataset> train = OpenDataset("fashion-mnist-train");
  ASSERT_TRUE(train.ok()) << train.status();
  EXPECT_THAT(train->images.sizes().vec(), ElementsAre(60000, 1, 28, 28));
  EXPECT_TRUE(at::equal(at::bincount(train->labels), at::full({10}, 6000, at::kLong)));
  const absl::StatusOr<ImageDataset> test = OpenDataset("fashion-mnist-test");
  ASSERT_TRUE(test.ok()) << test.status();
  EXPECT_THAT(test->images.sizes().vec(), ElementsAre(10000, 1, 28, 28));
  EXPECT_TRUE(at::equal(at::bincount(test->labels), at::full({10}, 1000, at::kLong)));
  ASSERT_EQ(test->label_names.size(), 10u);
  EXPECT_EQ(test->label_names[test->labels[0].item<int64_t>()], "Ankle boot");
}

TEST(OpenDatasetTest, UnknownSourcesAreInvalid) {
  for (const char* source : {"", "mnist", "png:", "idx:", "fashion-mnist"}) {
    EXPECT_EQ(OpenDataset(source).status().code(), absl::StatusCode::kInvalidArgument) << source;
  }
}

TEST(RangeTest, BytesSurviveTheModelRange) {
  const at::Tensor bytes = at::arange(256).to(at::kByte).view({1, 1, 16, 16});
  const at::Tensor range = ToModelRange(bytes);
  EXPECT_EQ(range.scalar_type(), at::kFloat);
  EXPECT_EQ(range.min().item<float>(), -1.0f);
  EXPECT_EQ(range.max().item<float>(), 1.0f);
  EXPECT_TRUE(at::equal(ToUint8(range), bytes));
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_TRUE(
      at::equal(ToUint8(at::tensor({-3.0f, 3.0f, -infinity, infinity})), at::tensor({0, 255, 0, 255}, at::kByte)));
}

}  // namespace
}  // namespace boss
