#include "core/io/unpickler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "core/io/atomic_file.h"

namespace boss {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A literal with zero bytes in it.
template <size_t N>
std::string Bytes(const char (&literal)[N]) {
  return std::string(literal, N - 1);
}

absl::Status StatusOf(const std::string& pickle) { return Unpickle(pickle).status(); }

// _rebuild_tensor_v2 of a storage of 12 floats. `arguments` is offset, size and stride.
std::string TensorPickle(const std::string& arguments) {
  return Bytes(
             "\x80\x02"
             "ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x00"
             "0"
             "X\x03\x00\x00\x00"
             "cpuK\x0ctQ") +
         arguments + Bytes("\x89)tR.");
}

// The pickle of a checkpoint that the reference wrote; Unpickle() stops at its end by itself.
std::string GoldenPickle() {
  const absl::StatusOr<std::string> file = ReadFile(BOSS_SOURCE_DIR "/tests/golden/ncsnpp_tiny.pth");
  EXPECT_TRUE(file.ok()) << file.status();
  const std::string start = Bytes("\x80\x02}q\x00(X\x09\x00\x00\x00optimizer");
  const size_t begin = file->find(start);
  EXPECT_NE(begin, std::string::npos);
  return file->substr(begin, 37714);
}

TEST(UnpicklerTest, ReadsScalars) {
  const absl::StatusOr<Pickle> pickle = Unpickle(Bytes(
      "\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00(N\x88\x89K\xffM\x01\x02J\xfe\xff\xff\xff\x8a\x00\x8a\x02\x00\x80"
      "\x8a\x08\x01\x00\x00\x00\x00\x00\x00\x80G\x3f\xf8\x00\x00\x00\x00\x00\x00\x8c\x02okX\x01\x00\x00\x00y"
      "\x8d\x01\x00\x00\x00\x00\x00\x00\x00zt."));
  ASSERT_TRUE(pickle.ok()) << pickle.status();
  const PickleTuple* tuple = pickle->root().As<PickleTuple>();
  ASSERT_NE(tuple, nullptr);
  ASSERT_EQ(tuple->items.size(), 13u);
  EXPECT_NE(tuple->items[0]->As<std::monostate>(), nullptr);
  EXPECT_EQ(*tuple->items[1]->As<bool>(), true);
  EXPECT_EQ(*tuple->items[2]->As<bool>(), false);
  const int64_t integers[] = {255, 513, -2, 0, -32768, std::numeric_limits<int64_t>::min() + 1};
  for (size_t i = 0; i < std::size(integers); ++i) EXPECT_EQ(*tuple->items[3 + i]->As<int64_t>(), integers[i]) << i;
  EXPECT_EQ(*tuple->items[9]->As<double>(), 1.5);
  EXPECT_EQ(*tuple->items[10]->As<std::string>(), "ok");
  EXPECT_EQ(*tuple->items[11]->As<std::string>(), "y");
  EXPECT_EQ(*tuple->items[12]->As<std::string>(), "z");
}

TEST(UnpicklerTest, ReadsContainersAndMemo) {
  // {'a': [1, 2, 2], 'b': (), 'c': the list of 'a'} as an OrderedDict with attributes, the list memoized.
  const absl::StatusOr<Pickle> pickle =
      Unpickle(Bytes("\x80\x02"
                     "ccollections\nOrderedDict\n)R(X\x01\x00\x00\x00"
                     "a]q\x05(K\x01K\x02"
                     "eK\x02"
                     "aX\x01\x00\x00\x00"
                     "b)u"
                     "X\x01\x00\x00\x00"
                     "ch\x05s}b."));
  ASSERT_TRUE(pickle.ok()) << pickle.status();
  const PickleDict* dict = pickle->root().As<PickleDict>();
  ASSERT_NE(dict, nullptr);
  ASSERT_EQ(dict->items.size(), 3u);
  const PickleList* list = dict->items[0].second->As<PickleList>();
  ASSERT_NE(list, nullptr);
  ASSERT_EQ(list->items.size(), 3u);
  EXPECT_EQ(*list->items[2]->As<int64_t>(), 2);
  EXPECT_TRUE(dict->items[1].second->As<PickleTuple>()->items.empty());
  EXPECT_EQ(dict->items[2].second, dict->items[0].second);
}

TEST(UnpicklerTest, ReadsTensors) {
  const absl::StatusOr<Pickle> pickle = Unpickle(TensorPickle(Bytes("K\x02K\x03K\x02\x86K\x02K\x01\x86")));
  ASSERT_TRUE(pickle.ok()) << pickle.status();
  const PickleTensor* tensor = pickle->root().As<PickleTensor>();
  ASSERT_NE(tensor, nullptr);
  EXPECT_EQ(tensor->storage.dtype, "Float");
  EXPECT_EQ(tensor->storage.key, "0");
  EXPECT_EQ(tensor->storage.numel, 12);
  EXPECT_EQ(tensor->offset, 2);
  EXPECT_THAT(tensor->size, ElementsAre(3, 2));
  EXPECT_THAT(tensor->stride, ElementsAre(2, 1));
}

TEST(UnpicklerTest, TensorsStayInsideTheirStorage) {
  EXPECT_TRUE(StatusOf(TensorPickle(Bytes("K\x00K\x0c\x85K\x01\x85"))).ok());  // 12 elements
  EXPECT_TRUE(StatusOf(TensorPickle(Bytes("K\x0b))"))).ok());                  // a scalar at the end
  EXPECT_TRUE(StatusOf(TensorPickle(Bytes("K\x0cK\x00\x85K\x01\x85"))).ok());  // nothing, behind the end
  const std::string outside[] = {
      Bytes("K\x01K\x0c\x85K\x01\x85"),              // one too far
      Bytes("K\x0c))"),                              // a scalar behind the end
      Bytes("K\x00K\x02\x85K\x0c\x85"),              // stride too large
      Bytes("K\x00K\x0d\x85K\x00\x85"),              // stride 0, more elements than the storage has
      Bytes("J\xff\xff\xff\xffK\x01\x85K\x01\x85"),  // negative offset
      Bytes("K\x00J\xff\xff\xff\xff\x85K\x01\x85"),  // negative size
      Bytes("K\x00K\x02\x85J\xff\xff\xff\xff\x85"),  // negative stride
      Bytes("K\x00\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x40K\x04\x86K\x00K\x00\x86"),  // 2^62 x 4 overflows
      Bytes("K\x00K\x03\x85\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85"),            // 2 x (2^63 - 1) overflows
      Bytes("K\x00K\x02K\x02\x86K\x01\x85"),                                          // two sizes, one stride
      Bytes("K\x00NN"),                                                               // no sizes
  };
  for (const std::string& arguments : outside) {
    EXPECT_EQ(StatusOf(TensorPickle(arguments)).code(), absl::StatusCode::kDataLoss)
        << ::testing::PrintToString(arguments);
  }
}

TEST(UnpicklerTest, RefusesOtherGlobalsByName) {
  const std::pair<std::string, std::string> forbidden[] = {
      {Bytes("\x80\x02"
             "cos\nsystem\nX\x04\x00\x00\x00true\x85R."),
       "os.system"},
      {Bytes("\x80\x04\x8c\x08"
             "builtins\x8c\x04"
             "eval\x93."),
       "builtins.eval"},
      {Bytes("\x80\x02"
             "ctorch\nFloatStorage2\n."),
       "torch.FloatStorage2"},
      {Bytes("\x80\x02"
             "ctorch\nStorage\n."),
       "torch.Storage"},
      {Bytes("\x80\x02"
             "ctorch._utils\n_rebuild_tensor\n."),
       "torch._utils._rebuild_tensor"},
  };
  for (const auto& [pickle, name] : forbidden) {
    const absl::Status status = StatusOf(pickle);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(status.ToString(), HasSubstr("the global " + name + " is not allowed"));
  }
}

TEST(UnpicklerTest, ForeignNamesAreMadePrintable) {
  const absl::Status status = StatusOf(
      "\x80\x02"
      "cos\x1b\n" +
      std::string(100000, 's') + "\n.");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.ToString(), HasSubstr("os?.sss"));
  EXPECT_LT(status.message().size(), 500u);
}

TEST(UnpicklerTest, RefusesOtherOpcodes) {
  // INST, OBJ, NEWOBJ_EX, EXT1, PERSID, INT, POP_MARK and one that does not exist.
  for (const char opcode : {'i', 'o', '\x92', '\x82', 'P', 'I', '1', '\xfe'}) {
    const absl::Status status = StatusOf(std::string("\x80\x02") + opcode + ".");
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << static_cast<int>(opcode);
    EXPECT_THAT(status.ToString(), HasSubstr("opcode"));
  }
  EXPECT_EQ(StatusOf(Bytes("\x80\x06N.")).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(StatusOf(Bytes("\x80\x02\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01.")).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(UnpicklerTest, ACommandLineIsReadAsNothing) {
  // {"args": Namespace(lr=1)}
  const absl::StatusOr<Pickle> pickle =
      Unpickle(Bytes("\x80\x02}X\x04\x00\x00\x00"
                     "argscargparse\nNamespace\n)\x81}X\x02\x00\x00\x00lrK\x01sbs."));
  ASSERT_TRUE(pickle.ok()) << pickle.status();
  const PickleDict* root = pickle->root().As<PickleDict>();
  ASSERT_NE(root, nullptr);
  ASSERT_EQ(root->items.size(), 1u);
  const PickleDict* arguments = root->items[0].second->As<PickleDict>();
  ASSERT_NE(arguments, nullptr);
  EXPECT_TRUE(arguments->items.empty());
}

TEST(UnpicklerTest, ObjectsOfOtherTypesAreRefused) {
  for (const std::string pickle : {"\x80\x02"
                                   "ccollections\nOrderedDict\n)\x81.",
                                   "\x80\x02"
                                   "cargparse\nNamespace\nN\x85\x81."}) {
    const absl::Status status = StatusOf(pickle);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(status.ToString(), HasSubstr("an object of"));
  }
}

TEST(UnpicklerTest, MalformedPicklesAreDataLoss) {
  const std::string malformed[] = {
      "",
      ".",   // nothing to return
      "(.",  // only a mark
      "a.",
      "Na.",
      "NNa.",  // append to nothing, to nothing, to None
      "NNs.",
      "NNNs.",
      "}(Nu.",  // no dictionary, no dictionary, an odd number of items
      "t.",
      "e.",
      "]Ne.",     // no mark
      "N(\x85.",  // a tuple across a mark
      Bytes("h\x00."),
      Bytes("q\x00."),  // an empty memo, an empty stack
      "NNR.",
      "N)R.",  // calls of None
      "NQ.",
      "N)\x81.",
      "cargparse\nNamespace\nN\x81.",  // an object of None, with arguments that are no tuple
      "cargparse\nNamespace\n)R.",     // a call
      "(NNNNNtQ.",                     // no storage
      "N}b.",
      "}b.",                         // attributes of None, of nothing
      Bytes("X\xff\xff\xff\xffN."),  // a string longer than the pickle
      Bytes("\x8d\xff\xff\xff\xff\xff\xff\xff\xffN."),
      "ctorch\nFloatStorage",              // a line without an end
      "ccollections\nOrderedDict\n(NtR.",  // unexpected arguments
      "ctorch._utils\n_rebuild_tensor_v2\n)R.",
      "ctorch._utils\n_rebuild_parameter\n(NNNtR.",
      Bytes("NN\x93."),  // a global without a name
  };
  for (const std::string& pickle : malformed) {
    EXPECT_EQ(StatusOf(pickle).code(), absl::StatusCode::kDataLoss) << ::testing::PrintToString(pickle);
  }
}

TEST(UnpicklerTest, LongStorageKeysAreRefused) {
  std::string pickle = TensorPickle(Bytes("K\x00K\x0c\x85K\x01\x85"));
  const std::string key = Bytes(
      "X\x01\x00\x00\x00"
      "0");
  const std::string long_key = Bytes("X\x21\x00\x00\x00") + std::string(33, '0');
  pickle.replace(pickle.find(key), key.size(), long_key);
  EXPECT_EQ(StatusOf(pickle).code(), absl::StatusCode::kDataLoss);
}

TEST(UnpicklerTest, CyclesAndDeepNestingAreHarmless) {
  const absl::StatusOr<Pickle> cycle =
      Unpickle(Bytes("]q\x00h\x00"
                     "a."));
  ASSERT_TRUE(cycle.ok()) << cycle.status();
  EXPECT_EQ(cycle->root().As<PickleList>()->items[0], &cycle->root());

  constexpr size_t kDepth = 500'000;
  EXPECT_TRUE(StatusOf(std::string(kDepth, ']') + std::string(kDepth - 1, 'a') + ".").ok());
  EXPECT_TRUE(StatusOf(std::string(kDepth, '(') + std::string(kDepth, 't') + ".").ok());
}

TEST(UnpicklerTest, TheNumberOfValuesIsBounded) {
  const absl::Status status = StatusOf(std::string((size_t{1} << 20) + 1, 'N') + ".");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.ToString(), HasSubstr("1048576 values"));
}

// Six bytes a tensor of 64 dimensions: the function and its arguments come from the memo.
TEST(UnpicklerTest, DimensionsCountAsValues) {
  const std::string ones = "(" + [] {
    std::string sizes;
    for (int i = 0; i < 64; ++i) sizes += Bytes("K\x01");
    return sizes;
  }() + "t";
  std::string pickle = TensorPickle(Bytes("K\x00") + ones + ones);
  const std::string function = "ctorch._utils\n_rebuild_tensor_v2\n";
  pickle.replace(pickle.find(function), function.size(), function + Bytes("q\x00"));
  pickle.replace(pickle.size() - 2, 2, Bytes("q\x01R"));
  std::string few = pickle, many = pickle;
  for (int i = 0; i < 8000; ++i) few += Bytes("h\x00h\x01R");
  for (int i = 0; i < 9000; ++i) many += Bytes("h\x00h\x01R");
  EXPECT_TRUE(StatusOf(few + ".").ok()) << StatusOf(few + ".");
  EXPECT_EQ(StatusOf(many + ".").code(), absl::StatusCode::kInvalidArgument);
}

TEST(UnpicklerTest, ReferenceCheckpointIsReadAndEveryTruncationIsDataLoss) {
  const std::string pickle = GoldenPickle();
  const absl::StatusOr<Pickle> read = Unpickle(pickle);
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_NE(read->root().As<PickleDict>(), nullptr);
  EXPECT_EQ(read->root().As<PickleDict>()->items.size(), 4u);
  for (size_t size = 0; size < pickle.size(); size += 101) {
    ASSERT_EQ(StatusOf(pickle.substr(0, size)).code(), absl::StatusCode::kDataLoss) << size;
  }
}

// Whatever the bytes are, a tensor that comes out lies inside its storage: offset alone, as the rest is checked above.
TEST(UnpicklerTest, RandomDamageKeepsTheInvariants) {
  const std::string pickle = GoldenPickle();
  std::mt19937 random(11);
  int read = 0;
  for (int round = 0; round < 300; ++round) {
    std::string damaged = pickle;
    for (int i = 0; i < 3; ++i) damaged[random() % damaged.size()] = static_cast<char>(random());
    const absl::StatusOr<Pickle> result = Unpickle(damaged);
    if (!result.ok()) continue;
    ++read;
    const PickleDict* root = result->root().As<PickleDict>();
    if (root == nullptr) continue;
    for (const auto& [key, value] : root->items) {
      const PickleDict* dict = value->As<PickleDict>();
      if (dict == nullptr) continue;
      for (const auto& [name, item] : dict->items) {
        const PickleTensor* tensor = item->As<PickleTensor>();
        if (tensor != nullptr) {
          EXPECT_LE(tensor->offset, tensor->storage.numel);
        }
      }
    }
  }
  EXPECT_GT(read, 0);
}

}  // namespace
}  // namespace boss
