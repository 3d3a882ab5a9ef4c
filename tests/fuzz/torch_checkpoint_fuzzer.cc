// Any bytes as a checkpoint of torch.save. Tensors that come out can be read from end to end and need no more memory
// than the file has bytes.
#include <ATen/ATen.h>
#include <caffe2/serialize/inline_container.h>

#include <cstdint>
#include <cstring>
#include <exception>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/io/torch_checkpoint.h"
#include "core/io/zip_archive.h"
#include "tests/fuzz/check.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace boss {
namespace {

using testing::FuzzCheck;
using Records = std::vector<std::pair<std::string, std::string>>;

size_t CheckTensor(const at::Tensor& tensor) {
  FuzzCheck(tensor.clone().numel() == tensor.numel(), "the clone has another size");
  return tensor.nbytes();
}

// The archive's files without the folder that all are in.
Records ReadRecords(std::string_view bytes) {
  Records records;
  const auto archive = ZipArchive::Open(bytes);
  if (!archive.ok()) return records;
  for (const std::string& name : archive->names()) {
    const std::string record = name.substr(name.find('/') + 1);
    if (record == "version" || record.starts_with(".")) continue;  // the writer adds its own
    records.emplace_back(record, std::string(*archive->Find(name)));
  }
  return records;
}

std::string WriteRecords(const Records& records) {
  std::string bytes;
  caffe2::serialize::PyTorchStreamWriter writer([&bytes](const void* data, size_t size) {
    bytes.append(static_cast<const char*>(data), size);
    return size;
  });
  for (const auto& [name, data] : records) writer.writeRecord(name, data.data(), data.size());
  writer.writeEndOfFile();
  return bytes;
}

// Changes the bytes of one record and packs all again. Empty if the file is no archive, or would become too large.
std::string MutateRecord(std::string_view file, size_t max_size, unsigned int seed) {
  Records records = ReadRecords(file);
  if (records.empty()) return "";
  std::string& data = records[seed % records.size()].second;
  const size_t size = data.size();
  data.resize(size + 256);
  data.resize(LLVMFuzzerMutate(reinterpret_cast<uint8_t*>(data.data()), size, data.size()));
  try {
    std::string packed = WriteRecords(records);
    return packed.size() <= max_size ? packed : "";
  } catch (const std::exception&) {  // LibTorch's writer refuses some names
    return "";
  }
}

}  // namespace
}  // namespace boss

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto checkpoint = boss::ParseTorchCheckpoint({reinterpret_cast<const char*>(data), size});
  if (!checkpoint.ok()) {
    boss::testing::FuzzCheckError(checkpoint.status(), absl::StatusCode::kDataLoss, absl::StatusCode::kInvalidArgument);
    return 0;
  }
  size_t total = 0;
  for (const auto& [name, tensor] : checkpoint->model) total += boss::CheckTensor(tensor);
  for (const at::Tensor& tensor : checkpoint->ema) total += boss::CheckTensor(tensor);
  boss::testing::FuzzCheck(total <= size, "the tensors have more bytes than the file");

  std::vector<std::string> names;
  for (const auto& [name, tensor] : checkpoint->model) names.push_back(name);
  const auto raw = boss::CheckpointWeights(*checkpoint, names, /*raw=*/true);
  boss::testing::FuzzCheck(raw.ok(), "the model's own weights are missing");
  const auto averaged = boss::CheckpointWeights(*checkpoint, names, /*raw=*/false);
  if (!averaged.ok()) boss::testing::FuzzCheckError(averaged.status(), absl::StatusCode::kDataLoss);
  return 0;
}

// Changed bytes alone would seldom leave a readable archive: every other input keeps the archive and changes a record.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned int seed) {
  if (seed % 2 == 0) {
    const std::string packed = boss::MutateRecord({reinterpret_cast<const char*>(data), size}, max_size, seed / 2);
    if (!packed.empty()) {
      std::memcpy(data, packed.data(), packed.size());
      return packed.size();
    }
  }
  return LLVMFuzzerMutate(data, size, max_size);
}
