#include "server/rpc/infer_answer.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/error_details.h"
#include "server/rpc/infer_tensor.h"

namespace boss::server {
namespace {

// A varint of a byte's value.
constexpr int64_t kMaxBytesOfUint8 = 2;
constexpr int64_t kMaxBytesOfLength = 5;

template <typename T>
std::string BytesOf(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

}  // namespace

InferAnswer::InferAnswer(const InferCall& call, const AcceptedRequest& accepted, int64_t num_samples,
                         inference::ModelInferResponse& response)
    : call_(call),
      accepted_(accepted),
      num_samples_(num_samples),
      response_(response),
      has_samples_(std::find(call.outputs.begin(), call.outputs.end(), InferOutput::kSamples) != call.outputs.end()),
      seeds_(static_cast<size_t>(num_samples)) {}

absl::Status InferAnswer::Add(EncodedSample sample, int64_t place, int64_t max_bytes) {
  seeds_[static_cast<size_t>(place)] = sample.seed;
  if (!has_samples_) return absl::OkStatus();
  const int64_t size = static_cast<int64_t>(sample.data.size());
  const bool is_png = sample.format == SampleFormat::kPng;
  if (shape_.empty()) {
    format_ = sample.format;
    shape_ = sample.shape;
    if (is_png) files_.resize(static_cast<size_t>(num_samples_));
    const bool is_wide = !call_.raw && sample.format == SampleFormat::kUint8;
    if (!is_png) bytes_ = num_samples_ * size * (is_wide ? kMaxBytesOfUint8 : 1);
  }
  if (is_png) bytes_ += size + kMaxBytesOfLength;
  if (bytes_ > max_bytes) return TooLargeForOneMessage(bytes_, max_bytes);
  if (is_png) {
    files_[static_cast<size_t>(place)] = std::move(sample.data);
  } else if (call_.raw && num_samples_ == 1) {
    data_ = std::move(sample.data);
  } else {
    Place(sample, place);
  }
  return absl::OkStatus();
}

void InferAnswer::Place(const EncodedSample& sample, int64_t place) {
  const size_t size = sample.data.size();
  if (call_.raw) {
    if (data_.empty()) data_.resize(static_cast<size_t>(num_samples_) * size);
    std::memcpy(data_.data() + static_cast<size_t>(place) * size, sample.data.data(), size);
  } else if (format_ == SampleFormat::kFloat32) {
    auto& values = *contents_.mutable_fp32_contents();
    const size_t elements = size / sizeof(float);
    if (values.empty()) values.Resize(static_cast<int>(num_samples_ * elements), 0);
    std::memcpy(values.mutable_data() + static_cast<size_t>(place) * elements, sample.data.data(), size);
  } else {
    auto& values = *contents_.mutable_uint_contents();
    if (values.empty()) values.Resize(static_cast<int>(num_samples_ * size), 0);
    std::transform(sample.data.begin(), sample.data.end(), values.mutable_data() + static_cast<size_t>(place) * size,
                   [](char byte) { return static_cast<uint8_t>(byte); });
  }
}

void InferAnswer::Finish() {
  NameRequest(call_, accepted_, response_);
  auto& parameters = *response_.mutable_parameters();
  parameters["solver"].set_string_param(std::string(SolverName(accepted_.solver)));
  if (!accepted_.schedule_set.empty()) parameters["schedule_set"].set_string_param(accepted_.schedule_set);
  if (!accepted_.warnings.empty()) parameters["warnings"].set_string_param(absl::StrJoin(accepted_.warnings, "; "));
  for (const InferOutput output : call_.outputs) {
    auto& tensor = *response_.add_outputs();
    inference::InferTensorContents contents;
    std::string raw;
    switch (output) {
      case InferOutput::kSamples:
        tensor.set_name("samples");
        tensor.add_shape(num_samples_);
        if (format_ == SampleFormat::kPng) {
          tensor.set_datatype("BYTES");
          if (call_.raw) raw = WithLengths(files_);
          if (!call_.raw) {
            for (std::string& file : files_) contents.add_bytes_contents(std::move(file));
          }
        } else {
          tensor.set_datatype(format_ == SampleFormat::kFloat32 ? "FP32" : "UINT8");
          tensor.mutable_shape()->Add(shape_.begin(), shape_.end());
          raw = std::move(data_);
          contents = std::move(contents_);
        }
        break;
      case InferOutput::kSeeds:
        tensor.set_name("seeds");
        tensor.set_datatype("UINT64");
        tensor.add_shape(num_samples_);
        if (call_.raw) raw = BytesOf(seeds_);
        if (!call_.raw) contents.mutable_uint64_contents()->Add(seeds_.begin(), seeds_.end());
        break;
      case InferOutput::kTimeGrid:
        tensor.set_name("time_grid");
        tensor.set_datatype("FP64");
        tensor.add_shape(static_cast<int64_t>(accepted_.time_grid.size()));
        if (call_.raw) raw = BytesOf(accepted_.time_grid);
        if (!call_.raw) contents.mutable_fp64_contents()->Add(accepted_.time_grid.begin(), accepted_.time_grid.end());
        break;
    }
    if (call_.raw) {
      response_.add_raw_output_contents(std::move(raw));
    } else {
      *tensor.mutable_contents() = std::move(contents);
    }
  }
}

void NameRequest(const InferCall& call, const AcceptedRequest& accepted, inference::ModelInferResponse& response) {
  response.set_id(call.id);
  // A request that was not accepted has no version.
  const bool is_accepted = !accepted.version.name.empty();
  response.set_model_name(is_accepted ? accepted.version.name : call.generate.model());
  if (is_accepted) response.set_model_version(absl::StrCat(accepted.version.version));
}

absl::Status TooLargeForOneMessage(int64_t bytes, int64_t max_bytes) {
  return FieldError("num_samples", absl::StrCat("the samples have ", bytes, " bytes and a message at most ", max_bytes,
                                                ": ask for fewer, or for one message a sample with ModelStreamInfer"));
}

}  // namespace boss::server
