// bossctl models ...
#include <algorithm>
#include <map>
#include <memory>
#include <ostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cli/files.h"
#include "client/cli/models.h"
#include "client/cli/options.h"
#include "client/cli/parse.h"
#include "client/format.h"

namespace boss::client {
namespace {

using boss::v1::Model;
using boss::v1::ModelVersion;

std::string AliasesOf(const Model& model, const std::string& version) {
  std::vector<std::string> aliases;
  for (const auto& [alias, target] : model.aliases()) {
    if (target == version) aliases.push_back(alias);
  }
  std::sort(aliases.begin(), aliases.end());
  return absl::StrJoin(aliases, ", ");
}

std::string Shape(const google::protobuf::RepeatedField<int64_t>& shape) { return absl::StrJoin(shape, " x "); }

std::string AdapterOf(const ModelVersion& version) {
  return version.has_adapter() ? AdapterText(version.adapter()) : "-";
}

std::string VersionState(const ModelVersion& version) {
  return absl::StrCat(ModelVersion::State_Name(version.state()), version.error_message().empty() ? "" : ": ",
                      version.error_message());
}

int List(Context& context, const std::string& filter) {
  boss::v1::ListModelsRequest request;
  request.set_filter(filter);
  const auto models = context.client().ListModels(request).Take();
  if (!models.ok()) return context.Fail(models.status());
  if (context.json) {
    boss::v1::ListModelsResponse all;
    all.mutable_models()->Add(models->begin(), models->end());
    context.PrintJson(all);
    return kExitOk;
  }
  Table table({{"MODEL"},
               {"STATE"},
               {"ARCHITECTURE"},
               {"PARAMETERS", true},
               {"SAMPLE"},
               {"CLASSES", true},
               {"SIZE", true},
               {"SCHEDULES", true},
               {"ADAPTER OF"},
               {"ALIASES"}});
  for (const Model& model : *models) {
    for (const ModelVersion& version : model.versions()) {
      table.AddRow({absl::StrCat(model.name(), "@", version.version()), ModelVersion::State_Name(version.state()),
                    model.architecture(), FormatCount(model.parameter_count()), Shape(model.sample_shape()),
                    absl::StrCat(model.num_classes()), FormatBytes(version.size_bytes()),
                    absl::StrCat(version.schedule_sets_size()), AdapterOf(version),
                    AliasesOf(model, version.version())});
    }
  }
  context.out() << (table.empty() ? "no models\n" : table.Render());
  return kExitOk;
}

int Get(Context& context, const std::string& name) {
  const auto model = context.client().GetModel(name);
  if (!model.ok()) return context.Fail(model.status());
  if (context.json) {
    context.PrintJson(*model);
    return kExitOk;
  }
  Facts facts;
  facts.Add("name", model->name());
  facts.Add("title", model->display_name());
  facts.Add("description", model->description());
  facts.Add("architecture", model->architecture());
  facts.Add("parameters", FormatCount(model->parameter_count()));
  facts.Add("sample", Shape(model->sample_shape()));
  if (!model->decoded_shape().empty()) facts.Add("decoded", Shape(model->decoded_shape()));
  for (const boss::v1::ConditioningTensor& tensor : model->conditioning())
    facts.Add("condition", absl::StrCat(tensor.name(), ": ", Shape(tensor.shape())));
  if (model->num_classes() > 0) {
    facts.Add("classes", absl::StrCat(model->num_classes(), model->label_names().empty() ? "" : ": ",
                                      absl::StrJoin(model->label_names(), ", ")));
  }
  facts.Add("time map", absl::StrCat("t_net = (t (1 - ", FormatReal(model->time_map().eps()), ") + ",
                                     FormatReal(model->time_map().eps()), ") ", FormatReal(model->time_map().scale())));
  facts.Add("default steps", absl::StrCat(model->default_steps()));
  context.out() << facts.Render() << "\n";
  Table versions({{"VERSION"},
                  {"STATE"},
                  {"SIZE", true},
                  {"PARENT"},
                  {"ADAPTER OF"},
                  {"JOB"},
                  {"K", true},
                  {"SCHEDULES"},
                  {"ALIASES"},
                  {"LABELS"},
                  {"CREATED"}});
  for (const ModelVersion& version : model->versions()) {
    std::vector<std::string> sets;
    for (const auto& set : version.schedule_sets()) sets.push_back(set.name());
    versions.AddRow({version.version(), VersionState(version), FormatBytes(version.size_bytes()), version.parent(),
                     AdapterOf(version), version.job(),
                     version.straightened_steps() > 0 ? absl::StrCat(version.straightened_steps()) : "-",
                     sets.empty() ? "-" : absl::StrJoin(sets, ", "), AliasesOf(*model, version.version()),
                     FormatLabels(version.labels()), FormatTime(version.create_time())});
  }
  context.out() << versions.Render();
  for (const ModelVersion& version : model->versions()) {
    if (version.evaluation().empty()) continue;
    context.out() << "\n" << RenderEvaluation(version.evaluation());
  }
  return kExitOk;
}

// Whether the server keeps what it has of an upload that ended so.
bool MayGoOn(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsCancelled(status) || absl::IsDeadlineExceeded(status) ||
         absl::IsResourceExhausted(status);
}

void AddImport(CLI::App& models, Context& context) {
  struct Arguments {
    std::string file, architecture_file, decoder_file;
    boss::v1::ImportStart start;
    std::vector<std::string> label_names;
  };
  CLI::App* command =
      models.add_subcommand("import",
                            "Publish a weight file (safetensors, a torch checkpoint or a TorchScript module) as "
                            "a new version");
  auto arguments = std::make_shared<Arguments>();
  command->add_option("file", arguments->file, "Weight file")->required();
  boss::v1::ImportStart* start = &arguments->start;
  const auto add_text = [command](const char* names, auto set, const char* help) {
    return command->add_option_function<std::string>(names, set, help);
  };
  add_text(
      "-m,--model", [start](const std::string& v) { start->set_model(v); }, "Name of the model")
      ->required();
  command->add_option("--architecture", arguments->architecture_file, "JSON file that describes the network");
  add_text(
      "--preset", [start](const std::string& v) { start->set_preset(v); },
      "Named architecture, e.g. cifar10-ddpmpp (see capabilities)");
  add_text(
      "--base", [start](const std::string& v) { start->set_adapter_base(v); },
      "The file is an adapter of this version (NAME@VERSION)");
  add_text(
      "--alias", [start](const std::string& v) { start->set_alias(v); }, "Alias to set to the new version");
  add_text(
      "--description", [start](const std::string& v) { start->set_description(v); }, "Free text");
  command->add_option("--label-names", arguments->label_names, "Names of the classes")->delimiter(',');
  AddLabels(*command, [start] { return start->mutable_labels(); });
  add_text(
      "--upload-id", [start](const std::string& v) { start->set_upload_id(v); },
      "Go on with an upload that was interrupted; default: a new one with a random id");
  command->add_flag_function(
      "--torchscript", [start](int64_t) { start->set_format(boss::v1::ImportStart::TORCHSCRIPT); },
      "The file is a TorchScript module (docs/torchscript.md)");
  command->add_option("--decoder", arguments->decoder_file,
                      "TorchScript module that makes pixels of the model's latents");
  command->add_flag_function(
      "--raw-weights", [start](int64_t) { start->set_raw_weights(true); },
      "Of a torch checkpoint, take the raw instead of the averaged weights");
  command->add_flag_function(
      "--validate-only", [start](int64_t) { start->set_validate_only(true); }, "Check everything, publish nothing");
  SetCommand(*command, context, [arguments](Context& context) {
    boss::v1::ImportStart& start = arguments->start;
    start.mutable_label_names()->Add(arguments->label_names.begin(), arguments->label_names.end());
    if (!arguments->architecture_file.empty()) {
      auto architecture = ReadTextFile(arguments->architecture_file);
      if (!architecture.ok()) return context.Fail(architecture.status());
      start.set_architecture_json(*std::move(architecture));
    }
    if (start.upload_id().empty()) start.set_upload_id(Client::NewId());
    const auto response = context.client().ImportModel(
        start, arguments->file, [](int64_t) {}, arguments->decoder_file);
    if (!response.ok()) {
      const int code = context.Fail(response.status());
      if (MayGoOn(response.status())) {
        context.err() << "go on where it was with the same command and --upload-id " << start.upload_id() << "\n";
      }
      return code;
    }
    for (const std::string& warning : response->warnings()) context.err() << "warning: " << warning << "\n";
    if (context.json) {
      context.PrintJson(*response);
    } else if (response->has_version()) {
      PrintVersion(context, response->version());
    } else {
      context.out() << "the file is fit for import; nothing was published\n";
    }
    return int{kExitOk};
  });
}

void AddExport(CLI::App& models, Context& context) {
  struct Arguments {
    std::string model, out;
    boss::v1::ExportModelRequest::Part part = boss::v1::ExportModelRequest::WEIGHTS;
  };
  CLI::App* command = models.add_subcommand("export", "Download a version's file, its size and checksums verified");
  auto arguments = std::make_shared<Arguments>();
  command->add_option("model", arguments->model, "Version")->required();
  command->add_option("-o,--out", arguments->out, "File to write")->required();
  const std::map<std::string, boss::v1::ExportModelRequest::Part> parts = {
      {"weights", boss::v1::ExportModelRequest::WEIGHTS},
      {"adapter", boss::v1::ExportModelRequest::ADAPTER},
      {"manifest", boss::v1::ExportModelRequest::MANIFEST},
      {"decoder", boss::v1::ExportModelRequest::DECODER}};
  command->add_option("--part", arguments->part, "weights, adapter, manifest or decoder")
      ->transform(CLI::CheckedTransformer(parts));
  SetCommand(*command, context, [arguments](Context& context) {
    boss::v1::ExportModelRequest request;
    request.set_model(arguments->model);
    request.set_part(arguments->part);
    const auto header = context.client().ExportModel(request, arguments->out, [](int64_t) {});
    if (!header.ok()) return context.Fail(header.status());
    if (context.json) {
      context.PrintJson(*header);
    } else {
      context.out() << "wrote " << arguments->out << ", " << FormatBytes(header->total_bytes()) << ", SHA-256 "
                    << header->sha256() << "\n";
    }
    return int{kExitOk};
  });
}

void AddAliasAndDelete(CLI::App& models, Context& context) {
  CLI::App* alias = models.add_subcommand("alias", "Move an alias to a version, or remove it");
  auto remove = std::make_shared<bool>(false);
  auto names = std::make_shared<std::vector<std::string>>();
  alias->add_option("model alias [version]", *names, "Model, alias, and the version (unless --remove)")
      ->required()
      ->expected(2, 3);
  alias->add_flag("--remove", *remove, "Remove the alias");
  SetCommand(*alias, context, [names, remove](Context& context) {
    if (*remove != (names->size() == 2)) return context.FailUsage("models alias: give either a version or --remove");
    boss::v1::SetAliasRequest request;
    request.set_model((*names)[0]);
    request.set_alias((*names)[1]);
    if (!*remove) request.set_version((*names)[2]);
    const auto model = context.client().SetAlias(request);
    if (!model.ok()) return context.Fail(model.status());
    if (context.json) {
      context.PrintJson(*model);
    } else if (*remove) {
      context.out() << model->name() << "@" << request.alias() << " is removed\n";
    } else {
      context.out() << model->name() << "@" << request.alias() << " is " << model->name() << "@" << request.version()
                    << "\n";
    }
    return int{kExitOk};
  });

  auto delete_request = std::make_shared<boss::v1::DeleteVersionRequest>();
  auto force = std::make_shared<bool>(false);
  CLI::App* remove_version = models.add_subcommand("delete", "Delete a version");
  remove_version
      ->add_option_function<std::string>(
          "version", [delete_request](const std::string& v) { delete_request->set_model(v); }, "NAME@VERSION")
      ->required();
  remove_version->add_flag("--force", *force, "Even if it is loaded, aliased, a parent, or in use by a job");
  SetCommand(*remove_version, context, [delete_request, force](Context& context) {
    delete_request->set_force(*force);
    const absl::Status status = context.client().DeleteVersion(*delete_request);
    if (!status.ok()) return context.Fail(status);
    context.out() << (context.json ? "{}" : absl::StrCat("deleted ", delete_request->model())) << "\n";
    return int{kExitOk};
  });
}

}  // namespace

void PrintVersion(Context& context, const ModelVersion& version) {
  if (context.json) return context.PrintJson(version);
  Facts facts;
  facts.Add("version", absl::StrCat(version.model(), "@", version.version()));
  facts.Add("state", VersionState(version));
  if (version.has_adapter()) facts.Add("adapter of", AdapterText(version.adapter()));
  facts.Add("size", FormatBytes(version.size_bytes()));
  if (version.memory_bytes() > 0) facts.Add("memory", FormatBytes(version.memory_bytes()));
  facts.Add("SHA-256", version.weights_sha256());
  context.out() << facts.Render();
}

void AddModelsCommands(CLI::App& app, Context& context) {
  CLI::App* models = app.add_subcommand("models", "Models, versions, aliases")->require_subcommand(0, 1);

  auto filter = std::make_shared<std::string>();
  CLI::App* list = models->add_subcommand("list", "Every version of every model");
  list->add_option("--filter", *filter, "e.g. 'architecture = \"ncsnpp\" AND state = READY'");
  SetCommand(*list, context, [filter](Context& context) { return List(context, *filter); });

  auto name = std::make_shared<std::string>();
  CLI::App* get = models->add_subcommand("get", "One model with its versions, schedules and evaluations");
  get->add_option("model", *name, "Model or version")->required();
  SetCommand(*get, context, [name](Context& context) { return Get(context, *name); });

  auto load_request = std::make_shared<boss::v1::LoadModelRequest>();
  CLI::App* load = models->add_subcommand("load", "Load a version onto the server's device");
  load->add_option_function<std::string>(
          "model", [load_request](const std::string& v) { load_request->set_model(v); }, "Version")
      ->required();
  load->add_option_function<std::string>(
      "--device", [load_request](const std::string& v) { load_request->set_device(v); },
      "A device of the server (see capabilities)");
  SetCommand(*load, context, [load_request](Context& context) {
    const auto version = context.client().LoadModel(*load_request);
    if (!version.ok()) return context.Fail(version.status());
    PrintVersion(context, *version);
    return int{kExitOk};
  });

  auto unloaded = std::make_shared<std::string>();
  CLI::App* unload = models->add_subcommand("unload", "Free a version's memory");
  unload->add_option("model", *unloaded, "Version")->required();
  SetCommand(*unload, context, [unloaded](Context& context) {
    const auto version = context.client().UnloadModel(*unloaded);
    if (!version.ok()) return context.Fail(version.status());
    PrintVersion(context, *version);
    return int{kExitOk};
  });

  AddImport(*models, context);
  AddExport(*models, context);
  AddAdapterCommands(*models, context);
  AddAliasAndDelete(*models, context);
}

}  // namespace boss::client
