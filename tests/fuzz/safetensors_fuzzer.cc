// Any bytes as a safetensors file. What parses can be written, and comes back the same.
#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <string_view>

#include "core/io/safetensors.h"
#include "tests/fuzz/check.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace boss {
namespace {

using testing::FuzzCheck;

bool SameBytes(const at::Tensor& a, const at::Tensor& b) {
  return a.nbytes() == b.nbytes() &&
         (a.nbytes() == 0 || std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()) == 0);
}

void CheckSame(const Safetensors& a, const Safetensors& b) {
  FuzzCheck(a.metadata == b.metadata, "the metadata changed");
  FuzzCheck(a.tensors.size() == b.tensors.size(), "the number of tensors changed");
  for (size_t i = 0; i < a.tensors.size(); ++i) {
    const auto& [name, tensor] = a.tensors[i];
    const auto& [other_name, other] = b.tensors[i];
    FuzzCheck(name == other_name, "a name changed");
    FuzzCheck(tensor.scalar_type() == other.scalar_type(), "a dtype changed");
    FuzzCheck(tensor.sizes() == other.sizes(), "a shape changed");
    FuzzCheck(SameBytes(tensor, other), "values changed");
  }
}

}  // namespace
}  // namespace boss

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using boss::testing::FuzzCheck;
  const auto contents = boss::ParseSafetensors({reinterpret_cast<const char*>(data), size});
  if (!contents.ok()) {
    boss::testing::FuzzCheckError(contents.status(), absl::StatusCode::kDataLoss);
    return 0;
  }
  for (const auto& [name, tensor] : contents->tensors) {
    FuzzCheck(tensor.is_contiguous() && tensor.nbytes() <= size, "a tensor has more bytes than the file");
  }
  const auto bytes = boss::SerializeSafetensors(*contents);
  FuzzCheck(bytes.ok(), "cannot be written: " + bytes.status().ToString());
  const auto again = boss::ParseSafetensors(*bytes);
  FuzzCheck(again.ok(), "what was written does not parse: " + again.status().ToString());
  boss::CheckSame(*contents, *again);
  FuzzCheck(boss::SerializeSafetensors(*again).value() == *bytes, "equal contents give other bytes");
  return 0;
}

// Every other input keeps a header length that fits, so that changes of the header's length reach its parser.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned int seed) {
  constexpr size_t kLengthBytes = sizeof(uint64_t);
  uint64_t header_size = 0;
  if (size >= kLengthBytes) std::memcpy(&header_size, data, kLengthBytes);
  if (seed % 2 == 0 || size < kLengthBytes || header_size > size - kLengthBytes || size > max_size) {
    return LLVMFuzzerMutate(data, size, max_size);
  }
  const std::string tail(data + kLengthBytes + header_size, data + size);
  const size_t room = max_size - kLengthBytes - tail.size();
  header_size = LLVMFuzzerMutate(data + kLengthBytes, header_size, room);
  std::memcpy(data, &header_size, kLengthBytes);
  std::memcpy(data + kLengthBytes + header_size, tail.data(), tail.size());
  return kLengthBytes + header_size + tail.size();
}
