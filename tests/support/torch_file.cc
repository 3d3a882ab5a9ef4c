#include "tests/support/torch_file.h"

#include <ATen/ATen.h>
#include <caffe2/serialize/inline_container.h>

#include <bit>
#include <cstdint>

#include "absl/strings/str_cat.h"

namespace boss::testing {
namespace {

constexpr char kOrderedDict[] = "ccollections\nOrderedDict\n)R";

// Protocol 2, by hand.
class PickleWriter {
 public:
  PickleWriter() : pickle_("\x80\x02") {}

  void Put(const std::string& opcodes) { pickle_ += opcodes; }
  void Text(const std::string& text) {
    pickle_ += 'X';
    Bytes(static_cast<uint32_t>(text.size()));
    pickle_ += text;
  }
  void Integer(int64_t value) {
    Put("\x8a\x08");
    Bytes(value);
  }
  void Real(double value) {
    pickle_ += 'G';
    Bytes(__builtin_bswap64(std::bit_cast<uint64_t>(value)));
  }
  void Integers(at::IntArrayRef values) {
    Put("(");
    for (const int64_t value : values) Integer(value);
    Put("t");
  }
  void Tensor(const at::Tensor& tensor) {
    Put("ctorch._utils\n_rebuild_tensor_v2\n((");
    Text("storage");
    Put("ctorch\nFloatStorage\n");
    Text(absl::StrCat(tensors_.size()));
    Text("cpu");
    Integer(tensor.numel());
    Put("tQ");
    Integer(0);
    Integers(tensor.sizes());
    Integers(tensor.strides());
    Put(absl::StrCat("\x89", kOrderedDict, "tR"));
    tensors_.push_back(tensor.detach());
  }

  void Write(const std::string& path) {
    Put(".");
    caffe2::serialize::PyTorchStreamWriter writer(path);
    writer.writeRecord("data.pkl", pickle_.data(), pickle_.size());
    for (size_t i = 0; i < tensors_.size(); ++i)
      writer.writeRecord(absl::StrCat("data/", i), tensors_[i].const_data_ptr(), tensors_[i].nbytes());
    writer.writeEndOfFile();
  }

 private:
  template <typename T>
  void Bytes(T value) {
    pickle_.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }

  std::string pickle_;
  std::vector<at::Tensor> tensors_;
};

void PutStateDict(PickleWriter& pickle, const NamedTensors& weights, const std::string& prefix) {
  for (const auto& [name, tensor] : weights) {
    pickle.Text(prefix + name);
    pickle.Tensor(tensor);
  }
}

void PutAdam(PickleWriter& pickle, const std::vector<at::Tensor>& parameters) {
  pickle.Text("state");
  pickle.Put("}(");
  for (size_t i = 0; i < parameters.size(); ++i) {
    pickle.Integer(static_cast<int64_t>(i));
    pickle.Put("}(");
    pickle.Text("step");
    pickle.Integer(1000);
    for (const char* moment : {"exp_avg", "exp_avg_sq"}) {
      pickle.Text(moment);
      pickle.Tensor(parameters[i]);
    }
    pickle.Put("u");
  }
  pickle.Put("u");
  pickle.Text("param_groups");
  pickle.Put("]}(");
  pickle.Text("lr");
  pickle.Real(2e-4);
  pickle.Text("amsgrad");
  pickle.Put("\x89");
  pickle.Text("params");
  pickle.Put("](");
  for (size_t i = 0; i < parameters.size(); ++i) pickle.Integer(static_cast<int64_t>(i));
  pickle.Put("eua");
}

}  // namespace

void WriteTorchCheckpoint(const std::string& path, const NamedTensors& model, const std::vector<at::Tensor>& averages,
                          bool adam) {
  PickleWriter pickle;
  pickle.Put("}(");
  pickle.Text("optimizer");
  pickle.Put("}(");
  if (adam) PutAdam(pickle, averages);
  pickle.Put("u");
  pickle.Text("model");
  pickle.Put(absl::StrCat(kOrderedDict, "("));
  PutStateDict(pickle, {{"sigmas", at::linspace(50, 0.01, 1000)}}, "module.");
  PutStateDict(pickle, model, "module.");
  pickle.Put("u");
  pickle.Text("ema");
  pickle.Put("}(");
  pickle.Text("decay");
  pickle.Real(0.999999);
  pickle.Text("num_updates");
  pickle.Integer(1000);
  pickle.Text("shadow_params");
  pickle.Put("](");
  for (const at::Tensor& average : averages) pickle.Tensor(average);
  pickle.Put("eu");
  pickle.Text("step");
  pickle.Integer(1000);
  pickle.Put("u");
  pickle.Write(path);
}

void WriteStateDict(const std::string& path, const NamedTensors& weights) {
  PickleWriter pickle;
  pickle.Put(absl::StrCat(kOrderedDict, "("));
  PutStateDict(pickle, weights, "");
  pickle.Put("u");
  pickle.Write(path);
}

}  // namespace boss::testing
