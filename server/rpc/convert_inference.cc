#include "server/rpc/convert_inference.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <string_view>
#include <utility>
#include <variant>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "core/base/error_details.h"
#include "core/base/status_macros.h"
#include "server/rpc/infer_tensor.h"

namespace boss::server {
namespace {

constexpr char kConditions[] = "conditions.";
constexpr char kNegativeConditions[] = "negative_conditions.";

const char* KindOf(const InferScalar& value) {
  static constexpr const char* kKinds[] = {"a boolean", "an integer", "an unsigned integer", "a real number", "a text"};
  return kKinds[value.index()];
}

absl::Status WrongKind(absl::string_view name, const char* expected, const InferScalar& value) {
  return FieldError(name, absl::StrCat("must be ", expected, ", got ", KindOf(value)));
}

absl::StatusOr<int64_t> IntegerOf(absl::string_view name, const InferScalar& value, int64_t min, int64_t max) {
  if (const int64_t* const integer = std::get_if<int64_t>(&value)) {
    if (*integer >= min && *integer <= max) return *integer;
    return FieldError(name, absl::StrCat("must be in [", min, ", ", max, "], got ", *integer));
  }
  const uint64_t* const integer = std::get_if<uint64_t>(&value);
  if (integer == nullptr) return WrongKind(name, "an integer", value);
  if (*integer <= static_cast<uint64_t>(max)) return static_cast<int64_t>(*integer);
  return FieldError(name, absl::StrCat("must be in [", min, ", ", max, "], got ", *integer));
}

absl::StatusOr<int32_t> Int32Of(absl::string_view name, const InferScalar& value) {
  BOSS_ASSIGN_OR_RETURN(const int64_t integer, IntegerOf(name, value, std::numeric_limits<int32_t>::min(),
                                                         std::numeric_limits<int32_t>::max()));
  return static_cast<int32_t>(integer);
}

absl::StatusOr<uint64_t> SeedOf(absl::string_view name, const InferScalar& value) {
  if (const uint64_t* const seed = std::get_if<uint64_t>(&value)) return *seed;
  return IntegerOf(name, value, 0, std::numeric_limits<int64_t>::max());
}

absl::StatusOr<double> RealOf(absl::string_view name, const InferScalar& value) {
  if (const double* const real = std::get_if<double>(&value)) return *real;
  if (const int64_t* const integer = std::get_if<int64_t>(&value)) return static_cast<double>(*integer);
  return WrongKind(name, "a real number", value);
}

absl::StatusOr<bool> BoolOf(absl::string_view name, const InferScalar& value) {
  if (const bool* const boolean = std::get_if<bool>(&value)) return *boolean;
  return WrongKind(name, "a boolean", value);
}

absl::StatusOr<std::string> TextOf(absl::string_view name, const InferScalar& value) {
  if (const std::string* const text = std::get_if<std::string>(&value)) return *text;
  return WrongKind(name, "a text", value);
}

// The value of an enum whose names are `prefix` and `value` in capitals.
template <typename Enum>
absl::StatusOr<Enum> EnumOf(absl::string_view name, const InferScalar& value, const char* prefix,
                            bool (*parse)(google::protobuf::ConstStringParam, Enum*), const char* expected) {
  BOSS_ASSIGN_OR_RETURN(const std::string text, TextOf(name, value));
  Enum result;
  if (parse(absl::StrCat(prefix, absl::AsciiStrToUpper(text)), &result)) return result;
  return FieldError(name, absl::StrCat("must be ", expected, ", got \"", text, "\""));
}

absl::StatusOr<v1::OutputFormat> FormatOf(const InferScalar& value) {
  BOSS_ASSIGN_OR_RETURN(const std::string text, TextOf("format", value));
  const std::string name = absl::AsciiStrToLower(text);
  if (name == "fp32") return v1::OUTPUT_FORMAT_FLOAT32;
  if (name == "uint8") return v1::OUTPUT_FORMAT_UINT8;
  if (name == "png") return v1::OUTPUT_FORMAT_PNG;
  if (name == "latents") return v1::OUTPUT_FORMAT_LATENTS;
  return FieldError("format", absl::StrCat("must be fp32, uint8, png or latents, got \"", text, "\""));
}

// The settings that are one value, as inputs or as parameters. \return false if there is none of this name.
absl::StatusOr<bool> SetScalar(absl::string_view name, const InferScalar& value, v1::GenerateRequest& generate) {
  if (name == "steps") {
    BOSS_ASSIGN_OR_RETURN(const int32_t steps, Int32Of(name, value));
    generate.set_steps(steps);
  } else if (name == "num_samples") {
    BOSS_ASSIGN_OR_RETURN(const int32_t num_samples, Int32Of(name, value));
    if (num_samples < 1) return FieldError(name, absl::StrCat("must be at least 1, got ", num_samples));
    generate.set_num_samples(num_samples);
  } else if (name == "seed") {
    BOSS_ASSIGN_OR_RETURN(const uint64_t seed, SeedOf(name, value));
    generate.set_seed(seed);
  } else if (name == "guidance_scale") {
    BOSS_ASSIGN_OR_RETURN(const double scale, RealOf(name, value));
    generate.set_guidance_scale(scale);
  } else if (name == "schedule") {
    BOSS_ASSIGN_OR_RETURN(const v1::ScheduleKind kind,
                          EnumOf<v1::ScheduleKind>(name, value, "SCHEDULE_KIND_", &v1::ScheduleKind_Parse,
                                                   "bellman, uniform, explicit or named"));
    generate.set_schedule(kind);
  } else if (name == "schedule_set") {
    BOSS_ASSIGN_OR_RETURN(*generate.mutable_schedule_set(), TextOf(name, value));
  } else if (name == "solver") {
    BOSS_ASSIGN_OR_RETURN(const v1::Solver solver, EnumOf<v1::Solver>(name, value, "SOLVER_", &v1::Solver_Parse,
                                                                      "euler, heun, rk45 or multistep"));
    generate.set_solver(solver);
  } else if (name == "rtol") {
    BOSS_ASSIGN_OR_RETURN(const double rtol, RealOf(name, value));
    generate.set_rtol(rtol);
  } else if (name == "atol") {
    BOSS_ASSIGN_OR_RETURN(const double atol, RealOf(name, value));
    generate.set_atol(atol);
  } else if (name == "priority") {
    BOSS_ASSIGN_OR_RETURN(const int32_t priority, Int32Of(name, value));
    generate.set_priority(priority);
  } else if (name == "deterministic") {
    BOSS_ASSIGN_OR_RETURN(const bool deterministic, BoolOf(name, value));
    generate.set_deterministic(deterministic);
  } else {
    return false;
  }
  return true;
}

// A tensor's name behind `prefix`; empty if it has another one.
std::string NameBehind(const std::string& name, const char* prefix) {
  return absl::StartsWith(name, prefix) ? name.substr(std::string_view(prefix).size()) : "";
}

absl::Status SetInput(const InferTensor& tensor, v1::GenerateRequest& generate) {
  const std::string& name = tensor.name();
  if (name == "class_labels" || name == "negative_class_labels") {
    BOSS_ASSIGN_OR_RETURN(const std::vector<int64_t> labels, ReadIntegers(tensor));
    auto& field = name == "class_labels" ? *generate.mutable_class_labels() : *generate.mutable_negative_class_labels();
    field.Add(labels.begin(), labels.end());
  } else if (name == "time_grid") {
    BOSS_ASSIGN_OR_RETURN(const std::vector<double> times, ReadReals(tensor));
    generate.mutable_time_grid()->Add(times.begin(), times.end());
  } else if (name == "initial_noise") {
    if (tensor.datatype() != "FP32") {
      return FieldError(name, absl::StrCat("must have the datatype FP32, got ", tensor.datatype()));
    }
    BOSS_ASSIGN_OR_RETURN(*generate.mutable_initial_noise(), ReadTensor(tensor));
  } else if (const std::string condition = NameBehind(name, kConditions); !condition.empty()) {
    BOSS_ASSIGN_OR_RETURN((*generate.mutable_conditions())[condition], ReadTensor(tensor));
  } else if (const std::string condition = NameBehind(name, kNegativeConditions); !condition.empty()) {
    BOSS_ASSIGN_OR_RETURN((*generate.mutable_negative_conditions())[condition], ReadTensor(tensor));
  } else {
    BOSS_ASSIGN_OR_RETURN(const InferScalar value, ReadScalar(tensor));
    BOSS_ASSIGN_OR_RETURN(const bool known, SetScalar(name, value, generate));
    if (!known) return FieldError(name, "there is no such input");
  }
  return absl::OkStatus();
}

absl::Status SetParameter(const std::string& name, const InferScalar& value, InferCall& call) {
  if (name == "format") {
    BOSS_ASSIGN_OR_RETURN(const v1::OutputFormat format, FormatOf(value));
    call.generate.set_output_format(format);
  } else if (name == "timeout") {
    BOSS_ASSIGN_OR_RETURN(const int64_t microseconds, IntegerOf(name, value, 0, std::numeric_limits<int64_t>::max()));
    if (microseconds > 0) call.timeout = absl::Microseconds(microseconds);
  } else if (name == "triton_enable_empty_final_response") {
    BOSS_ASSIGN_OR_RETURN(call.empty_final_response, BoolOf(name, value));
  } else if (name == "sequence_id" || name == "sequence_start" || name == "sequence_end") {
    return UnservedField(name, "there are no sequences: requests are independent of each other");
  } else {
    BOSS_ASSIGN_OR_RETURN(const bool known, SetScalar(name, value, call.generate));
    if (!known) return FieldError(name, "there is no such parameter");
  }
  return absl::OkStatus();
}

absl::StatusOr<InferOutput> OutputOf(const std::string& name) {
  if (name == "samples") return InferOutput::kSamples;
  if (name == "seeds") return InferOutput::kSeeds;
  if (name == "time_grid") return InferOutput::kTimeGrid;
  return FieldError("outputs", absl::StrCat("must be samples, seeds or time_grid, got \"", name, "\""));
}

absl::Status SetOutputs(const inference::ModelInferRequest& proto, InferCall& call) {
  for (const auto& requested : proto.outputs()) {
    BOSS_ASSIGN_OR_RETURN(const InferOutput output, OutputOf(requested.name()));
    if (std::find(call.outputs.begin(), call.outputs.end(), output) != call.outputs.end()) {
      return FieldError("outputs", absl::StrCat(requested.name(), " is there twice"));
    }
    call.outputs.push_back(output);
    for (const auto& [name, parameter] : requested.parameters()) {
      if (output != InferOutput::kSamples || name != "format") {
        return FieldError("outputs", absl::StrCat(requested.name(), " has no parameter ", name));
      }
      BOSS_ASSIGN_OR_RETURN(const InferScalar value, ScalarFromProto(name, parameter));
      BOSS_ASSIGN_OR_RETURN(const v1::OutputFormat format, FormatOf(value));
      call.generate.set_output_format(format);
    }
  }
  if (call.outputs.empty()) call.outputs = {InferOutput::kSamples, InferOutput::kSeeds, InferOutput::kTimeGrid};
  return absl::OkStatus();
}

// What follows from what is there.
void SetDefaults(v1::GenerateRequest& generate) {
  if (generate.output_format() == v1::OUTPUT_FORMAT_UNSPECIFIED) {
    generate.set_output_format(v1::OUTPUT_FORMAT_FLOAT32);
  }
  if (generate.schedule() == v1::SCHEDULE_KIND_UNSPECIFIED) {
    if (!generate.schedule_set().empty()) generate.set_schedule(v1::SCHEDULE_KIND_NAMED);
    if (!generate.time_grid().empty()) generate.set_schedule(v1::SCHEDULE_KIND_EXPLICIT);
  }
  if (generate.num_samples() == 0) {
    int64_t num_samples = generate.class_labels_size();
    if (generate.initial_noise().shape_size() > 0) num_samples = generate.initial_noise().shape(0);
    generate.set_num_samples(
        static_cast<int32_t>(std::clamp<int64_t>(num_samples, 1, std::numeric_limits<int32_t>::max())));
  }
}

}  // namespace

absl::StatusOr<std::string> ModelReference(const std::string& name, const std::string& version) {
  if (name.empty()) return FieldError("model_name", "is required");
  if (version.empty()) return name;
  if (absl::StrContains(name, "@")) {
    return FieldError("model_version", absl::StrCat("must be empty as the name ", name, " has one, got ", version));
  }
  return absl::StrCat(name, "@", version);
}

absl::StatusOr<InferCall> InferCallFromProto(const inference::ModelInferRequest& proto) {
  InferCall call;
  call.id = proto.id();
  BOSS_ASSIGN_OR_RETURN(*call.generate.mutable_model(), ModelReference(proto.model_name(), proto.model_version()));
  BOSS_ASSIGN_OR_RETURN(const std::vector<InferTensor> tensors, TensorsOf(proto));
  for (const InferTensor& tensor : tensors) {
    BOSS_RETURN_IF_ERROR(SetInput(tensor, call.generate));
    if (tensor.input->has_contents()) call.raw = false;
  }
  for (const auto& [name, parameter] : proto.parameters()) {
    const bool is_input_too = std::any_of(tensors.begin(), tensors.end(),
                                          [&name = name](const InferTensor& tensor) { return tensor.name() == name; });
    if (is_input_too) return FieldError(name, "is there twice, as an input and as a parameter");
    BOSS_ASSIGN_OR_RETURN(const InferScalar value, ScalarFromProto(name, parameter));
    BOSS_RETURN_IF_ERROR(SetParameter(name, value, call));
  }
  BOSS_RETURN_IF_ERROR(SetOutputs(proto, call));
  SetDefaults(call.generate);
  return call;
}

void AddTensorMetadata(const v1::Model& model, inference::ModelMetadataResponse& response) {
  const auto batch_of = [](const auto& shape) {
    std::vector<int64_t> sizes{-1};
    sizes.insert(sizes.end(), shape.begin(), shape.end());
    return sizes;
  };
  const auto fill = [](auto* tensor, const std::string& name, const char* datatype, const std::vector<int64_t>& shape) {
    tensor->set_name(name);
    tensor->set_datatype(datatype);
    tensor->mutable_shape()->Add(shape.begin(), shape.end());
  };
  const auto input = [&](const std::string& name, const char* datatype, const std::vector<int64_t>& shape) {
    fill(response.add_inputs(), name, datatype, shape);
  };
  const auto output = [&](const char* name, const char* datatype, const std::vector<int64_t>& shape) {
    fill(response.add_outputs(), name, datatype, shape);
  };
  input("steps", "INT32", {1});
  input("seed", "UINT64", {1});
  input("num_samples", "INT32", {1});
  if (model.num_classes() > 0) {
    input("class_labels", "INT64", {-1});
    input("negative_class_labels", "INT64", {-1});
  }
  for (const v1::ConditioningTensor& tensor : model.conditioning()) {
    const char* const datatype = tensor.dtype() == v1::Tensor::DATA_TYPE_INT64 ? "INT64" : "FP32";
    input(kConditions + tensor.name(), datatype, batch_of(tensor.shape()));
    input(kNegativeConditions + tensor.name(), datatype, batch_of(tensor.shape()));
  }
  if (model.num_classes() > 0 || !model.conditioning().empty()) input("guidance_scale", "FP64", {1});
  input("schedule", "BYTES", {1});
  input("schedule_set", "BYTES", {1});
  input("time_grid", "FP64", {-1});
  input("solver", "BYTES", {1});
  input("rtol", "FP64", {1});
  input("atol", "FP64", {1});
  input("initial_noise", "FP32", batch_of(model.sample_shape()));
  input("priority", "INT32", {1});
  input("deterministic", "BOOL", {1});
  output("samples", "FP32", batch_of(model.decoded_shape().empty() ? model.sample_shape() : model.decoded_shape()));
  output("seeds", "UINT64", {-1});
  output("time_grid", "FP64", {-1});
}

}  // namespace boss::server
