#include "tests/fault/job_history.h"

#include <algorithm>
#include <functional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"

namespace boss::testing {
namespace {

constexpr int kPageSize = 20;

bool IsFinal(v1::Job::State state) {
  return state == v1::Job::SUCCEEDED || state == v1::Job::FAILED || state == v1::Job::CANCELLED;
}

std::string SpecOf(const v1::Job& job) {
  v1::Job spec_only;
  switch (job.spec_case()) {
    case v1::Job::kTrain:
      *spec_only.mutable_train() = job.train();
      break;
    case v1::Job::kOptimizeStepsizes:
      *spec_only.mutable_optimize_stepsizes() = job.optimize_stepsizes();
      break;
    case v1::Job::kDistill:
      *spec_only.mutable_distill() = job.distill();
      break;
    case v1::Job::kEvaluate:
      *spec_only.mutable_evaluate() = job.evaluate();
      break;
    case v1::Job::SPEC_NOT_SET:
      break;
  }
  spec_only.set_request_id(job.request_id());
  return spec_only.SerializeAsString();
}

std::string Describe(const grpc::Status& status) {
  return absl::StrCat("code ", static_cast<int>(status.error_code()), ", ", status.error_message());
}

}  // namespace

grpc::Status JobHistory::Send(Connection& server, const JobRequest& request, v1::Job& job) {
  struct Sender {
    v1::Jobs::Stub& stub;
    v1::Job& job;
    grpc::Status operator()(const v1::TrainJobRequest& request) {
      return Connection::Call(stub, &v1::Jobs::Stub::TrainJob, request, job);
    }
    grpc::Status operator()(const v1::OptimizeStepsizesJobRequest& request) {
      return Connection::Call(stub, &v1::Jobs::Stub::OptimizeStepsizesJob, request, job);
    }
    grpc::Status operator()(const v1::DistillJobRequest& request) {
      return Connection::Call(stub, &v1::Jobs::Stub::DistillJob, request, job);
    }
    grpc::Status operator()(const v1::EvaluateJobRequest& request) {
      return Connection::Call(stub, &v1::Jobs::Stub::EvaluateJob, request, job);
    }
  };
  return std::visit(Sender{*server.jobs, job}, request);
}

void JobHistory::Acknowledge(Record& record, const v1::Job& job) {
  record.name = job.name();
  record.spec = SpecOf(job);
}

bool JobHistory::Submit(Connection& server, JobRequest request) {
  auto record = std::make_unique<Record>();
  record->request_id = absl::StrCat("request-", next_request_++);
  std::visit([&](auto& body) { body.set_request_id(record->request_id); }, request);
  record->request = std::move(request);
  v1::Job job;
  const grpc::Status status = Send(server, record->request, job);
  const Outcome outcome = OutcomeOf(status);
  if (outcome == Outcome::kRefused) {
    findings_.Add(absl::StrCat(record->request_id, " was refused: ", Describe(status)));
    return true;
  }
  if (outcome == Outcome::kDone) Acknowledge(*record, job);
  records_.push_back(std::move(record));
  return outcome == Outcome::kDone;
}

std::vector<JobHistory::Record*> JobHistory::Select(const std::function<bool(const Record&)>& wanted) const {
  std::vector<Record*> found;
  for (const auto& record : records_) {
    if (!record->name.empty() && record->deletion == Deletion::kNone && wanted(*record)) found.push_back(record.get());
  }
  return found;
}

std::vector<JobHistory::Record*> JobHistory::Steerable(Steering steering) const {
  return Select([&](const Record& candidate) {
    return !candidate.finished && !candidate.cancelled && (steering != Steering::kResume || candidate.pause_holds);
  });
}

bool JobHistory::Steer(Connection& server, Steering steering, Random& random) {
  const std::vector<Record*> candidates = Steerable(steering);
  return candidates.empty() || SteerRecord(server, steering, *candidates[random() % candidates.size()]);
}

bool JobHistory::SteerNewest(Connection& server, Steering steering) {
  const std::vector<Record*> candidates = Steerable(steering);
  return candidates.empty() || SteerRecord(server, steering, *candidates.back());
}

bool JobHistory::SteerRecord(Connection& server, Steering steering, Record& record) {
  record.pause_holds = false;
  v1::Job job;
  grpc::Status status;
  const auto call = [&](auto method, auto request) {
    request.set_name(record.name);
    status = Connection::Call(*server.jobs, method, request, job);
  };
  switch (steering) {
    case Steering::kPause:
      call(&v1::Jobs::Stub::PauseJob, v1::PauseJobRequest());
      break;
    case Steering::kResume:
      call(&v1::Jobs::Stub::ResumeJob, v1::ResumeJobRequest());
      break;
    case Steering::kCancel:
      call(&v1::Jobs::Stub::CancelJob, v1::CancelJobRequest());
      break;
  }
  if (status.ok()) {
    record.pause_holds = steering == Steering::kPause;
    record.cancelled = steering == Steering::kCancel;
  } else if (OutcomeOf(status) == Outcome::kRefused && status.error_code() != grpc::StatusCode::FAILED_PRECONDITION) {
    // FAILED_PRECONDITION: the job has finished meanwhile.
    findings_.Add(absl::StrCat("steering ", record.name, ": ", Describe(status)));
  }
  return OutcomeOf(status) != Outcome::kUnknown;
}

bool JobHistory::ResumeAll(Connection& server) {
  for (const auto& record : records_) {
    if (record->name.empty() || record->finished || record->deletion != Deletion::kNone) continue;
    record->pause_holds = false;
    v1::ResumeJobRequest request;
    request.set_name(record->name);
    v1::Job job;
    if (OutcomeOf(Connection::Call(*server.jobs, &v1::Jobs::Stub::ResumeJob, request, job)) == Outcome::kUnknown)
      return false;
  }
  return true;
}

bool JobHistory::Delete(Connection& server, Random& random) {
  const std::vector<Record*> candidates = Select([](const Record& candidate) { return candidate.finished; });
  if (candidates.empty()) return true;
  Record* record = candidates[random() % candidates.size()];
  record->deletion = Deletion::kUnknown;
  v1::DeleteJobRequest request;
  request.set_name(record->name);
  google::protobuf::Empty response;
  const grpc::Status status = Connection::Call(*server.jobs, &v1::Jobs::Stub::DeleteJob, request, response);
  if (status.ok()) record->deletion = Deletion::kDone;
  if (OutcomeOf(status) == Outcome::kRefused) {
    findings_.Add(absl::StrCat("deleting ", record->name, ": ", Describe(status)));
    record->deletion = Deletion::kNone;
  }
  return OutcomeOf(status) != Outcome::kUnknown;
}

bool JobHistory::TakeEvent(Record& record, const v1::JobEvent& event) {
  const int64_t expected = static_cast<int64_t>(record.events.size()) + 1;
  if (event.sequence() != expected) {
    findings_.Add(absl::StrCat(record.name, ": event ", event.sequence(), " came where ", expected, " follows"));
    return false;
  }
  record.events.push_back(event.SerializeAsString());
  return true;
}

void JobHistory::Watch(Connection& server, size_t count, Random& random) {
  std::vector<Record*> candidates = Select([](const Record& candidate) { return !candidate.finished; });
  std::shuffle(candidates.begin(), candidates.end(), random);
  for (size_t i = 0; i < std::min(count, candidates.size()); ++i) {
    watches_.emplace_back([this, &server, record = candidates[i]] {
      v1::WatchJobRequest request;
      request.set_name(record->name);
      request.set_from_sequence(static_cast<int64_t>(record->events.size()) + 1);
      grpc::ClientContext context;
      context.set_deadline(std::chrono::system_clock::now() + kCallTimeout);
      const auto stream = server.jobs->WatchJob(&context, request);
      v1::JobEvent event;
      while (stream->Read(&event)) {
        if (!TakeEvent(*record, event)) context.TryCancel();
      }
      const grpc::Status status = stream->Finish();
      if (OutcomeOf(status) == Outcome::kRefused)
        findings_.Add(
            absl::StrCat("watching ", record->name, " from ", request.from_sequence(), ": ", Describe(status)));
    });
  }
}

void JobHistory::JoinWatches() {
  for (std::thread& watch : watches_) watch.join();
  watches_.clear();
}

bool JobHistory::List(Connection& server, std::map<std::string, v1::Job>& jobs) {
  v1::ListJobsRequest request;
  request.set_page_size(kPageSize);
  do {
    v1::ListJobsResponse page;
    const grpc::Status status = Connection::Call(*server.jobs, &v1::Jobs::Stub::ListJobs, request, page);
    if (OutcomeOf(status) == Outcome::kUnknown) return false;
    if (!status.ok()) {
      findings_.Add(absl::StrCat("listing jobs: ", Describe(status)));
      return true;
    }
    for (v1::Job& job : *page.mutable_jobs()) {
      const std::string name = job.name();
      if (!jobs.emplace(name, std::move(job)).second) findings_.Add(absl::StrCat(name, " is listed twice"));
    }
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  return true;
}

bool JobHistory::Settle(Connection& server, Record& record, const v1::Job* listed) {
  v1::Job job;
  const grpc::Status status = Send(server, record.request, job);
  if (OutcomeOf(status) == Outcome::kUnknown) return false;
  if (!status.ok()) {
    findings_.Add(absl::StrCat(record.request_id, " cannot be submitted again: ", Describe(status)));
    return true;
  }
  if (listed != nullptr && listed->name() != job.name())
    findings_.Add(absl::StrCat(record.request_id, " is ", listed->name(), " and, submitted again, ", job.name()));
  Acknowledge(record, job);
  return true;
}

bool JobHistory::CheckRepeats(Connection& server, const Record& record) {
  v1::Job job;
  grpc::Status status = Send(server, record.request, job);
  if (OutcomeOf(status) == Outcome::kUnknown) return false;
  if (!status.ok() || job.name() != record.name) {
    findings_.Add(absl::StrCat(record.request_id, " of ", record.name, ", submitted again, gave \"", job.name(), "\", ",
                               Describe(status)));
  }
  JobRequest other = record.request;
  std::visit([](auto& body) { body.mutable_spec()->set_seed(body.spec().seed() + 1); }, other);
  status = Send(server, other, job);
  if (OutcomeOf(status) == Outcome::kUnknown) return false;
  if (status.error_code() != grpc::StatusCode::ALREADY_EXISTS)
    findings_.Add(absl::StrCat(record.request_id, " with another body: ", Describe(status)));
  return true;
}

bool JobHistory::CheckEvents(Connection& server, Record& record, const v1::Job& listed) {
  v1::WatchJobRequest request;
  request.set_name(record.name);
  request.set_replay_only(true);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kCallTimeout);
  const auto stream = server.jobs->WatchJob(&context, request);
  std::vector<v1::JobEvent> events;
  for (v1::JobEvent event; stream->Read(&event);) events.push_back(event);
  const grpc::Status status = stream->Finish();
  if (OutcomeOf(status) == Outcome::kUnknown) return false;
  if (!status.ok()) findings_.Add(absl::StrCat("replaying ", record.name, ": ", Describe(status)));
  if (static_cast<int64_t>(events.size()) < listed.last_sequence() || events.size() < record.events.size()) {
    findings_.Add(absl::StrCat(record.name, ": ", events.size(), " events are replayed, ", record.events.size(),
                               " were seen, the last is ", listed.last_sequence()));
    return true;
  }
  v1::Job::State state = v1::Job::STATE_UNSPECIFIED;
  for (size_t i = 0; i < events.size(); ++i) {
    const v1::JobEvent& event = events[i];
    if (event.sequence() != static_cast<int64_t>(i) + 1) {
      findings_.Add(absl::StrCat(record.name, ": event ", event.sequence(), " is replayed at place ", i + 1));
      return true;
    }
    if (i < record.events.size() && record.events[i] != event.SerializeAsString()) {
      findings_.Add(absl::StrCat(record.name, ": event ", i + 1, " is not what was seen before"));
      return true;
    }
    if (IsFinal(state)) findings_.Add(absl::StrCat(record.name, ": an event after the final state"));
    if (!event.has_state_change()) continue;
    if (event.state_change().from() != state)
      findings_.Add(absl::StrCat(record.name, ": event ", i + 1, " changes from another state than the one before"));
    state = event.state_change().to();
  }
  if (IsFinal(listed.state()) && state != listed.state())
    findings_.Add(absl::StrCat(record.name, ": its last event is of another state than the final one"));
  for (size_t i = record.events.size(); i < events.size(); ++i) record.events.push_back(events[i].SerializeAsString());
  return true;
}

bool JobHistory::CheckRecord(Connection& server, Record& record, const v1::Job& listed) {
  if (SpecOf(listed) != record.spec) findings_.Add(absl::StrCat(record.name, " has another spec than acknowledged"));
  const v1::Job::State state = listed.state();
  if (state == v1::Job::FAILED)
    findings_.Add(
        absl::StrCat(record.name, " (", v1::Job::Kind_Name(listed.kind()), ") failed: ", listed.error().message()));
  if (record.finished && !IsFinal(state)) findings_.Add(absl::StrCat(record.name, " had finished and has not"));
  if (record.cancelled && !IsFinal(state) && state != v1::Job::CANCELLING)
    findings_.Add(absl::StrCat(record.name, " was cancelled and is ", v1::Job::State_Name(state)));
  if (record.pause_holds && !IsFinal(state) && state != v1::Job::PAUSED && state != v1::Job::PAUSING)
    findings_.Add(absl::StrCat(record.name, " was paused and is ", v1::Job::State_Name(state)));
  if (state == v1::Job::SUCCEEDED && !listed.output_model().empty()) {
    const auto [it, is_new] = published_.try_emplace(listed.output_model(), listed);
    if (!is_new && it->second.name() != record.name)
      findings_.Add(absl::StrCat(listed.output_model(), " is of ", it->second.name(), " and of ", record.name));
  }
  record.finished = IsFinal(state);
  return CheckEvents(server, record, listed);
}

bool JobHistory::Check(Connection& server, size_t repeats, Random& random) {
  std::map<std::string, v1::Job> listed;
  if (!List(server, listed)) return false;
  std::map<std::string, const v1::Job*> by_request;
  std::set<std::string> known;
  for (const auto& [name, job] : listed) {
    if (!by_request.emplace(job.request_id(), &job).second)
      findings_.Add(absl::StrCat(job.request_id(), " made more than one job"));
  }
  std::vector<Record*> there;
  for (const auto& record : records_) {
    known.insert(record->request_id);
    const auto of_request = by_request.find(record->request_id);
    if (record->name.empty()) {
      if (!Settle(server, *record, of_request == by_request.end() ? nullptr : of_request->second)) return false;
      if (of_request == by_request.end()) continue;  // it is new
    }
    const auto found = listed.find(record->name);
    const bool is_there = found != listed.end();
    if (record->deletion == Deletion::kUnknown) record->deletion = is_there ? Deletion::kNone : Deletion::kDone;
    if (is_there == (record->deletion == Deletion::kDone)) {
      findings_.Add(absl::StrCat(record->name, is_there ? " was deleted and is there" : " is lost"));
      record->deletion = Deletion::kDone;
    }
    if (record->deletion == Deletion::kDone) continue;
    if (!CheckRecord(server, *record, found->second)) return false;
    there.push_back(record.get());
  }
  for (const auto& [request_id, job] : by_request) {
    if (!known.contains(request_id)) findings_.Add(absl::StrCat(job->name(), " was never submitted"));
  }
  std::shuffle(there.begin(), there.end(), random);
  for (size_t i = 0; i < std::min(repeats, there.size()); ++i) {
    if (!CheckRepeats(server, *there[i])) return false;
  }
  return true;
}

void JobHistory::CheckAllFinished() {
  for (const auto& record : records_) {
    if (record->deletion != Deletion::kDone && !record->finished)
      findings_.Add(absl::StrCat(record->name, " (", record->request_id, ") has not finished"));
  }
}

size_t JobHistory::unfinished() const {
  return std::count_if(records_.begin(), records_.end(), [](const auto& record) { return !record->finished; });
}

size_t JobHistory::finished() const {
  return std::count_if(records_.begin(), records_.end(),
                       [](const auto& record) { return record->finished && record->deletion == Deletion::kNone; });
}

size_t JobHistory::kept() const {
  return std::count_if(records_.begin(), records_.end(),
                       [](const auto& record) { return record->deletion == Deletion::kNone; });
}

}  // namespace boss::testing
