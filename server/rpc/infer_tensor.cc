#include "server/rpc/infer_tensor.h"

#include <bit>
#include <cstring>
#include <limits>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/error_details.h"
#include "core/base/status_macros.h"

namespace boss::server {
namespace {

static_assert(std::endian::native == std::endian::little, "raw contents are little-endian");

constexpr size_t kLengthBytes = sizeof(uint32_t);

absl::StatusOr<size_t> NumElements(const InferTensor& tensor) {
  uint64_t elements = 1;
  for (const int64_t dimension : tensor.input->shape()) {
    if (dimension < 0 || __builtin_mul_overflow(elements, static_cast<uint64_t>(dimension), &elements)) {
      return FieldError(tensor.name(),
                        absl::StrCat("has no size with the shape [", absl::StrJoin(tensor.input->shape(), ", "), "]"));
    }
  }
  return elements;
}

absl::Status WrongCount(const InferTensor& tensor, size_t expected, size_t got, const char* unit) {
  return FieldError(tensor.name(), absl::StrCat("must have ", expected, " ", unit, " with the shape [",
                                                absl::StrJoin(tensor.input->shape(), ", "), "] and the datatype ",
                                                tensor.datatype(), ", got ", got));
}

absl::Status WrongDatatype(const InferTensor& tensor, const char* expected) {
  return FieldError(tensor.name(), absl::StrCat("must have the datatype ", expected, ", got ",
                                                tensor.datatype().empty() ? "none" : tensor.datatype()));
}

// The raw bytes of elements of so many bytes.
absl::StatusOr<std::string_view> RawBytes(const InferTensor& tensor, size_t element_bytes) {
  BOSS_ASSIGN_OR_RETURN(const size_t elements, NumElements(tensor));
  size_t bytes = 0;
  if (__builtin_mul_overflow(elements, element_bytes, &bytes) || tensor.raw->size() != bytes) {
    return WrongCount(tensor, elements * element_bytes, tensor.raw->size(), "bytes");
  }
  return std::string_view(*tensor.raw);
}

// `Wire` is what raw contents hold; `contents` is the field for it.
template <typename Wire, typename Contents>
absl::StatusOr<std::vector<Wire>> Read(const InferTensor& tensor, const Contents& contents) {
  if (tensor.raw == nullptr) {
    BOSS_ASSIGN_OR_RETURN(const size_t elements, NumElements(tensor));
    if (static_cast<size_t>(contents.size()) != elements) {
      return WrongCount(tensor, elements, contents.size(), "elements in its contents");
    }
    return std::vector<Wire>(contents.begin(), contents.end());
  }
  BOSS_ASSIGN_OR_RETURN(const std::string_view bytes, RawBytes(tensor, sizeof(Wire)));
  std::vector<Wire> values(bytes.size() / sizeof(Wire));
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

template <typename Value, typename Wire, typename Contents>
absl::StatusOr<std::vector<Value>> ReadAs(const InferTensor& tensor, const Contents& contents) {
  BOSS_ASSIGN_OR_RETURN(const std::vector<Wire> values, (Read<Wire>(tensor, contents)));
  return std::vector<Value>(values.begin(), values.end());
}

// The only element of a tensor of BYTES.
absl::StatusOr<InferScalar> ReadText(const InferTensor& tensor) {
  if (tensor.raw == nullptr) {
    const auto& contents = tensor.input->contents().bytes_contents();
    if (contents.size() != 1) return WrongCount(tensor, 1, contents.size(), "elements in its contents");
    return InferScalar(contents[0]);
  }
  uint32_t length = 0;
  if (tensor.raw->size() >= kLengthBytes) std::memcpy(&length, tensor.raw->data(), kLengthBytes);
  if (tensor.raw->size() != kLengthBytes + length) {
    return WrongCount(tensor, kLengthBytes + length, tensor.raw->size(), "bytes");
  }
  return InferScalar(tensor.raw->substr(kLengthBytes));
}

template <typename Wire, typename Contents>
absl::StatusOr<std::string> ReadBytes(const InferTensor& tensor, const Contents& contents) {
  if (tensor.raw != nullptr) {
    BOSS_ASSIGN_OR_RETURN(const std::string_view bytes, RawBytes(tensor, sizeof(Wire)));
    return std::string(bytes);
  }
  BOSS_ASSIGN_OR_RETURN(const std::vector<Wire> values, (Read<Wire>(tensor, contents)));
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(Wire));
}

// \pre it has one element.
template <typename Values>
absl::StatusOr<InferScalar> Only(const absl::StatusOr<Values>& values) {
  BOSS_RETURN_IF_ERROR(values.status());
  return InferScalar(values->front());
}

}  // namespace

absl::StatusOr<std::vector<InferTensor>> TensorsOf(const inference::ModelInferRequest& request) {
  const int num_raw = request.raw_input_contents_size();
  if (num_raw != 0 && num_raw != request.inputs_size()) {
    return FieldError("raw_input_contents", absl::StrCat("must be none or one for each of the ", request.inputs_size(),
                                                         " inputs, got ", num_raw));
  }
  std::vector<InferTensor> tensors;
  std::set<std::string_view> names;
  for (int i = 0; i < request.inputs_size(); ++i) {
    const auto& input = request.inputs(i);
    if (input.name().empty()) return FieldError("inputs", absl::StrCat("input ", i, " has no name"));
    if (!names.insert(input.name()).second) return FieldError(input.name(), "is there twice");
    if (num_raw != 0 && input.has_contents()) {
      return FieldError(input.name(), "has contents beside raw_input_contents; one of them is expected");
    }
    for (const auto& [name, parameter] : input.parameters()) {
      return FieldError(input.name(), absl::StrCat("takes no parameters, got ", name));
    }
    tensors.push_back({&input, num_raw == 0 ? nullptr : &request.raw_input_contents(i)});
  }
  return tensors;
}

absl::StatusOr<std::vector<int64_t>> ReadIntegers(const InferTensor& tensor) {
  const inference::InferTensorContents& contents = tensor.input->contents();
  const std::string& datatype = tensor.datatype();
  if (datatype == "INT64") return Read<int64_t>(tensor, contents.int64_contents());
  if (datatype == "INT32") return ReadAs<int64_t, int32_t>(tensor, contents.int_contents());
  if (datatype == "UINT32") return ReadAs<int64_t, uint32_t>(tensor, contents.uint_contents());
  if (datatype != "UINT64") return WrongDatatype(tensor, "INT64, INT32, UINT64 or UINT32");
  BOSS_ASSIGN_OR_RETURN(const std::vector<uint64_t> values, (Read<uint64_t>(tensor, contents.uint64_contents())));
  for (const uint64_t value : values) {
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return FieldError(tensor.name(), absl::StrCat("must be below 2^63, got ", value));
    }
  }
  return std::vector<int64_t>(values.begin(), values.end());
}

absl::StatusOr<std::vector<double>> ReadReals(const InferTensor& tensor) {
  const inference::InferTensorContents& contents = tensor.input->contents();
  if (tensor.datatype() == "FP64") return Read<double>(tensor, contents.fp64_contents());
  if (tensor.datatype() == "FP32") return ReadAs<double, float>(tensor, contents.fp32_contents());
  return WrongDatatype(tensor, "FP32 or FP64");
}

absl::StatusOr<v1::Tensor> ReadTensor(const InferTensor& tensor) {
  const inference::InferTensorContents& contents = tensor.input->contents();
  const std::string& datatype = tensor.datatype();
  v1::Tensor proto;
  absl::StatusOr<std::string> data;
  if (datatype == "FP32") {
    proto.set_dtype(v1::Tensor::DATA_TYPE_FLOAT32);
    data = ReadBytes<float>(tensor, contents.fp32_contents());
  } else if (datatype == "FP64") {
    proto.set_dtype(v1::Tensor::DATA_TYPE_FLOAT64);
    data = ReadBytes<double>(tensor, contents.fp64_contents());
  } else if (datatype == "INT64") {
    proto.set_dtype(v1::Tensor::DATA_TYPE_INT64);
    data = ReadBytes<int64_t>(tensor, contents.int64_contents());
  } else if (datatype == "UINT8") {
    proto.set_dtype(v1::Tensor::DATA_TYPE_UINT8);
    data = ReadBytes<uint8_t>(tensor, contents.uint_contents());
  } else if ((datatype == "FP16" || datatype == "BF16") && tensor.raw != nullptr) {
    proto.set_dtype(datatype == "FP16" ? v1::Tensor::DATA_TYPE_FLOAT16 : v1::Tensor::DATA_TYPE_BFLOAT16);
    data = ReadBytes<uint16_t>(tensor, contents.uint_contents());
  } else {
    return WrongDatatype(tensor, "FP32, FP64, INT64, UINT8, or FP16 or BF16 in raw_input_contents");
  }
  BOSS_RETURN_IF_ERROR(data.status());
  proto.set_data(*std::move(data));
  *proto.mutable_shape() = tensor.input->shape();
  return proto;
}

absl::StatusOr<InferScalar> ReadScalar(const InferTensor& tensor) {
  BOSS_ASSIGN_OR_RETURN(const size_t elements, NumElements(tensor));
  if (elements != 1) {
    return FieldError(tensor.name(), absl::StrCat("must have one element, the shape [1], got ", elements));
  }
  const inference::InferTensorContents& contents = tensor.input->contents();
  const std::string& datatype = tensor.datatype();
  if (datatype == "BYTES") return ReadText(tensor);
  if (datatype == "UINT64") return Only(Read<uint64_t>(tensor, contents.uint64_contents()));
  if (datatype == "FP32" || datatype == "FP64") return Only(ReadReals(tensor));
  if (datatype == "INT64" || datatype == "INT32" || datatype == "UINT32") return Only(ReadIntegers(tensor));
  if (datatype != "BOOL") return WrongDatatype(tensor, "INT64, INT32, UINT64, UINT32, FP32, FP64, BOOL or BYTES");
  BOSS_ASSIGN_OR_RETURN(const std::vector<uint8_t> values, (Read<uint8_t>(tensor, contents.bool_contents())));
  return InferScalar(values.front() != 0);
}

absl::StatusOr<InferScalar> ScalarFromProto(std::string_view name, const inference::InferParameter& parameter) {
  switch (parameter.parameter_choice_case()) {
    case inference::InferParameter::kBoolParam:
      return InferScalar(parameter.bool_param());
    case inference::InferParameter::kInt64Param:
      return InferScalar(int64_t{parameter.int64_param()});
    case inference::InferParameter::kStringParam:
      return InferScalar(parameter.string_param());
    case inference::InferParameter::kDoubleParam:
      return InferScalar(parameter.double_param());
    case inference::InferParameter::kUint64Param:
      return InferScalar(uint64_t{parameter.uint64_param()});
    case inference::InferParameter::PARAMETER_CHOICE_NOT_SET:
      break;
  }
  return FieldError(std::string(name), "is a parameter without a value");
}

std::string WithLengths(absl::Span<const std::string> elements) {
  size_t size = 0;
  for (const std::string& element : elements) size += kLengthBytes + element.size();
  std::string bytes;
  bytes.reserve(size);
  for (const std::string& element : elements) {
    const uint32_t length = static_cast<uint32_t>(element.size());
    bytes.append(reinterpret_cast<const char*>(&length), kLengthBytes);
    bytes.append(element);
  }
  return bytes;
}

}  // namespace boss::server
