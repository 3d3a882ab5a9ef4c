#include "server/rpc/models_service.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "core/base/error_details.h"
#include "core/base/status_macros.h"
#include "server/rpc/convert_common.h"
#include "server/rpc/convert_model.h"
#include "server/rpc/export_reactor.h"
#include "server/rpc/filter.h"
#include "server/rpc/import_reactor.h"
#include "server/rpc/paging.h"
#include "server/rpc/refusal.h"
#include "server/store/schedule_choice.h"

namespace boss::server {
namespace {

absl::StatusOr<bool> Matches(const v1::Model& model, const std::vector<FilterTerm>& terms) {
  for (const FilterTerm& term : terms) {
    if (term.key == "name") {
      if (model.name() != term.value) return false;
    } else if (term.key == "architecture") {
      if (model.architecture() != term.value) return false;
    } else if (term.key == "state") {
      v1::ModelVersion::State state;
      if (!v1::ModelVersion::State_Parse(term.value, &state)) {
        return FieldError("filter", absl::StrCat("unknown state \"", term.value, "\""));
      }
      const bool has_one = std::any_of(model.versions().begin(), model.versions().end(),
                                       [&](const v1::ModelVersion& version) { return version.state() == state; });
      if (!has_one) return false;
    } else if (term.key == "base") {
      // NAME, or NAME@VERSION.
      const bool is_version = term.value.find('@') != std::string::npos;
      const bool has_one = std::any_of(model.versions().begin(), model.versions().end(), [&](const auto& version) {
        const std::string& base = version.adapter().base();
        return is_version ? base == term.value : base.substr(0, base.find('@')) == term.value;
      });
      if (!has_one) return false;
    } else if (absl::string_view label = term.key; absl::ConsumePrefix(&label, "labels.")) {
      const bool has_one = std::any_of(model.versions().begin(), model.versions().end(), [&](const auto& version) {
        const auto found = version.labels().find(std::string(label));
        return found != version.labels().end() && found->second == term.value;
      });
      if (!has_one) return false;
    } else {
      return FieldError(
          "filter", absl::StrCat("unknown field ", term.key,
                                 ": there are name, architecture, state, base and labels.KEY"));
    }
  }
  return true;
}

absl::StatusOr<VersionKey> ExactVersion(const ModelStore& store, const std::string& reference) {
  const size_t at = reference.find('@');
  const bool is_exact =
      at != std::string::npos && at + 1 < reference.size() &&
      std::all_of(reference.begin() + static_cast<std::ptrdiff_t>(at) + 1, reference.end(), absl::ascii_isdigit);
  if (!is_exact) return FieldError("model", absl::StrCat("must be NAME@VERSION, got \"", reference, "\""));
  return store.Resolve(reference);
}

absl::StatusOr<VersionKey> ResolveField(const ModelStore& store, const std::string& reference) {
  if (reference.empty()) return FieldError("model", "is required");
  return store.Resolve(reference);
}

}  // namespace

absl::Status ModelsService::List(const v1::ListModelsRequest& request, v1::ListModelsResponse& response) const {
  BOSS_ASSIGN_OR_RETURN(const int page_size, PageSize(request.page_size()));
  BOSS_ASSIGN_OR_RETURN(const std::string after, ParsePageToken(request.page_token(), request.filter()));
  BOSS_ASSIGN_OR_RETURN(const std::vector<FilterTerm> terms, ParseFilter(request.filter()));
  for (ModelInfo& info : store_.ListModels()) {
    if (info.name <= after) continue;
    v1::Model model = ToProto(catalog_.ModelOf(std::move(info)), options_.default_steps);
    BOSS_ASSIGN_OR_RETURN(const bool matches, Matches(model, terms));
    if (!matches) continue;
    if (response.models_size() == page_size) {
      response.set_next_page_token(MakePageToken(request.filter(), response.models().rbegin()->name()));
      break;
    }
    *response.add_models() = std::move(model);
  }
  return absl::OkStatus();
}

absl::Status ModelsService::Merge(const v1::MergeAdapterRequest& request, v1::ModelVersion& response) {
  BOSS_ASSIGN_OR_RETURN(const VersionKey key, ResolveField(store_, request.model()));
  const std::string output = request.output_model().empty() ? key.name : request.output_model();
  if (const absl::Status status = CheckName("output_model", output); !status.ok())
    return WithField(status, "output_model");
  const std::string& alias = request.output_alias();
  if (const absl::Status status = alias.empty() ? absl::OkStatus() : CheckAlias("output_alias", alias); !status.ok())
    return WithField(status, "output_alias");
  VersionUse use;  // until its alias holds it, and it has been described
  BOSS_ASSIGN_OR_RETURN(const VersionKey merged, store_.MergeAdapter(key, output, request.description(), &use));
  if (!alias.empty()) BOSS_RETURN_IF_ERROR(store_.SetAlias(output, alias, merged.version));
  response = ToProto(catalog_.Version(merged));
  return absl::OkStatus();
}

absl::Status ModelsService::Delete(const v1::DeleteVersionRequest& request) {
  BOSS_ASSIGN_OR_RETURN(const VersionKey key, ExactVersion(store_, request.model()));
  if (request.force()) BOSS_RETURN_IF_ERROR(devices_.Unload(key));
  BOSS_RETURN_IF_ERROR(store_.DeleteVersion(key, request.force()));
  // Somebody may have loaded it since; nobody can from now on.
  devices_.Unload(key).IgnoreError();
  return absl::OkStatus();
}

absl::Status ModelsService::Schedule(const v1::GetScheduleRequest& request, v1::ScheduleSet& response) const {
  BOSS_ASSIGN_OR_RETURN(const VersionKey key, ResolveField(store_, request.model()));
  BOSS_ASSIGN_OR_RETURN(const SolverKind solver, SolverFromProto(request.solver(), "solver"));
  const double guidance_scale = request.has_guidance_scale() ? request.guidance_scale() : 1.0;
  absl::StatusOr<std::shared_ptr<const StoredScheduleSet>> found;
  if (request.name().empty() && request.steps() != 0) {
    BOSS_ASSIGN_OR_RETURN(const VersionInfo version, store_.GetVersion(key));
    const NativeSchedule* const native = FindNativeSchedule(version.manifest, request.steps(), guidance_scale);
    // What was fitted to multistep has times for Euler too.
    if (native != nullptr && (solver == SolverKind::kEuler || solver == native->schedule.solver)) {
      response = ToProto(version, *native, solver);
      return absl::OkStatus();
    }
  }
  if (!request.name().empty()) {
    found = store_.FindScheduleSet(key, request.name());
    if (absl::IsNotFound(found.status())) return WithField(found.status(), "name");
  } else {
    found = store_.FindScheduleSet(key, guidance_scale, solver, request.steps());
    if (absl::IsNotFound(found.status())) {
      return WithReason(
          absl::FailedPreconditionError(
              absl::StrCat(key.ToString(), " has no schedules for ", std::string(SolverName(solver)),
                           " and guidance scale ", guidance_scale,
                           ": Jobs.OptimizeStepsizesJob makes them for euler and multistep")),
          "SCHEDULE_MISSING");
    }
  }
  BOSS_RETURN_IF_ERROR(found.status());
  const ScheduleSet& set = (*found)->set;
  if (request.steps() != 0 && set.Find(request.steps()) == nullptr)
    return FieldError("steps", absl::StrCat("must be ", StepsText(set), ", or 0 for all, got ", request.steps()));
  response = ToProto(key, **found,
                     {.schedules = true, .steps = request.steps(), .cost_matrix = request.include_cost_matrix()});
  return absl::OkStatus();
}

absl::Status ModelsService::AddSchedule(const v1::ImportScheduleRequest& request, v1::ScheduleSet& response) {
  BOSS_ASSIGN_OR_RETURN(const VersionKey key, ResolveField(store_, request.model()));
  BOSS_ASSIGN_OR_RETURN(StoredScheduleSet imported, ScheduleSetFromProto(request));
  absl::Status status;
  if (!request.validate_only()) {
    status = store_.AddScheduleSet(key, imported, request.replace());
  } else if (!request.replace() && store_.FindScheduleSet(key, request.name()).ok()) {
    status = absl::AlreadyExistsError(absl::StrCat(key.ToString(), " has a schedule set ", request.name()));
  }
  if (absl::IsAlreadyExists(status)) return WithField(status, "name");
  BOSS_RETURN_IF_ERROR(status);
  if (!request.validate_only()) {
    BOSS_ASSIGN_OR_RETURN(const auto stored, store_.FindScheduleSet(key, request.name()));
    imported = *stored;
  }
  response = ToProto(key, imported, {.schedules = true});
  return absl::OkStatus();
}

absl::Status ModelsService::Schedules(const v1::ListSchedulesRequest& request,
                                      v1::ListSchedulesResponse& response) const {
  const std::string query = absl::StrCat(request.model(), "|", request.include_schedules());
  BOSS_ASSIGN_OR_RETURN(const int page_size, PageSize(request.page_size()));
  BOSS_ASSIGN_OR_RETURN(const std::string after, ParsePageToken(request.page_token(), query));
  std::vector<VersionKey> keys;
  if (request.model().find('@') != std::string::npos) {
    BOSS_ASSIGN_OR_RETURN(const VersionKey key, store_.Resolve(request.model()));
    keys.push_back(key);
  } else if (!request.model().empty()) {
    BOSS_ASSIGN_OR_RETURN(const ModelInfo info, store_.GetModel(request.model()));
    keys = info.versions;
  } else {
    for (const ModelInfo& info : store_.ListModels())
      keys.insert(keys.end(), info.versions.begin(), info.versions.end());
  }
  std::string last;
  for (const VersionKey& key : keys) {
    const auto sets = store_.ListScheduleSets(key);
    if (!sets.ok()) continue;  // a corrupt version has none to show
    std::vector<std::shared_ptr<const StoredScheduleSet>> by_name = *sets;
    std::sort(by_name.begin(), by_name.end(), [](const auto& a, const auto& b) { return a->Name() < b->Name(); });
    for (const auto& stored : by_name) {
      // In the order of the list: the separator is below whatever a name has, and versions are padded.
      const std::string place =
          absl::StrCat(key.name, "\x01", absl::Dec(key.version, absl::kZeroPad20), "/", stored->Name());
      if (place <= after) continue;
      if (response.schedule_sets_size() == page_size) {
        response.set_next_page_token(MakePageToken(query, last));
        return absl::OkStatus();
      }
      *response.add_schedule_sets() = ToProto(key, *stored, {.schedules = request.include_schedules()});
      last = place;
    }
  }
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* ModelsService::ListModels(grpc::CallbackServerContext* context,
                                                    const v1::ListModelsRequest* request,
                                                    v1::ListModelsResponse* response) {
  return calls_.Run(context, "ListModels", [this, request, response] { return List(*request, *response); });
}

grpc::ServerUnaryReactor* ModelsService::GetModel(grpc::CallbackServerContext* context,
                                                  const v1::GetModelRequest* request, v1::Model* response) {
  return calls_.Run(context, "GetModel", [this, request, response]() -> absl::Status {
    BOSS_ASSIGN_OR_RETURN(const ModelView view, catalog_.Model(request->model()));
    *response = ToProto(view, options_.default_steps);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* ModelsService::LoadModel(grpc::CallbackServerContext* context,
                                                   const v1::LoadModelRequest* request, v1::ModelVersion* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  absl::StatusOr<Admission> admission = calls_.Admit(*context, "LoadModel");
  const absl::StatusOr<VersionKey> key =
      admission.ok() ? ResolveField(store_, request->model()) : admission.status();
  if (!key.ok()) {
    reactor->Finish(ToGrpcStatus(key.status()));
    return reactor;
  }
  const absl::Status status = devices_.Acquire(
      *key, request->device(),
      [this, reactor, response, admission = *std::move(admission),
       key = *key](absl::StatusOr<std::shared_ptr<const LoadedModel>> model) mutable {
        if (model.ok()) *response = ToProto(catalog_.Version(key));
        const grpc::Status outcome = ToGrpcStatus(model.status());
        // The client may unload the version as soon as it hears of it: by then nothing here may hold it.
        if (model.ok()) model->reset();
        admission.Leave();
        reactor->Finish(outcome);
      });
  if (!status.ok()) reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

grpc::ServerUnaryReactor* ModelsService::UnloadModel(grpc::CallbackServerContext* context,
                                                     const v1::UnloadModelRequest* request,
                                                     v1::ModelVersion* response) {
  return calls_.Run(context, "UnloadModel", [this, request, response]() -> absl::Status {
    BOSS_ASSIGN_OR_RETURN(const VersionKey key, ResolveField(store_, request->model()));
    BOSS_RETURN_IF_ERROR(devices_.Unload(key));
    *response = ToProto(catalog_.Version(key));
    return absl::OkStatus();
  });
}

grpc::ServerReadReactor<v1::ImportModelRequest>* ModelsService::ImportModel(grpc::CallbackServerContext* context,
                                                                            v1::ImportModelResponse* response) {
  absl::StatusOr<Admission> admission = calls_.Admit(*context, "ImportModel");
  if (!admission.ok()) return new Refusal<grpc::ServerReadReactor<v1::ImportModelRequest>>(admission.status());
  const ModelImport::Context imports = {store_, uploads_, options_.description.max_import_bytes};
  return new ImportReactor(context, *std::move(admission), response, imports, catalog_, pool_);
}

grpc::ServerWriteReactor<v1::ExportModelResponse>* ModelsService::ExportModel(grpc::CallbackServerContext* context,
                                                                              const v1::ExportModelRequest* request) {
  absl::StatusOr<Admission> admission = calls_.Admit(*context, "ExportModel");
  if (!admission.ok()) return new Refusal<grpc::ServerWriteReactor<v1::ExportModelResponse>>(admission.status());
  return new ExportReactor(*std::move(admission), *request, store_, pool_);
}

grpc::ServerUnaryReactor* ModelsService::SetAlias(grpc::CallbackServerContext* context,
                                                  const v1::SetAliasRequest* request, v1::Model* response) {
  return calls_.Run(context, "SetAlias", [this, request, response]() -> absl::Status {
    if (request->alias().empty()) return FieldError("alias", "is required");
    BOSS_ASSIGN_OR_RETURN(const ModelInfo info, store_.GetModel(request->model()));
    int64_t version = 0;
    if (!request->version().empty()) {
      if (!absl::SimpleAtoi(request->version(), &version) || version < 1) {
        return FieldError("version", absl::StrCat("must be a version's number, got \"", request->version(), "\""));
      }
    } else if (!info.aliases.contains(request->alias())) {
      return WithField(absl::NotFoundError(absl::StrCat(info.name, " has no alias ", request->alias())), "alias");
    }
    BOSS_RETURN_IF_ERROR(store_.SetAlias(info.name, request->alias(), version));
    BOSS_ASSIGN_OR_RETURN(const ModelView view, catalog_.Model(info.name));
    *response = ToProto(view, options_.default_steps);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* ModelsService::MergeAdapter(grpc::CallbackServerContext* context,
                                                      const v1::MergeAdapterRequest* request,
                                                      v1::ModelVersion* response) {
  return calls_.Run(context, "MergeAdapter", [this, request, response] { return Merge(*request, *response); });
}

grpc::ServerUnaryReactor* ModelsService::DeleteVersion(grpc::CallbackServerContext* context,
                                                       const v1::DeleteVersionRequest* request,
                                                       google::protobuf::Empty* response) {
  return calls_.Run(context, "DeleteVersion", [this, request] { return Delete(*request); });
}

grpc::ServerUnaryReactor* ModelsService::GetSchedule(grpc::CallbackServerContext* context,
                                                     const v1::GetScheduleRequest* request, v1::ScheduleSet* response) {
  return calls_.Run(context, "GetSchedule", [this, request, response] { return Schedule(*request, *response); });
}

grpc::ServerUnaryReactor* ModelsService::ListSchedules(grpc::CallbackServerContext* context,
                                                       const v1::ListSchedulesRequest* request,
                                                       v1::ListSchedulesResponse* response) {
  return calls_.Run(context, "ListSchedules", [this, request, response] { return Schedules(*request, *response); });
}

grpc::ServerUnaryReactor* ModelsService::ImportSchedule(grpc::CallbackServerContext* context,
                                                        const v1::ImportScheduleRequest* request,
                                                        v1::ScheduleSet* response) {
  return calls_.Run(context, "ImportSchedule", [this, request, response] { return AddSchedule(*request, *response); });
}

grpc::ServerUnaryReactor* ModelsService::DeleteSchedule(grpc::CallbackServerContext* context,
                                                        const v1::DeleteScheduleRequest* request,
                                                        google::protobuf::Empty* response) {
  return calls_.Run(context, "DeleteSchedule", [this, request]() -> absl::Status {
    BOSS_ASSIGN_OR_RETURN(const VersionKey key, ResolveField(store_, request->model()));
    if (request->name().empty()) return FieldError("name", "is required");
    const absl::Status status = store_.RemoveScheduleSet(key, request->name());
    return absl::IsNotFound(status) ? WithField(status, "name") : status;
  });
}

grpc::ServerUnaryReactor* ModelsService::GetCapabilities(grpc::CallbackServerContext* context,
                                                         const v1::GetCapabilitiesRequest* request,
                                                         v1::Capabilities* response) {
  return calls_.RunHere(context, "GetCapabilities", [this, response] {
    *response = ToProto(options_.description);
    return absl::OkStatus();
  });
}

}  // namespace boss::server
