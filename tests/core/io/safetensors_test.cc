#include "core/io/safetensors.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <random>

#include "core/io/atomic_file.h"
#include "tests/support/temp_folder.h"

namespace boss {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string File(const std::string& header, const std::string& data) {
  const uint64_t size = header.size();
  return std::string(reinterpret_cast<const char*>(&size), sizeof(size)) + header + data;
}

Safetensors EveryDtype() {
  Safetensors contents;
  int64_t numel = 3;
  for (const at::ScalarType type : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kLong, at::kInt, at::kShort,
                                    at::kChar, at::kByte, at::kBool}) {
    contents.tensors.emplace_back(std::string("tensor.") + c10::toString(type),
                                  at::arange(numel++).remainder(2).to(type));
  }
  contents.tensors.emplace_back("matrix", at::arange(6, at::kFloat).view({2, 3}).t());
  contents.tensors.emplace_back("empty", at::empty({0, 4}, at::kFloat));
  contents.tensors.emplace_back("scalar", at::scalar_tensor(2.5, at::kDouble));
  contents.metadata = {{"b", "2"}, {"a", "line\n\"quoted\" \xc3\xa9"}};
  return contents;
}

TEST(SafetensorsTest, RoundTripKeepsValuesAndBytes) {
  const Safetensors contents = EveryDtype();
  const absl::StatusOr<std::string> bytes = SerializeSafetensors(contents);
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  const absl::StatusOr<Safetensors> read = ParseSafetensors(*bytes);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->metadata, contents.metadata);
  ASSERT_EQ(read->tensors.size(), contents.tensors.size());
  EXPECT_TRUE(std::is_sorted(read->tensors.begin(), read->tensors.end(),
                             [](const auto& a, const auto& b) { return a.first < b.first; }));
  for (const auto& [name, tensor] : contents.tensors) {
    const at::Tensor found = read->Find(name);
    ASSERT_TRUE(found.defined()) << name;
    EXPECT_EQ(found.scalar_type(), tensor.scalar_type()) << name;
    EXPECT_TRUE(found.is_contiguous()) << name;
    EXPECT_TRUE(at::equal(found, tensor)) << name;
  }
  EXPECT_FALSE(read->Find("missing").defined());
  EXPECT_EQ(SerializeSafetensors(*read).value(), *bytes);
}

TEST(SafetensorsTest, TensorsShareTheBytesThatHaveAnOwner) {
  const auto bytes = std::make_shared<const std::string>(SerializeSafetensors(EveryDtype()).value());
  const absl::StatusOr<Safetensors> view = ParseSafetensors(bytes);
  ASSERT_TRUE(view.ok()) << view.status();
  size_t shared = 0;
  for (const auto& [name, tensor] : view->tensors) {
    const auto* data = static_cast<const char*>(tensor.const_data_ptr());
    const bool inside = data >= bytes->data() && data < bytes->data() + bytes->size();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(data) % tensor.element_size(), 0u) << name;
    EXPECT_TRUE(at::equal(tensor, EveryDtype().Find(name))) << name;
    shared += inside;
  }
  EXPECT_GT(shared, 2u);
  EXPECT_LT(shared, view->tensors.size());  // the odd sizes leave some unaligned
}

TEST(SafetensorsTest, ALayoutKnowsTheSizeAndWritesOneTensorAtATime) {
  const Safetensors contents = EveryDtype();
  const absl::StatusOr<SafetensorsLayout> layout = SafetensorsLayout::Create(contents);
  ASSERT_TRUE(layout.ok()) << layout.status();
  std::string written;
  size_t pieces = 0;
  ASSERT_TRUE(layout
                  ->Write([&](std::string_view piece) {
                    ++pieces;
                    written += piece;
                    return absl::OkStatus();
                  })
                  .ok());
  EXPECT_EQ(written, SerializeSafetensors(contents).value());
  EXPECT_EQ(layout->file_size(), written.size());
  EXPECT_EQ(pieces, contents.tensors.size());  // the header, and all but the empty one

  int calls = 0;
  const absl::Status status = layout->Write(
      [&](std::string_view) { return ++calls == 3 ? absl::ResourceExhaustedError("full") : absl::OkStatus(); });
  EXPECT_TRUE(absl::IsResourceExhausted(status));
  EXPECT_EQ(calls, 3);
}

TEST(SafetensorsTest, EqualContentsGiveEqualBytesInAnyOrder) {
  Safetensors contents = EveryDtype();
  const std::string bytes = SerializeSafetensors(contents).value();
  std::reverse(contents.tensors.begin(), contents.tensors.end());
  EXPECT_EQ(SerializeSafetensors(contents).value(), bytes);
  uint64_t header_size;
  memcpy(&header_size, bytes.data(), sizeof(header_size));
  EXPECT_EQ(header_size % 8, 0u);
}

TEST(SafetensorsTest, TheLayoutIsTheDocumentedOne) {
  Safetensors contents;
  contents.tensors.emplace_back("b", at::tensor({1, 2}, at::kByte));
  contents.tensors.emplace_back("a", at::tensor({3}, at::kByte));
  const std::string header =
      R"({"a":{"data_offsets":[0,1],"dtype":"U8","shape":[1]},"b":{"data_offsets":[1,3],"dtype":"U8","shape":[2]}})";
  const std::string padding((8 - header.size() % 8) % 8, ' ');
  EXPECT_EQ(SerializeSafetensors(contents).value(), File(header + padding, "\x03\x01\x02"));
}

TEST(SafetensorsTest, WhatCannotBeWrittenIsRefused) {
  const at::Tensor tensor = at::zeros({1}, at::kFloat);
  const auto status = [](std::vector<std::pair<std::string, at::Tensor>> tensors) {
    return SerializeSafetensors(Safetensors{.tensors = std::move(tensors)}).status();
  };
  EXPECT_EQ(status({{"a", tensor}, {"a", tensor}}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status({{"__metadata__", tensor}}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status({{"a", at::Tensor()}}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status({{"\xff", tensor}}).code(), absl::StatusCode::kInvalidArgument);
  const absl::Status complex = status({{"a", at::zeros({1}, at::kComplexFloat)}});
  EXPECT_EQ(complex.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(complex.ToString(), HasSubstr("ComplexFloat"));
}

struct Malformed {
  const char* name;
  std::string header;
  std::string data;
  std::string message;
};

TEST(SafetensorsTest, MalformedHeadersAreDataLossAndNamed) {
  const std::string four(4, '\0');
  const auto one = [](const std::string& entry) { return R"({"a":)" + entry + "}"; };
  const Malformed cases[] = {
      {"no json", "{", four, "no JSON"},
      {"empty header", "", four, "no JSON"},
      {"array", "[]", "", "expected an object"},
      {"number", "1", "", "expected an object"},
      {"rest behind", "{} x", "", "no JSON"},
      {"zero byte", std::string("{}\0x", 4), "", "zero byte"},
      {"no utf-8", "{\"\xff\":1}", "", "no JSON"},
      {"entry is null", one("null"), "", "got null"},
      {"entry is an array", one("[]"), "", "expected an object"},
      {"unknown dtype", one(R"({"dtype":"F33","shape":[1],"data_offsets":[0,4]})"), four, "unknown dtype F33"},
      {"dtype is a number", one(R"({"dtype":32,"shape":[1],"data_offsets":[0,4]})"), four, "expected a string"},
      {"dtype is missing", one(R"({"shape":[1],"data_offsets":[0,4]})"), four, "missing"},
      {"unknown key", one(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1})"), four, "got the key \"x\""},
      {"negative dimension", one(R"({"dtype":"F32","shape":[-1],"data_offsets":[0,4]})"), four,
       "expected an unsigned integer"},
      {"fractional dimension", one(R"({"dtype":"F32","shape":[1.0],"data_offsets":[0,4]})"), four,
       "expected an unsigned integer"},
      {"dimension is a string", one(R"({"dtype":"F32","shape":["1"],"data_offsets":[0,4]})"), four, "got a string"},
      {"nested shape", one(R"({"dtype":"F32","shape":[[1]],"data_offsets":[0,4]})"), four, "got an array"},
      {"dimension beyond int64", one(R"({"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,4]})"), four,
       "too large"},
      {"shape overflows to 4 bytes", one(R"({"dtype":"U8","shape":[4294967297,4294967297,4],"data_offsets":[0,4]})"),
       four, "overflows"},
      {"shape overflows beside 0", one(R"({"dtype":"U8","shape":[0,4611686018427387904,4],"data_offsets":[0,0]})"), "",
       "overflows"},
      {"bytes overflow", one(R"({"dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0]})"), "", "overflows"},
      {"one offset", one(R"({"dtype":"F32","shape":[1],"data_offsets":[0]})"), four, "expected two"},
      {"three offsets", one(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4,8]})"), four, "expected two"},
      {"offsets backwards", one(R"({"dtype":"F32","shape":[1],"data_offsets":[4,0]})"), four, "expected 0 (gap)"},
      {"size against shape", one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,4]})"), four, "expected 8 bytes"},
      {"truncated data", one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})"), four, "truncated"},
      {"data behind the end", one(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})"), four + "x",
       "got 5 bytes, expected 4"},
      {"gap at the start", one(R"({"dtype":"U8","shape":[3],"data_offsets":[1,4]})"), four, "(gap)"},
      {"gap",
       R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})",
       four, "(gap)"},
      {"overlap",
       R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})",
       four, "(overlap)"},
      {"the same bytes twice",
       R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})",
       four, "(overlap)"},
      {"a name twice",
       R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"a":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})",
       four, "\"a\" occurs twice"},
      {"a key twice", one(R"({"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]})"), four,
       "\"dtype\" occurs twice"},
      {"metadata twice", R"({"__metadata__":{},"__metadata__":{}})", "", "occurs twice"},
      {"a metadata key twice", R"({"__metadata__":{"k":"1","k":"2"}})", "", "\"k\" occurs twice"},
      {"metadata is a number", R"({"__metadata__":{"k":1}})", "", "expected a string"},
      {"metadata is nested", R"({"__metadata__":{"k":{}}})", "", "got an object"},
      {"bool beyond 1", one(R"({"dtype":"BOOL","shape":[1],"data_offsets":[0,1]})"), "\x02", "neither 0 nor 1"},
  };
  for (const Malformed& malformed : cases) {
    const absl::Status status = ParseSafetensors(File(malformed.header, malformed.data)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << malformed.name << ": " << status;
    EXPECT_THAT(status.ToString(), HasSubstr(malformed.message)) << malformed.name;
  }
}

TEST(SafetensorsTest, HeaderLengthIsChecked) {
  std::string file = File("{}", "");
  EXPECT_TRUE(ParseSafetensors(file).ok());
  for (const uint64_t size : {uint64_t{3}, uint64_t{100'000'001}, uint64_t{1} << 63, ~uint64_t{0}, ~uint64_t{0} - 7}) {
    memcpy(file.data(), &size, sizeof(size));
    EXPECT_EQ(ParseSafetensors(file).status().code(), absl::StatusCode::kDataLoss) << size;
  }
}

TEST(SafetensorsTest, DeepNestingIsRefused) {
  EXPECT_EQ(ParseSafetensors(File(std::string(5'000'000, '['), "")).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(ParseSafetensors(File(R"({"a":)" + std::string(5'000'000, '['), "")).status().code(),
            absl::StatusCode::kDataLoss);
}

TEST(SafetensorsTest, LongForeignNamesDoNotFillMessages) {
  const absl::Status status = ParseSafetensors(File("{\"" + std::string(100'000, 'n') + "\":1}", "")).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_LT(status.message().size(), 1000u);
}

TEST(SafetensorsTest, EveryTruncationIsDataLoss) {
  const std::string bytes = SerializeSafetensors(EveryDtype()).value();
  for (size_t size = 0; size < bytes.size(); ++size) {
    ASSERT_EQ(ParseSafetensors(std::string_view(bytes).substr(0, size)).status().code(), absl::StatusCode::kDataLoss)
        << size;
  }
}

TEST(SafetensorsTest, RandomDamageOfTheHeaderNeverYieldsAnInconsistentFile) {
  const std::string bytes = SerializeSafetensors(EveryDtype()).value();
  std::mt19937 random(5);
  int refused = 0;
  for (int round = 0; round < 2000; ++round) {
    std::string damaged = bytes;
    for (int i = 0; i < 2; ++i) damaged[random() % 700] = static_cast<char>(random());
    const absl::StatusOr<Safetensors> read = ParseSafetensors(damaged);
    if (!read.ok()) {
      ++refused;
      ASSERT_EQ(read.status().code(), absl::StatusCode::kDataLoss);
      continue;
    }
    size_t total = 0;
    for (const auto& [name, tensor] : read->tensors) total += tensor.nbytes();
    ASSERT_LE(total, bytes.size());
  }
  EXPECT_GT(refused, 1000);
}

TEST(SafetensorsTest, ReferenceVectorsAreRead) {
  for (const char* name : {"ddpmpp_tiny", "ncsnpp_tiny"}) {
    const absl::StatusOr<Safetensors> golden =
        ReadSafetensors(std::string(BOSS_SOURCE_DIR "/tests/golden/") + name + ".golden.safetensors");
    ASSERT_TRUE(golden.ok()) << golden.status();
    const at::Tensor cost = golden->Find("cost_matrix");
    ASSERT_TRUE(cost.defined());
    EXPECT_EQ(cost.scalar_type(), at::kDouble);
    EXPECT_THAT(cost.sizes().vec(), ElementsAre(51, 51));
    EXPECT_TRUE(at::equal(cost, cost.triu()));
    EXPECT_THAT(golden->Find("noise").sizes().vec(), ElementsAre(8, 3, 16, 16));
    EXPECT_TRUE(at::isfinite(golden->Find("velocity.ema")).all().item<bool>());
  }
}

TEST(SafetensorsTest, FilesAreWrittenAndRead) {
  const testing::TempFolder folder;
  ASSERT_TRUE(WriteSafetensors(folder / "file", EveryDtype()).ok());
  EXPECT_EQ(ReadFile(folder / "file").value(), SerializeSafetensors(EveryDtype()).value());
  EXPECT_TRUE(ReadSafetensors(folder / "file").ok());
  EXPECT_EQ(ReadSafetensors(folder / "missing").status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(WriteFileAtomically(folder / "file", "short").ok());
  const absl::Status status = ReadSafetensors(folder / "file").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(status.ToString(), HasSubstr(folder / "file"));
}

}  // namespace
}  // namespace boss
