#include "tests/fault/model_history.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/sha256.h"
#include "core/io/safetensors.h"
#include "tests/support/tiny_models.h"

namespace boss::testing {
namespace {

constexpr char kImports[] = "imports";
constexpr size_t kChunkBytes = 1500;  // a few to a file
constexpr int kAliases = 3;

std::string Digest(const std::string& bytes) {
  client::Sha256 digest;
  digest.Update(bytes);
  return digest.HexDigest();
}

std::string Describe(const grpc::Status& status) {
  return absl::StrCat("code ", static_cast<int>(status.error_code()), ", ", status.error_message());
}

std::string KeyOf(const v1::ModelVersion& version) { return absl::StrCat(version.model(), "@", version.version()); }

}  // namespace

bool ModelHistory::Import(Connection& server, bool aliased) {
  const auto number = uploads_.size() + 1;
  Upload upload;
  upload.bytes =
      *SerializeSafetensors({.tensors = TinyModel(kTinyVectorArchitecture, number)->State(), .metadata = {}});
  upload.start.set_model(kImports);
  upload.start.set_architecture_json(kTinyVectorArchitecture);
  upload.start.set_total_bytes(static_cast<int64_t>(upload.bytes.size()));
  upload.start.set_sha256(Digest(upload.bytes));
  upload.start.set_upload_id(absl::StrCat("upload-", number));
  upload.start.set_description(absl::StrCat("upload-", number));
  if (aliased) upload.start.set_alias(absl::StrCat("kept-", number));
  uploads_.push_back(std::move(upload));
  return Send(server, uploads_.back());
}

bool ModelHistory::Send(Connection& server, Upload& upload) {
  const auto open = [&](grpc::ClientContext& context, v1::ImportModelResponse& response, bool query) {
    context.set_deadline(std::chrono::system_clock::now() + kCallTimeout);
    auto writer = server.models->ImportModel(&context, &response);
    v1::ImportModelRequest message;
    *message.mutable_start() = upload.start;
    message.mutable_start()->set_query_upload(query);
    writer->Write(message);
    return writer;
  };
  const auto finish = [&](grpc::ClientWriter<v1::ImportModelRequest>& writer) {
    writer.WritesDone();
    const grpc::Status status = writer.Finish();
    if (OutcomeOf(status) == Outcome::kRefused)
      findings_.Add(absl::StrCat(upload.start.upload_id(), ": ", Describe(status)));
    return OutcomeOf(status);
  };
  grpc::ClientContext query_context;
  v1::ImportModelResponse answer;
  const Outcome asked = finish(*open(query_context, answer, /*query=*/true));
  if (asked != Outcome::kDone) return asked == Outcome::kRefused;

  grpc::ClientContext context;
  v1::ImportModelResponse response;
  const auto writer = open(context, response, /*query=*/false);
  v1::ImportModelRequest message;
  for (auto offset = static_cast<size_t>(answer.committed_bytes()); offset < upload.bytes.size();) {
    message.mutable_chunk()->set_offset(static_cast<int64_t>(offset));
    message.mutable_chunk()->set_data(upload.bytes.substr(offset, kChunkBytes));
    if (!writer->Write(message)) break;
    offset += message.chunk().data().size();
  }
  const Outcome sent = finish(*writer);
  if (sent != Outcome::kDone) return sent == Outcome::kRefused;
  upload.version = KeyOf(response.version());
  if (!upload.start.alias().empty()) set_with_versions_[{kImports, upload.start.alias()}] = upload.version;
  const auto [it, is_new] = versions_.try_emplace(upload.version);
  if (is_new) it->second.description = upload.start.description();
  if (it->second.description != upload.start.description())
    findings_.Add(
        absl::StrCat(upload.start.upload_id(), " became ", upload.version, ", which is ", it->second.description));
  return true;
}

bool ModelHistory::FinishImports(Connection& server) {
  for (Upload& upload : uploads_) {
    if (upload.version.empty() && !Send(server, upload)) return false;
  }
  return true;
}

bool ModelHistory::MoveAlias(Connection& server, Random& random) {
  std::vector<std::string> targets;
  for (const auto& [key, version] : versions_) {
    if (version.presence == Presence::kThere && absl::StartsWith(key, absl::StrCat(kImports, "@")))
      targets.push_back(key.substr(key.find('@') + 1));
  }
  if (targets.empty()) return true;
  const std::string alias = absl::StrCat("moving-", random() % kAliases);
  const bool remove =
      random() % 4 == 0 && aliases_.contains({kImports, alias}) && !aliases_[{kImports, alias}].contains("");
  return SetAlias(server, kImports, alias, remove ? "" : targets[random() % targets.size()]);
}

bool ModelHistory::SetAlias(Connection& server, const std::string& model, const std::string& alias,
                            const std::string& version) {
  std::set<std::string>& values = aliases_.try_emplace({model, alias}, std::set<std::string>{""}).first->second;
  v1::SetAliasRequest request;
  request.set_model(model);
  request.set_alias(alias);
  request.set_version(version);
  v1::Model response;
  const grpc::Status status = Connection::Call(*server.models, &v1::Models::Stub::SetAlias, request, response);
  switch (OutcomeOf(status)) {
    case Outcome::kDone:
      values = {version};
      return true;
    case Outcome::kRefused:
      findings_.Add(absl::StrCat("alias ", alias, " to \"", version, "\": ", Describe(status)));
      return true;
    case Outcome::kUnknown:
      values.insert(version);
      return false;
  }
  return true;
}

bool ModelHistory::Release(Connection& server, Random& random) {
  std::vector<std::pair<std::string, std::string>> candidates;
  for (const auto& [alias, version] : set_with_versions_) {
    if (!aliases_.contains(alias)) candidates.push_back(alias);
  }
  if (candidates.empty()) return true;
  const auto& [model, alias] = candidates[random() % candidates.size()];
  const std::string& version = set_with_versions_[{model, alias}];
  aliases_[{model, alias}] = {version.substr(version.find('@') + 1)};
  return SetAlias(server, model, alias, "");
}

bool ModelHistory::Delete(Connection& server, Random& random) {
  std::vector<std::string> candidates;
  for (const auto& [key, version] : versions_) {
    // A job that has published and not finished may look for its version.
    const bool uploaded = absl::StartsWith(key, absl::StrCat(kImports, "@"));
    if (version.presence == Presence::kThere && (uploaded || of_finished_jobs_.contains(key)))
      candidates.push_back(key);
  }
  if (candidates.empty()) return true;
  const std::string& key = candidates[random() % candidates.size()];
  v1::DeleteVersionRequest request;
  request.set_model(key);
  google::protobuf::Empty response;
  const grpc::Status status = Connection::Call(*server.models, &v1::Models::Stub::DeleteVersion, request, response);
  switch (OutcomeOf(status)) {
    case Outcome::kDone:
      versions_[key].presence = Presence::kGone;
      return true;
    case Outcome::kRefused:
      if (status.error_code() != grpc::StatusCode::FAILED_PRECONDITION)
        findings_.Add(absl::StrCat("deleting ", key, ": ", Describe(status)));
      return true;
    case Outcome::kUnknown:
      versions_[key].presence = Presence::kUnknown;
      return false;
  }
  return true;
}

bool ModelHistory::CheckFile(Connection& server, const std::string& key, v1::ExportModelRequest::Part part,
                             std::string& sha256) {
  v1::ExportModelRequest request;
  request.set_model(key);
  request.set_part(part);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kCallTimeout);
  const auto stream = server.models->ExportModel(&context, request);
  client::Sha256 digest;
  int64_t bytes = 0, total = -1;
  v1::ExportModelResponse response;
  while (stream->Read(&response)) {
    if (response.has_header()) {
      sha256 = response.header().sha256();
      total = response.header().total_bytes();
    } else {
      digest.Update(response.chunk().data());
      bytes += static_cast<int64_t>(response.chunk().data().size());
    }
  }
  const grpc::Status status = stream->Finish();
  if (OutcomeOf(status) == Outcome::kUnknown) return false;
  if (!status.ok()) {
    findings_.Add(absl::StrCat("reading ", key, ": ", Describe(status)));
  } else if (bytes != total || digest.HexDigest() != sha256) {
    findings_.Add(absl::StrCat(key, ": ", bytes, " of ", total, " bytes, and not those of SHA-256 ", sha256));
  }
  return true;
}

bool ModelHistory::CheckVersion(Connection& server, const v1::ModelVersion& listed) {
  const std::string key = KeyOf(listed);
  if (listed.state() == v1::ModelVersion::QUARANTINED || listed.state() == v1::ModelVersion::FAILED)
    findings_.Add(
        absl::StrCat(key, " is ", v1::ModelVersion::State_Name(listed.state()), ": ", listed.error_message()));
  const auto [it, is_new] = versions_.try_emplace(key);
  Version& version = it->second;
  if (version.presence == Presence::kGone) {
    findings_.Add(absl::StrCat(key, " was deleted and is there"));
    return true;
  }
  version.presence = Presence::kThere;
  std::string sha256, manifest_sha256;
  const auto part = listed.has_adapter() ? v1::ExportModelRequest::ADAPTER : v1::ExportModelRequest::WEIGHTS;
  if (!CheckFile(server, key, part, sha256) ||
      !CheckFile(server, key, v1::ExportModelRequest::MANIFEST, manifest_sha256))
    return false;
  if (sha256 != listed.weights_sha256())
    findings_.Add(absl::StrCat(key, " is listed with SHA-256 ", listed.weights_sha256(), " and read with ", sha256));
  if (version.sha256.empty()) {
    version.sha256 = sha256;
    version.job = listed.job();
  }
  if (is_new) version.description = listed.description();
  if (version.sha256 != sha256) findings_.Add(absl::StrCat(key, " has changed"));
  return true;
}

void ModelHistory::CheckAliases(const std::map<std::string, v1::Model>& models) {
  const auto value_of = [&](const std::pair<std::string, std::string>& alias) -> std::string {
    const auto model = models.find(alias.first);
    if (model == models.end()) return "";
    const auto found = model->second.aliases().find(alias.second);
    return found == model->second.aliases().end() ? "" : found->second;
  };
  for (auto& [alias, values] : aliases_) {
    const std::string value = value_of(alias);
    if (!values.contains(value))
      findings_.Add(absl::StrCat("alias ", alias.second, " is \"", value, "\", which nobody set"));
    values = {value};
  }
  for (const auto& [alias, version] : set_with_versions_) {
    if (!aliases_.contains(alias) && absl::StrCat(alias.first, "@", value_of(alias)) != version)
      findings_.Add(absl::StrCat("alias ", alias.second, " is not at ", version));
  }
}

void ModelHistory::CheckJobs(const std::map<std::string, v1::Job>& jobs) {
  for (const auto& [key, job] : jobs) {
    if (!versions_.contains(key)) findings_.Add(absl::StrCat(key, ", which ", job.name(), " published, is lost"));
  }
  std::map<std::string, std::string> version_of_job;
  for (const auto& [key, version] : versions_) {
    if (version.job.empty()) continue;
    const auto [it, is_new] = version_of_job.emplace(version.job, key);
    if (!is_new) findings_.Add(absl::StrCat(version.job, " published ", it->second, " and ", key));
  }
}

void ModelHistory::CheckUploads() {
  std::map<std::string, std::string> version_of_upload;
  for (const auto& [key, version] : versions_) {
    if (!absl::StartsWith(key, absl::StrCat(kImports, "@")) || version.description.empty()) continue;
    const auto [it, is_new] = version_of_upload.emplace(version.description, key);
    if (!is_new) findings_.Add(absl::StrCat(version.description, " became ", it->second, " and ", key));
  }
}

bool ModelHistory::Check(Connection& server, const std::map<std::string, v1::Job>& published_by_jobs) {
  v1::ListModelsRequest request;
  request.set_page_size(1000);
  v1::ListModelsResponse response;
  const grpc::Status status = Connection::Call(*server.models, &v1::Models::Stub::ListModels, request, response);
  if (OutcomeOf(status) == Outcome::kUnknown) return false;
  if (!status.ok()) findings_.Add(absl::StrCat("listing models: ", Describe(status)));
  std::map<std::string, v1::Model> models;
  std::set<std::string> there;
  for (const v1::Model& model : response.models()) {
    models[model.name()] = model;
    for (const v1::ModelVersion& version : model.versions()) {
      there.insert(KeyOf(version));
      if (!CheckVersion(server, version)) return false;
    }
  }
  for (auto& [key, version] : versions_) {
    if (there.contains(key)) continue;
    if (version.presence == Presence::kThere) findings_.Add(absl::StrCat(key, " is lost"));
    version.presence = Presence::kGone;
  }
  for (const auto& [key, job] : published_by_jobs) {
    of_finished_jobs_.insert(key);
    const std::string& alias = job.has_train() ? job.train().output_alias() : job.distill().output_alias();
    if (!alias.empty()) set_with_versions_[{key.substr(0, key.find('@')), alias}] = key;
  }
  CheckAliases(models);
  CheckJobs(published_by_jobs);
  CheckUploads();
  return true;
}

std::string ModelHistory::Kept(Random& random) const {
  std::vector<std::string> kept;
  for (const auto& [alias, version] : set_with_versions_) {
    if (alias.first == kImports && !aliases_.contains(alias)) kept.push_back(version);
  }
  return kept.empty() ? "" : kept[random() % kept.size()];
}

size_t ModelHistory::num_versions() const {
  return std::count_if(versions_.begin(), versions_.end(),
                       [](const auto& version) { return version.second.presence != Presence::kGone; });
}

}  // namespace boss::testing
