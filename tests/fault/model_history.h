// What clients know about models, and whether the server's answers agree with it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "boss/v1/models.grpc.pb.h"
#include "tests/fault/fault_server.h"
#include "tests/fault/findings.h"
#include "tests/fault/job_history.h"

namespace boss::testing {

// As JobHistory, for versions, aliases, deletions and uploads.
class ModelHistory {
 public:
  explicit ModelHistory(Findings& findings) : findings_(findings) {}

  // Uploads weights of a tiny network to the model "imports", in small pieces under an upload id. With `aliased` the
  // version gets an alias of its own, by which it is kept.
  bool Import(Connection& server, bool aliased);
  // Goes on with every upload of which nobody knows what became.
  bool FinishImports(Connection& server);
  // Points an alias of "imports" at one of its versions, or removes it.
  bool MoveAlias(Connection& server, Random& random);
  // Removes the alias by which a random upload or finished job keeps its version.
  bool Release(Connection& server, Random& random);
  // A random version that came from an upload or a finished job; refused if something holds it.
  bool Delete(Connection& server, Random& random);

  // Compares everything with the server's answers, and reads every version.
  bool Check(Connection& server, const std::map<std::string, v1::Job>& published_by_jobs);

  // A random version with an alias that stays, for jobs to read; "" if there is none.
  std::string Kept(Random& random) const;
  size_t num_versions() const;

 private:
  enum class Presence { kThere, kUnknown, kGone };
  struct Version {
    Presence presence = Presence::kThere;
    std::string sha256;
    std::string job;
    std::string description;
  };
  struct Upload {
    v1::ImportStart start;
    std::string bytes;
    std::string version;  // NAME@VERSION; empty: not acknowledged
  };

  bool Send(Connection& server, Upload& upload);
  // Sets or removes an alias and remembers what it may be now.
  bool SetAlias(Connection& server, const std::string& model, const std::string& alias, const std::string& version);
  bool CheckVersion(Connection& server, const v1::ModelVersion& listed);
  bool CheckFile(Connection& server, const std::string& key, v1::ExportModelRequest::Part part, std::string& sha256);
  void CheckAliases(const std::map<std::string, v1::Model>& models);
  void CheckJobs(const std::map<std::string, v1::Job>& jobs);
  void CheckUploads();

  Findings& findings_;
  std::map<std::string, Version> versions_;  // by NAME@VERSION, also those that are gone
  std::vector<Upload> uploads_;
  // What each alias (model and name) that clients have moved may be: versions, or "" for none.
  std::map<std::pair<std::string, std::string>, std::set<std::string>> aliases_;
  // Aliases that uploads and finished jobs have set, and what to.
  std::map<std::pair<std::string, std::string>, std::string> set_with_versions_;
  std::set<std::string> of_finished_jobs_;  // versions
};

}  // namespace boss::testing
