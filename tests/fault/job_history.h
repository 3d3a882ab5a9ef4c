// What clients know about jobs, and whether the server's answers agree with it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "boss/v1/jobs.grpc.pb.h"
#include "tests/fault/fault_server.h"
#include "tests/fault/findings.h"

namespace boss::testing {

using JobRequest =
    std::variant<v1::TrainJobRequest, v1::OptimizeStepsizesJobRequest, v1::DistillJobRequest, v1::EvaluateJobRequest>;
using Random = std::mt19937_64;

// Remembers everything that was acknowledged to clients or shown to them: none of it may be missing later.
//
// Methods that take a connection return false when the server has gone; what they had asked for is then unknown, and
// Check finds out after the next start. Used by one thread; the watches it starts are its own.
class JobHistory {
 public:
  explicit JobHistory(Findings& findings) : findings_(findings) {}
  ~JobHistory() { JoinWatches(); }

  // Gives the request an id of its own and submits it.
  bool Submit(Connection& server, JobRequest request);

  enum class Steering { kPause, kResume, kCancel };
  // Of a random job that has not finished, or of the newest one; nothing if there is none.
  bool Steer(Connection& server, Steering steering, Random& random);
  bool SteerNewest(Connection& server, Steering steering);
  // Resumes every job that clients have paused.
  bool ResumeAll(Connection& server);
  // A random finished job.
  bool Delete(Connection& server, Random& random);

  // Follows up to `count` random unfinished jobs from the first event that was not seen, until they end or the server
  // does.
  void Watch(Connection& server, size_t count, Random& random);
  void JoinWatches();

  // Compares everything with the server's answers. Each request is submitted again, and again with another body, for
  // `repeats` random jobs. \pre no watches.
  bool Check(Connection& server, size_t repeats, Random& random);
  // After Check, when nothing is to come any more: every job has finished.
  void CheckAllFinished();

  size_t unfinished() const;
  size_t finished() const;  // and not deleted
  size_t kept() const;      // jobs that have not been deleted
  // What finished jobs published, as Check saw it: job by version.
  const std::map<std::string, v1::Job>& published() const { return published_; }

 private:
  enum class Deletion { kNone, kUnknown, kDone };
  struct Record {
    JobRequest request;
    std::string request_id;
    std::string name;  // empty: not acknowledged
    std::string spec;  // as acknowledged
    std::vector<std::string> events;
    bool finished = false;
    bool pause_holds = false;  // acknowledged, and nothing was asked for since
    bool cancelled = false;    // acknowledged
    Deletion deletion = Deletion::kNone;
  };

  static grpc::Status Send(Connection& server, const JobRequest& request, v1::Job& job);
  // Of a record whose submission was not acknowledged.
  bool Settle(Connection& server, Record& record, const v1::Job* listed);
  void Acknowledge(Record& record, const v1::Job& job);
  bool List(Connection& server, std::map<std::string, v1::Job>& jobs);
  bool CheckRecord(Connection& server, Record& record, const v1::Job& listed);
  bool CheckRepeats(Connection& server, const Record& record);
  // The events that the server replays; the record's are a prefix of them, and it gets them all.
  bool CheckEvents(Connection& server, Record& record, const v1::Job& listed);
  // Takes the event if it follows what the record has.
  bool TakeEvent(Record& record, const v1::JobEvent& event);
  std::vector<Record*> Select(const std::function<bool(const Record&)>& wanted) const;
  std::vector<Record*> Steerable(Steering steering) const;
  bool SteerRecord(Connection& server, Steering steering, Record& record);

  Findings& findings_;
  std::vector<std::unique_ptr<Record>> records_;
  std::map<std::string, v1::Job> published_;
  std::vector<std::thread> watches_;
  int64_t next_request_ = 1;
};

}  // namespace boss::testing
