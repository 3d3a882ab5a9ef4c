#include "core/io/torch_checkpoint.h"

#include <ATen/ATen.h>
#include <caffe2/serialize/inline_container.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>

#include "absl/strings/str_cat.h"
#include "core/io/atomic_file.h"
#include "tests/support/temp_folder.h"

namespace boss {
namespace {

using ::testing::HasSubstr;

std::string GoldenPath(const std::string& name) { return BOSS_SOURCE_DIR "/tests/golden/" + name + ".pth"; }

// The trainable ones among the model's tensors, in order.
std::vector<std::string> ParameterNames(const TorchCheckpoint& checkpoint) {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : checkpoint.model) {
    if (name != "sigmas" && name != "all_modules.0.W") names.push_back(name);
  }
  return names;
}

// Pickles by hand, protocol 2.
std::string Text(const std::string& text) {
  const auto size = static_cast<uint32_t>(text.size());
  return absl::StrCat("X", std::string(reinterpret_cast<const char*>(&size), sizeof(size)), text);
}
std::string Tensor(const std::string& dtype, const std::string& key, char numel, const std::string& extent) {
  return "ctorch._utils\n_rebuild_tensor_v2\n((" + Text("storage") + "ctorch\n" + dtype + "Storage\n" + Text(key) +
         Text("cuda:0") + "K" + numel + "tQ" + extent + "\x89)tR";
}
std::string Root(const std::string& items) { return "\x80\x02}(" + items + "u."; }
std::string Model(const std::string& items) { return Text("model") + "ccollections\nOrderedDict\n)R(" + items + "u"; }

using Records = std::vector<std::pair<std::string, std::string>>;

void WriteZip(const std::string& path, const Records& records) {
  caffe2::serialize::PyTorchStreamWriter writer(path);
  for (const auto& [name, bytes] : records) writer.writeRecord(name, bytes.data(), bytes.size());
  writer.writeEndOfFile();
}

std::string Floats(std::initializer_list<float> values) {
  return std::string(reinterpret_cast<const char*>(std::data(values)), values.size() * sizeof(float));
}

absl::StatusOr<TorchCheckpoint> ReadZip(const Records& records) {
  const testing::TempFolder folder;
  WriteZip(folder / "checkpoint.pth", records);
  return ReadTorchCheckpoint(folder / "checkpoint.pth");
}

class GoldenCheckpointTest : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Networks, GoldenCheckpointTest, ::testing::Values("ddpmpp_tiny", "ncsnpp_tiny"));

TEST_P(GoldenCheckpointTest, ModelAndAveragesFitTogether) {
  const absl::StatusOr<TorchCheckpoint> checkpoint = ReadTorchCheckpoint(GoldenPath(GetParam()));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const std::vector<std::string> names = ParameterNames(*checkpoint);
  EXPECT_EQ(checkpoint->model[0].first, "sigmas");
  EXPECT_EQ(checkpoint->ema.size(), names.size());

  const auto raw = CheckpointWeights(*checkpoint, names, /*raw=*/true);
  const auto ema = CheckpointWeights(*checkpoint, names, /*raw=*/false);
  ASSERT_TRUE(raw.ok()) << raw.status();
  ASSERT_TRUE(ema.ok()) << ema.status();
  ASSERT_EQ(raw->size(), checkpoint->model.size() - 1);
  ASSERT_EQ(ema->size(), raw->size());
  size_t next = 0;
  bool differ = false;
  for (size_t i = 0; i < raw->size(); ++i) {
    const auto& [name, weight] = (*raw)[i];
    EXPECT_EQ((*ema)[i].first, name);
    EXPECT_TRUE(at::isfinite(weight).all().item<bool>()) << name;
    EXPECT_TRUE(at::equal(weight, checkpoint->model[i + 1].second)) << name;
    const at::Tensor average = (*ema)[i].second;
    if (next < names.size() && names[next] == name) {
      EXPECT_TRUE(at::equal(average, checkpoint->ema[next++])) << name;
      differ = differ || !at::equal(average, weight);
    } else {
      EXPECT_TRUE(at::equal(average, weight)) << name;
    }
  }
  EXPECT_EQ(next, names.size());
  EXPECT_TRUE(differ);
}

TEST_P(GoldenCheckpointTest, EveryTruncationIsDataLoss) {
  const testing::TempFolder folder;
  const std::string bytes = ReadFile(GoldenPath(GetParam())).value();
  for (int part = 0; part < 40; ++part) {
    const size_t size = bytes.size() * part / 40;
    ASSERT_TRUE(WriteFileAtomically(folder / "short.pth", std::string_view(bytes).substr(0, size)).ok());
    ASSERT_EQ(ReadTorchCheckpoint(folder / "short.pth").status().code(), absl::StatusCode::kDataLoss) << size;
  }
  for (size_t cut = 1; cut <= 80; cut += 3) {
    ASSERT_TRUE(WriteFileAtomically(folder / "short.pth", std::string_view(bytes).substr(0, bytes.size() - cut)).ok());
    ASSERT_EQ(ReadTorchCheckpoint(folder / "short.pth").status().code(), absl::StatusCode::kDataLoss) << cut;
  }
}

// The pickle lies at the start of the file and the zip's directory at its end.
TEST_P(GoldenCheckpointTest, DamagedFilesGiveAnErrorOrWholeTensors) {
  const testing::TempFolder folder;
  const std::string bytes = ReadFile(GoldenPath(GetParam())).value();
  std::mt19937 random(3);
  int refused = 0;
  for (int round = 0; round < 120; ++round) {
    std::string damaged = bytes;
    for (int i = 0; i < 4; ++i) {
      const size_t place = random() % 40'000;
      damaged[round % 2 == 0 ? place : damaged.size() - 1 - place % 25'000] = static_cast<char>(random());
    }
    ASSERT_TRUE(WriteFileAtomically(folder / "damaged.pth", damaged).ok());
    const absl::StatusOr<TorchCheckpoint> checkpoint = ReadTorchCheckpoint(folder / "damaged.pth");
    if (!checkpoint.ok()) {
      ++refused;
      continue;
    }
    for (const auto& [name, tensor] : checkpoint->model) {
      ASSERT_LE(static_cast<size_t>(tensor.numel()) * tensor.element_size(), bytes.size());
      ASSERT_EQ(tensor.clone().numel(), tensor.numel());
    }
  }
  EXPECT_GT(refused, 30);
}

TEST(TorchCheckpointTest, ReadsViewsStepsAndParameters) {
  // Both tensors view one storage: one from its second element on, one transposed and wrapped as a parameter.
  const std::string view = Tensor("Float", "0", 6, "K\x01K\x03\x85K\x01\x85");
  const std::string transposed = Tensor("Float", "0", 6, std::string("K\x00K\x03K\x02\x86K\x01K\x03\x86", 12));
  const std::string model = Model(Text("module.view") + view + Text("module.inner.module.t") +
                                  "ctorch._utils\n_rebuild_parameter\n(" + transposed + "\x88)tR");
  const absl::StatusOr<TorchCheckpoint> checkpoint =
      ReadZip({{"data.pkl", Root(model + Text("ema") + "N" + Text("step") + "M\x39\x30")},
               {"data/0", Floats({0, 1, 2, 3, 4, 5})},
               {"byteorder", "little"}});
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->step, 12345);
  EXPECT_TRUE(checkpoint->ema.empty());
  ASSERT_EQ(checkpoint->model.size(), 2u);
  EXPECT_EQ(checkpoint->model[0].first, "view");
  EXPECT_TRUE(at::equal(checkpoint->model[0].second, at::tensor({1.0f, 2.0f, 3.0f})));
  EXPECT_EQ(checkpoint->model[1].first, "inner.module.t");
  EXPECT_TRUE(at::equal(checkpoint->model[1].second, at::arange(6, at::kFloat).view({2, 3}).t()));
}

TEST(TorchCheckpointTest, AStateDictAloneIsAModel) {
  const std::string extent("K\x00K\x02\x85K\x01\x85", 8);
  const Records data = {{"data/0", Floats({1, 2})}, {"data/1", Floats({3, 4})}};
  const auto with = [&data](const std::string& pickle) {
    Records records = data;
    records.emplace_back("data.pkl", pickle);
    return ReadZip(records);
  };
  // A weight may be called "ema".
  const auto bare =
      with(Root(Text("w") + Tensor("Float", "0", 2, extent) + Text("ema") + Tensor("Float", "1", 2, extent)));
  ASSERT_TRUE(bare.ok()) << bare.status();
  ASSERT_EQ(bare->model.size(), 2u);
  EXPECT_EQ(bare->model[0].first, "w");
  EXPECT_TRUE(at::equal(bare->model[1].second, at::tensor({3.0f, 4.0f})));
  EXPECT_TRUE(bare->ema.empty());
  EXPECT_TRUE(bare->named_ema.empty());

  // As DiT's and SiT's training programs write them: averages by name.
  const auto trained = with(Root(Model(Text("w") + Tensor("Float", "0", 2, extent)) + Text("ema") + "}" + Text("w") +
                                 Tensor("Float", "1", 2, extent) + "s" + Text("opt") + "}" + Text("args") +
                                 "cargparse\nNamespace\n)\x81}" + Text("lr") + "K\x01sb"));
  ASSERT_TRUE(trained.ok()) << trained.status();
  EXPECT_TRUE(trained->ema.empty());
  const auto averaged = CheckpointWeights(*trained, {"w"}, /*raw=*/false);
  const auto raw = CheckpointWeights(*trained, {"w"}, /*raw=*/true);
  ASSERT_TRUE(averaged.ok() && raw.ok());
  EXPECT_TRUE(at::equal((*averaged)[0].second, at::tensor({3.0f, 4.0f})));
  EXPECT_TRUE(at::equal((*raw)[0].second, at::tensor({1.0f, 2.0f})));
}

TEST(TorchCheckpointTest, TensorsShareTheBytesThatHaveAnOwner) {
  const testing::TempFolder folder;
  const std::string extent("K\x00K\x02\x85K\x01\x85", 8);
  WriteZip(folder / "checkpoint.pth",
           {{"data.pkl", Root(Model(Text("w") + Tensor("Float", "0", 2, extent)))}, {"data/0", Floats({1, 2})}});
  auto bytes = std::make_shared<const std::string>(ReadFile(folder / "checkpoint.pth").value());
  const std::weak_ptr<const std::string> alive = bytes;
  const auto inside = [&bytes](const at::Tensor& tensor) {
    const auto* data = static_cast<const char*>(tensor.const_data_ptr());
    return data >= bytes->data() && data < bytes->data() + bytes->size();
  };
  absl::StatusOr<TorchCheckpoint> view = ParseTorchCheckpoint(bytes);
  const absl::StatusOr<TorchCheckpoint> copy = ParseTorchCheckpoint(std::string_view(*bytes));
  ASSERT_TRUE(view.ok() && copy.ok());
  EXPECT_TRUE(inside(view->model[0].second));
  EXPECT_FALSE(inside(copy->model[0].second));
  bytes.reset();
  EXPECT_FALSE(alive.expired());
  EXPECT_TRUE(at::equal(view->model[0].second, at::tensor({1.0f, 2.0f})));
  view = absl::CancelledError();
  EXPECT_TRUE(alive.expired());
}

// Each view costs the file a few bytes, and whoever copies it a thousand.
TEST(TorchCheckpointTest, ViewsTogetherHaveNoMoreBytesThanTheFile) {
  const std::string everything("K\x00K\xfa\x85K\x01\x85", 8);
  const auto read = [&everything](int views) {
    std::string items;
    for (int i = 0; i < views; ++i) items += Text(absl::StrCat("w", i)) + Tensor("Float", "0", '\xfa', everything);
    return ReadZip({{"data.pkl", Root(Model(items))}, {"data/0", std::string(1000, '\0')}}).status();
  };
  EXPECT_TRUE(read(2).ok()) << read(2);
  EXPECT_EQ(read(50).code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(read(50).ToString(), HasSubstr("share storages"));
}

TEST(TorchCheckpointTest, ForbiddenGlobalsAreRefusedByName) {
  const absl::Status status = ReadZip({{"data.pkl",
                                        "\x80\x02"
                                        "cos\nsystem\n" +
                                            Text("true") + "\x85R."}})
                                  .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.ToString(), HasSubstr("the global os.system is not allowed"));
}

TEST(TorchCheckpointTest, InconsistentFilesSayWhatIsWrong) {
  const std::string extent("K\x00K\x02\x85K\x01\x85", 8);
  const std::string weight = Tensor("Float", "0", 2, extent);
  const std::string good = Root(Model(Text("w") + weight));
  const Records data = {{"data/0", Floats({1, 2})}};
  const auto with = [&data](const std::string& pickle) {
    Records records = data;
    records.emplace_back("data.pkl", pickle);
    return ReadZip(records).status();
  };
  ASSERT_TRUE(with(good).ok()) << with(good);

  const std::pair<absl::Status, const char*> cases[] = {
      {ReadZip(data).status(), "the record data.pkl is missing"},
      {ReadZip({{"data.pkl", good}}).status(), "the record data/0 is missing"},
      {ReadZip({{"data.pkl", good}, {"data/0", Floats({1})}}).status(), "data/0: got 4 bytes, expected 2 of Float"},
      {ReadZip({{"data.pkl", good}, {"data/0", Floats({1, 2, 3})}}).status(),
       "data/0: got 12 bytes, expected 2 of Float"},
      {ReadZip({{"data.pkl", Root(Model(Text("w") + Tensor("Bool", "0", 2, extent)))}, {"data/0", "\x01\x02"}})
           .status(),
       "neither 0 nor 1"},
      {with(Root(Model(Text("w") + weight + Text("v") + Tensor("Double", "0", 1, std::string("K\x00))", 4))))),
       "the storage 0: got 1 of Double after 2 of Float"},
      {with(Root(Model(Text("w") + weight + Text("v") + Tensor("Float", "0", 1, std::string("K\x00))", 4))))),
       "the storage 0: got 1 of Float after 2 of Float"},
      {with("\x80\x02]."), "no dictionary"},
      {with(Root(Text("step") + "K\x01")), "no dictionary \"model\""},
      {with(Root(Model(Text("w") + "K\x01"))), "something other than named tensors"},
      {with(Root(Model("K\x01" + weight))), "something other than named tensors"},
      {with(Root(Model(Text("w") + weight + Text("module.w") + weight))), "w twice"},
      {with(Root(Model(Text("w") + weight) + Text("ema") + "]")), "no list \"shadow_params\""},
      {with(Root(Model(Text("w") + weight) + Text("ema") + "}" + Text("shadow_params") + "]Nas")),
       "something other than tensors"},
      {with(Root(Model(Text("w") + weight) + Text("step") + "N")), "\"step\" is no integer"},
  };
  for (const auto& [status, message] : cases) {
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << message << ": " << status;
    EXPECT_THAT(status.ToString(), HasSubstr(message));
  }
  EXPECT_EQ(ReadZip({{"data.pkl", good}, {"data/0", Floats({1, 2})}, {"byteorder", "big"}}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(TorchCheckpointTest, MissingAndForeignFiles) {
  const testing::TempFolder folder;
  EXPECT_EQ(ReadTorchCheckpoint(folder / "missing.pth").status().code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(ReadTorchCheckpoint(folder.path()).ok());
  for (const std::string& bytes : {std::string(), std::string("PK"), std::string(10'000, '\0')}) {
    ASSERT_TRUE(WriteFileAtomically(folder / "foreign.pth", bytes).ok());
    EXPECT_EQ(ReadTorchCheckpoint(folder / "foreign.pth").status().code(), absl::StatusCode::kDataLoss) << bytes.size();
  }
}

TEST(CheckpointWeightsTest, CountsShapesAndNamesMustFit) {
  TorchCheckpoint checkpoint;
  checkpoint.model = {{"a", at::zeros({2})}, {"sigmas", at::zeros({9})}, {"b", at::zeros({3})}};
  EXPECT_EQ(CheckpointWeights(checkpoint, {"a", "b"}, /*raw=*/false)->size(), 2u);  // no averages: the model's weights

  checkpoint.ema = {at::ones({2}), at::ones({3})};
  const auto weights = CheckpointWeights(checkpoint, {"a", "b"}, /*raw=*/false);
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_TRUE(at::equal((*weights)[1].second, at::ones({3})));
  EXPECT_TRUE(at::equal((*CheckpointWeights(checkpoint, {"a", "b"}, /*raw=*/true))[1].second, at::zeros({3})));

  EXPECT_EQ(CheckpointWeights(checkpoint, {"a"}, false).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(CheckpointWeights(checkpoint, {"b", "a"}, false).status().ToString(),
              HasSubstr("got shape [3], expected [2]"));
  checkpoint.ema.clear();
  checkpoint.named_ema = {{"a", at::ones({2})}, {"sigmas", at::ones({9})}};
  const auto named = CheckpointWeights(checkpoint, {"a", "b"}, /*raw=*/false);
  ASSERT_TRUE(named.ok()) << named.status();
  EXPECT_TRUE(at::equal((*named)[0].second, at::ones({2})));
  EXPECT_TRUE(at::equal((*named)[1].second, at::zeros({3})));
  checkpoint.named_ema.emplace_back("d", at::ones({2}));
  EXPECT_THAT(CheckpointWeights(checkpoint, {"a", "b"}, false).status().ToString(), HasSubstr("the averaged d"));
  EXPECT_THAT(CheckpointWeights(checkpoint, {"a", "c"}, true).status().ToString(), HasSubstr("parameter c is missing"));
}

}  // namespace
}  // namespace boss
