// bossctl generate
#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <ostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/cli/files.h"
#include "client/cli/options.h"
#include "client/cli/parse.h"
#include "client/format.h"
#include "client/picture.h"

namespace boss::client {
namespace {

using boss::v1::GenerateRequest;
using boss::v1::GenerateResponse;

struct Arguments {
  GenerateRequest request;
  std::vector<int64_t> labels, negative_labels;
  std::vector<std::string> conditions, negative_conditions;  // NAME=FILE
  std::string out, grid, noise_file;
  GridOptions grid_options;
  bool deterministic = false, validate_only = false;
};

// What arrived, in the order of samples.
struct Received {
  boss::v1::Accepted accepted;
  boss::v1::Summary summary;
  std::vector<Picture> pictures;   // by index, for the grid
  std::vector<std::string> files;  // by index
  std::vector<uint64_t> seeds;     // by index
  int previews = 0;
};

absl::Status LoadNoise(Context& context, Arguments& arguments) {
  auto bytes = ReadTextFile(arguments.noise_file);
  if (!bytes.ok()) return bytes.status();
  const auto model = context.client().GetModel(arguments.request.model());
  if (!model.ok()) return model.status();
  auto* noise = arguments.request.mutable_initial_noise();
  noise->set_dtype(boss::v1::Tensor::DATA_TYPE_FLOAT32);
  noise->add_shape(arguments.request.num_samples());
  noise->mutable_shape()->MergeFrom(model->sample_shape());
  noise->set_data(*std::move(bytes));
  return absl::OkStatus();
}

// Adds tensors of NAME=FILE, whose raw values are those of one sample or of all.
absl::Status LoadConditions(const std::vector<std::string>& named_files, const boss::v1::Model& model,
                            google::protobuf::Map<std::string, boss::v1::Tensor>& tensors) {
  for (const std::string& named_file : named_files) {
    const size_t equals = named_file.find('=');
    const std::string name = named_file.substr(0, equals);
    if (equals == std::string::npos)
      return absl::InvalidArgumentError(absl::StrCat("condition: got ", named_file, ", expected NAME=FILE"));
    const auto spec = std::find_if(model.conditioning().begin(), model.conditioning().end(),
                                   [&](const boss::v1::ConditioningTensor& each) { return each.name() == name; });
    if (spec == model.conditioning().end())
      return absl::InvalidArgumentError(absl::StrCat(model.name(), " has no condition ", name));
    auto bytes = ReadTextFile(named_file.substr(equals + 1));
    if (!bytes.ok()) return bytes.status();
    int64_t row_bytes = spec->dtype() == boss::v1::Tensor::DATA_TYPE_INT64 ? 8 : 4;
    for (const int64_t size : spec->shape()) row_bytes *= size;
    boss::v1::Tensor& tensor = tensors[name];
    tensor.set_dtype(spec->dtype());
    tensor.add_shape(static_cast<int64_t>(bytes->size()) / row_bytes);
    tensor.mutable_shape()->MergeFrom(spec->shape());
    tensor.set_data(*std::move(bytes));
  }
  return absl::OkStatus();
}

absl::Status LoadConditions(Context& context, Arguments& arguments) {
  if (arguments.conditions.empty() && arguments.negative_conditions.empty()) return absl::OkStatus();
  const auto model = context.client().GetModel(arguments.request.model());
  if (!model.ok()) return model.status();
  absl::Status status = LoadConditions(arguments.conditions, *model, *arguments.request.mutable_conditions());
  status.Update(
      LoadConditions(arguments.negative_conditions, *model, *arguments.request.mutable_negative_conditions()));
  return status;
}

absl::Status OnSample(const Arguments& arguments, const boss::v1::Sample& sample, Received& received) {
  if (sample.index() < 0 || sample.index() >= static_cast<int>(received.files.size())) {
    return absl::InternalError(absl::StrCat("the server sent sample ", sample.index(), " of ", received.files.size()));
  }
  received.seeds[sample.index()] = sample.seed();
  if (!arguments.out.empty()) {
    const std::string name = absl::StrFormat("%05d", sample.index());
    auto path = WriteSample(arguments.out, name, sample.shape(), sample.format(), sample.data());
    if (!path.ok()) return path.status();
    received.files[sample.index()] = *std::move(path);
  }
  if (!arguments.grid.empty()) {
    auto picture = SampleToPicture(sample);
    if (!picture.ok()) return picture.status();
    received.pictures[sample.index()] = *std::move(picture);
  }
  return absl::OkStatus();
}

absl::Status OnPreview(const Arguments& arguments, const boss::v1::Preview& preview, Received& received) {
  ++received.previews;
  if (arguments.out.empty()) return absl::OkStatus();
  const std::string name = absl::StrFormat("%05d_step_%03d", preview.sample_index(), preview.step());
  return WriteSample(arguments.out, name, preview.shape(), preview.format(), preview.data()).status();
}

absl::Status WriteGrid(const Arguments& arguments, const Received& received) {
  const auto grid = ComposeGrid(received.pictures, arguments.grid_options);
  if (!grid.ok()) return grid.status();
  const auto png = EncodePng(*grid);
  if (!png.ok()) return png.status();
  return WriteBinaryFile(arguments.grid, *png);
}

void PrintResult(Context& context, const Arguments& arguments, const Received& received) {
  const auto& accepted = received.accepted;
  const auto& summary = received.summary;
  for (const std::string& warning : accepted.warnings()) context.err() << "warning: " << warning << "\n";
  if (context.json) {
    nlohmann::json document;
    const auto add = [&document](const char* name, const google::protobuf::Message& message) {
      std::string text;
      google::protobuf::util::JsonPrintOptions options;
      options.always_print_primitive_fields = true;
      if (google::protobuf::util::MessageToJsonString(message, &text, options).ok())
        document[name] = nlohmann::json::parse(text);
    };
    add("accepted", accepted);
    if (!arguments.validate_only) add("summary", summary);
    document["samples"] = nlohmann::json::array();
    for (size_t i = 0; i < received.files.size(); ++i) {
      document["samples"].push_back(
          {{"index", i}, {"seed", std::to_string(received.seeds[i])}, {"file", received.files[i]}});
    }
    if (!arguments.grid.empty()) document["grid"] = arguments.grid;
    context.out() << document.dump(1) << "\n";
    return;
  }
  Facts facts;
  facts.Add("model", accepted.model());
  // rk45 chooses its own times: it has no schedule and no number of steps.
  const bool adaptive = accepted.solver() == boss::v1::SOLVER_RK45;
  const std::string schedule =
      adaptive ? "adaptive" : absl::StrCat(ScheduleName(accepted.schedule()), ", K ", accepted.steps());
  facts.Add("sampler", absl::StrCat(SolverName(accepted.solver()), ", ", schedule, ", guidance ",
                                    FormatReal(accepted.guidance_scale()), ", seed ", accepted.seed()));
  facts.Add("time grid", absl::StrJoin(accepted.time_grid(), " ",
                                       [](std::string* out, double t) { absl::StrAppend(out, FormatReal(t)); }));
  if (!arguments.validate_only) {
    facts.Add("nfe", FormatReal(summary.nfe()));
    facts.Add("samples", absl::StrFormat("%d in %s, %s samples/s on %s (queue %s, output %s)", summary.num_samples(),
                                         FormatElapsed(ToDuration(summary.compute_time())),
                                         FormatReal(summary.samples_per_second()), summary.device(),
                                         FormatElapsed(ToDuration(summary.queue_time())),
                                         FormatElapsed(ToDuration(summary.output_time()))));
    if (received.previews > 0) facts.Add("previews", absl::StrCat(received.previews));
    if (!arguments.out.empty()) facts.Add("files", arguments.out);
    facts.Add("grid", arguments.grid);
  }
  context.out() << facts.Render();
}

int Run(Context& context, Arguments& arguments) {
  GenerateRequest& request = arguments.request;
  request.set_deterministic(arguments.deterministic);
  request.set_validate_only(arguments.validate_only);
  if (request.num_samples() == 0) request.set_num_samples(1);
  const int count = request.num_samples();
  // One label is for all samples; several are taken in turn.
  if (arguments.labels.size() == 1) request.add_class_labels(arguments.labels[0]);
  for (int i = 0; arguments.labels.size() > 1 && i < count; ++i) {
    request.add_class_labels(arguments.labels[i % arguments.labels.size()]);
  }
  if (arguments.negative_labels.size() == 1) request.add_negative_class_labels(arguments.negative_labels[0]);
  for (int i = 0; arguments.negative_labels.size() > 1 && i < count; ++i) {
    request.add_negative_class_labels(arguments.negative_labels[i % arguments.negative_labels.size()]);
  }
  absl::Status status = LoadConditions(context, arguments);
  if (status.ok() && !arguments.noise_file.empty()) status = LoadNoise(context, arguments);
  if (status.ok() && !arguments.out.empty() && !arguments.validate_only) status = MakeFolder(arguments.out);
  if (!status.ok()) return context.Fail(status);

  Received received;
  if (!arguments.validate_only) {
    received.files.resize(count);
    received.seeds.resize(count);
    if (!arguments.grid.empty()) received.pictures.resize(count);
  }
  const bool bar = context.console().interactive;
  status = context.client().Generate(request, [&](const GenerateResponse& response) {
    switch (response.event_case()) {
      case GenerateResponse::kAccepted:
        received.accepted = response.accepted();
        break;
      case GenerateResponse::kProgress:
        if (bar) {
          const auto& progress = response.progress();
          context.err() << absl::StrFormat("\r%d of %d solver steps, %d of %d samples\x1b[K", progress.solver_steps(),
                                           progress.total_solver_steps(), progress.samples_done(), count)
                        << std::flush;
        }
        break;
      case GenerateResponse::kPreview:
        return OnPreview(arguments, response.preview(), received);
      case GenerateResponse::kSample:
        return OnSample(arguments, response.sample(), received);
      case GenerateResponse::kSummary:
        received.summary = response.summary();
        break;
      case GenerateResponse::EVENT_NOT_SET:
        break;
    }
    return absl::OkStatus();
  });
  if (bar) context.err() << "\r\x1b[K" << std::flush;
  if (status.ok() && !arguments.grid.empty() && !arguments.validate_only) status = WriteGrid(arguments, received);
  if (!status.ok()) return context.Fail(status);
  PrintResult(context, arguments, received);
  return kExitOk;
}

}  // namespace

void AddGenerateCommand(CLI::App& app, Context& context) {
  auto arguments = std::make_shared<Arguments>();
  GenerateRequest* request = &arguments->request;
  CLI::App* command = app.add_subcommand("generate", "Draw samples");
  command
      ->add_option_function<std::string>(
          "-m,--model", [request](const std::string& v) { request->set_model(v); }, "Model or version")
      ->required();
  command->add_option_function<int32_t>(
      "-k,--steps", [request](int32_t v) { request->set_steps(v); }, "Solver steps; default: the model's");
  command
      ->add_option_function<int32_t>(
          "-n,--num", [request](int32_t v) { request->set_num_samples(v); }, "Samples; default 1")
      ->check(CLI::PositiveNumber);
  command->add_option_function<uint64_t>(
      "-s,--seed", [request](uint64_t v) { request->set_seed(v); },
      "Seed of sample 0; sample i has seed + i; default: the server's choice");
  AddParsed(
      *command, "--schedule", ParseSchedule,
      [request](const ScheduleArgument& schedule) {
        request->set_schedule(schedule.kind);
        request->mutable_time_grid()->Assign(schedule.time_grid.begin(), schedule.time_grid.end());
      },
      "auto, bellman, uniform, or times from 0 to 1: 0,0.25,0.6,1");
  command->add_option_function<std::string>(
      "--schedule-set",
      [request](const std::string& v) {
        request->set_schedule_set(v);
        request->set_schedule(boss::v1::SCHEDULE_KIND_NAMED);
      },
      "A schedule set of the version, by name");
  AddParsed(
      *command, "--solver", ParseSolver, [request](boss::v1::Solver solver) { request->set_solver(solver); },
      "euler, heun, rk45 or multistep; default: multistep where the version has it for these steps, else euler");
  AddParsed(
      *command, "-l,--labels", ParseIntegers,
      [arguments](std::vector<int64_t> labels) { arguments->labels = std::move(labels); },
      "Class labels, e.g. 3 or 0-9, taken in turn; -1 is no label");
  command->add_option_function<double>(
      "-g,--guidance", [request](double v) { request->set_guidance_scale(v); },
      "Classifier-free guidance scale; 1 is none");
  AddParsed(
      *command, "--negative-labels", ParseIntegers,
      [arguments](std::vector<int64_t> labels) { arguments->negative_labels = std::move(labels); },
      "Labels that guidance leads away from, in place of no label; taken in turn");
  command->add_option("--condition", arguments->conditions,
                      "NAME=FILE: raw little-endian values of a conditioning tensor, for one sample or for each");
  command->add_option("--negative-condition", arguments->negative_conditions,
                      "NAME=FILE: what guidance leads away from, in place of zeros");
  AddParsed(
      *command, "--format", ParseOutputFormat,
      [request](boss::v1::OutputFormat format) { request->set_output_format(format); },
      "auto, png, uint8, float32 or latents");
  command->add_option_function<int32_t>(
      "--preview-interval", [request](int32_t v) { request->set_preview_interval(v); },
      "Solver steps between previews; they go to --out");
  command->add_option_function<int32_t>(
      "--priority", [request](int32_t v) { request->set_priority(v); }, "-100 to 100");
  command->add_option_function<double>(
      "--rtol", [request](double v) { request->set_rtol(v); }, "Relative tolerance of rk45");
  command->add_option_function<double>(
      "--atol", [request](double v) { request->set_atol(v); }, "Absolute tolerance of rk45");
  command->add_option("--noise", arguments->noise_file,
                      "Raw little-endian float32 noise for all samples, instead of a seed");
  command->add_flag("--deterministic", arguments->deterministic, "Bit-identical whatever runs beside it");
  command->add_flag("--validate-only", arguments->validate_only, "Check the request and show what it resolves to");
  command->add_option("-o,--out", arguments->out, "Folder for one file a sample: .png, or .npy for the other formats");
  command->add_option("--grid", arguments->grid, "PNG file for one grid of all samples");
  command->add_option("--columns", arguments->grid_options.columns, "Of the grid")->check(CLI::PositiveNumber);
  command->add_option("--scale", arguments->grid_options.scale, "Of the grid: enlarge by this factor")
      ->check(CLI::Range(1, 16));
  SetCommand(*command, context, [arguments](Context& context) { return Run(context, *arguments); });
}

}  // namespace boss::client
