// bossctl models adapters, bossctl models merge
#include <memory>
#include <ostream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/cli/models.h"
#include "client/cli/options.h"
#include "client/format.h"

namespace boss::client {
namespace {

using boss::v1::Model;
using boss::v1::ModelVersion;

// NAME as it is, NAME@ALIAS as NAME@VERSION.
absl::StatusOr<std::string> BaseReference(Context& context, const std::string& reference) {
  if (!absl::StrContains(reference, '@')) return reference;
  const auto model = context.client().GetModel(reference);
  if (!model.ok()) return model.status();
  if (model->versions().empty()) return absl::NotFoundError(absl::StrCat("there is no version ", reference));
  return absl::StrCat(model->name(), "@", model->versions(0).version());
}

bool IsOf(const ModelVersion& version, const std::string& base) {
  const std::string& own = version.adapter().base();
  return own == base || own.substr(0, own.find('@')) == base;
}

int ListAdapters(Context& context, const std::string& reference) {
  const auto base = BaseReference(context, reference);
  if (!base.ok()) return context.Fail(base.status());
  boss::v1::ListModelsRequest request;
  request.set_filter(absl::StrCat("base = \"", *base, "\""));
  const auto models = context.client().ListModels(request).Take();
  if (!models.ok()) return context.Fail(models.status());
  boss::v1::ListModelsResponse found;
  Table table({{"ADAPTER"},
               {"BASE"},
               {"RANK", true},
               {"ALPHA", true},
               {"STATE"},
               {"SIZE", true},
               {"MEMORY", true},
               {"CREATED"}});
  for (const Model& model : *models) {
    Model* of_base = nullptr;
    for (const ModelVersion& version : model.versions()) {
      if (!version.has_adapter() || !IsOf(version, *base)) continue;
      if (of_base == nullptr) {
        of_base = found.add_models();
        *of_base = model;
        of_base->clear_versions();
      }
      *of_base->add_versions() = version;
      table.AddRow({absl::StrCat(model.name(), "@", version.version()), version.adapter().base(),
                    absl::StrCat(version.adapter().rank()), FormatReal(version.adapter().alpha()),
                    ModelVersion::State_Name(version.state()), FormatBytes(version.size_bytes()),
                    version.memory_bytes() > 0 ? FormatBytes(version.memory_bytes()) : "-",
                    FormatTime(version.create_time())});
    }
  }
  if (context.json) {
    context.PrintJson(found);
  } else {
    context.out() << (table.empty() ? absl::StrCat(*base, " has no adapters\n") : table.Render());
  }
  return kExitOk;
}

}  // namespace

std::string AdapterText(const ModelVersion::Adapter& adapter) {
  return absl::StrCat(adapter.base(), ", rank ", adapter.rank(), ", alpha ", FormatReal(adapter.alpha()));
}

void AddAdapterCommands(CLI::App& models, Context& context) {
  auto base = std::make_shared<std::string>();
  CLI::App* adapters = models.add_subcommand("adapters", "The adapters of a model or of one of its versions");
  adapters->add_option("base", *base, "NAME or NAME@VERSION")->required();
  SetCommand(*adapters, context, [base](Context& context) { return ListAdapters(context, *base); });

  auto request = std::make_shared<boss::v1::MergeAdapterRequest>();
  boss::v1::MergeAdapterRequest* r = request.get();
  CLI::App* merge =
      models.add_subcommand("merge", "Publish an adapter, added to its base's weights, as a full version");
  Add<std::string>(
      *merge, "adapter", [r](const std::string& v) { r->set_model(v); }, "NAME@VERSION of the adapter")
      ->required();
  Add<std::string>(
      *merge, "--output", [r](const std::string& v) { r->set_output_model(v); },
      "Model that gets the version; default: the adapter's");
  Add<std::string>(
      *merge, "--alias", [r](const std::string& v) { r->set_output_alias(v); }, "Alias to set to the new version");
  Add<std::string>(
      *merge, "--description", [r](const std::string& v) { r->set_description(v); }, "Free text");
  SetCommand(*merge, context, [request](Context& context) {
    const auto version = context.client().MergeAdapter(*request);
    if (!version.ok()) return context.Fail(version.status());
    PrintVersion(context, *version);
    return int{kExitOk};
  });
}

}  // namespace boss::client
