#include "tests/fault/campaign.h"

#include <signal.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/support/idx_file.h"
#include "tests/support/tiny_models.h"

namespace boss::testing {
namespace {

constexpr char kToyArchitecture[] = R"({"model":{"architecture":"mlp","dim":2,"hidden":16,"layers":2}})";
constexpr size_t kMaxUnfinished = 6, kMaxKept = 24, kMaxVersions = 24;
constexpr size_t kRepeatsPerRound = 2;
constexpr int kOperationsPerRound = 10;
constexpr int64_t kMaxMilliseconds = 700;  // of waiting in a random round
constexpr int64_t kStartOperations = 10;   // of a process that starts, about
constexpr char kRandomMoment[] = "random moment";

bool HasHalf(const std::string& site) { return absl::EndsWith(site, ".write") || absl::EndsWith(site, ".remove"); }

std::vector<Fault::Action> ActionsAt(const std::string& site) {
  std::vector<Fault::Action> actions = {Fault::Action::kKillBefore, Fault::Action::kKillAfter};
  if (HasHalf(site)) actions.push_back(Fault::Action::kKillHalf);
  return actions;
}

std::vector<std::string> Arguments(const std::string& folder) {
  return {"--threads=1",
          "--log-level=error",
          "--seed-models=" + folder + "/seeds",
          "--dataset-folder=" + folder + "/sets",
          "--crash-backoff-seconds=0",
          "--min-free-disk-bytes=0"};
}

std::vector<uint8_t> Ramp(size_t size, int modulus) {
  std::vector<uint8_t> bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<uint8_t>(i * 37 % modulus);
  return bytes;
}

}  // namespace

std::string KillPoint::Name() const {
  return absl::StrCat(from_start ? "start: " : "", site.empty() ? "any" : site, " ", FaultActionName(action));
}

std::vector<KillPoint> PointsOf(const std::map<std::string, int64_t>& sites, int64_t occurrences) {
  std::vector<KillPoint> points;
  for (const auto& [site, count] : sites) {
    const std::vector<Fault::Action> actions = ActionsAt(site);
    const int64_t n = occurrences == 0 ? count : std::min(occurrences, count);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t occurrence = n == 1 ? 1 : 1 + i * (count - 1) / (n - 1);
      for (size_t j = 0; j < actions.size(); ++j) {
        const bool power_loss = (static_cast<size_t>(i) + j) % 2 == 0;
        points.push_back({site, occurrence, actions[j], /*from_start=*/false, power_loss});
      }
    }
  }
  return points;
}

Campaign::Campaign(const std::string& binary, uint64_t seed)
    : random_(seed), server_(binary, folder_.path(), Arguments(folder_.path())), jobs_(findings_), models_(findings_) {
  std::filesystem::create_directories(folder_ / "seeds");
  std::filesystem::create_directories(folder_ / "sets");
  WriteSeedModel(folder_ / "seeds", "pictures", kTinyImageArchitecture);
  WriteSeedModel(folder_ / "seeds", "vectors", kTinyVectorArchitecture);
  WriteIdx(folder_ / "sets/points", {16, 1, 2}, Ramp(32, 251));
  WriteIdx(folder_ / "sets/pictures", {8, 8, 8}, Ramp(512, 251));
  WriteIdx(folder_ / "sets/labels", {8}, Ramp(8, 3));
}

std::string Campaign::PlanOf(const KillPoint& point) const {
  return absl::StrCat(point.from_start ? "" : "unarmed=1 ", point.site.empty() ? "" : "site=", point.site,
                      " n=", point.occurrence, " do=", FaultActionName(point.action), point.power_loss ? " attic=" : "",
                      point.power_loss ? folder_ / "attic" : "");
}

void Campaign::CountEnd(const std::optional<int>& end, const KillPoint& point) {
  if (!end) {
    ++kills_[kRandomMoment];
  } else if (*end == -SIGKILL) {
    ++kills_[point.Name()];
    if (point.power_loss) ++num_power_losses_;
  } else if (*end != 0) {
    findings_.Add(absl::StrCat("the server ended with ", *end));
  }
}

JobRequest Campaign::NewJob(JobKind kind) {
  const int64_t number = next_job_++;
  const std::string alias = number % 3 == 0 ? absl::StrCat("job-", number) : "";
  const auto train = [](v1::TrainingOptions& training, int64_t steps, int64_t checkpoint_interval) {
    training.set_train_steps(steps);
    training.set_batch_size(4);
    training.set_checkpoint_interval(checkpoint_interval);
    training.set_metrics_interval(4);
  };
  const auto finish = [&](auto request) -> JobRequest {
    request.mutable_spec()->set_seed(number);
    request.mutable_options()->set_display_name(absl::StrCat("job ", number));
    request.mutable_options()->set_max_crashes(1000);
    return request;
  };
  switch (kind) {
    case JobKind::kTrain:
    case JobKind::kTrainPictures: {
      v1::TrainJobRequest request;
      v1::TrainSpec& spec = *request.mutable_spec();
      spec.set_output_model("trained");
      spec.set_output_alias(alias);
      if (kind == JobKind::kTrain) {
        spec.set_dataset(absl::StrCat("idx:", folder_ / "sets/points"));
        spec.set_architecture_json(kToyArchitecture);
        train(*spec.mutable_training(), 30, 5);
      } else {
        spec.set_dataset(absl::StrCat("idx:", folder_ / "sets/pictures", ",", folder_ / "sets/labels"));
        spec.set_init_model("pictures");
        spec.set_default_steps(2);
        train(*spec.mutable_training(), 6, 3);
        spec.mutable_training()->set_preview_interval(2);
        spec.mutable_training()->set_preview_samples(4);
      }
      return finish(std::move(request));
    }
    case JobKind::kOptimize: {
      v1::OptimizeStepsizesJobRequest request;
      request.mutable_spec()->set_model("vectors");
      request.mutable_spec()->set_k_max(6);
      request.mutable_spec()->set_num_samples(6);
      request.mutable_spec()->set_batch_size(2);
      return finish(std::move(request));
    }
    case JobKind::kDistill:
    case JobKind::kDistillLora: {
      v1::DistillJobRequest request;
      v1::DistillSpec& spec = *request.mutable_spec();
      spec.set_model("vectors");
      spec.set_output_model("straight");
      spec.set_output_alias(alias);
      spec.set_steps(2);
      spec.set_k_max(8);
      spec.set_num_samples(4);
      spec.set_num_noises(12);
      spec.set_batch_size(1);
      train(*spec.mutable_training(), 20, 5);
      if (kind == JobKind::kDistillLora) {
        spec.set_tuning(v1::DistillSpec::LORA);
        spec.set_regenerate_pairs(number % 2 == 0);
      } else {
        spec.set_fresh_schedule(true);
        spec.mutable_evaluation()->set_num_samples(4);
        spec.mutable_evaluation()->set_k_max(8);
        spec.mutable_evaluation()->set_reference_dataset("");
      }
      return finish(std::move(request));
    }
    case JobKind::kEvaluate: {
      v1::EvaluateJobRequest request;
      v1::EvaluateSpec& spec = *request.mutable_spec();
      const std::string kept = models_.Kept(random_);
      spec.set_model(kept.empty() ? "vectors" : kept);
      spec.add_steps(2);
      spec.add_steps(3);
      spec.set_num_samples(8);
      spec.set_k_max(8);
      spec.set_reference_dataset("");
      return finish(std::move(request));
    }
  }
  return {};
}

bool Campaign::StartAndCheck(const std::string& plan, size_t repeats) {
  const absl::Status status = server_.Start(plan);
  if (!status.ok()) {
    findings_.Add(absl::StrCat("the server does not start: ", std::string(status.message())));
    return false;
  }
  if (jobs_.Check(server_.connection(), repeats, random_) && models_.Check(server_.connection(), jobs_.published()) &&
      models_.FinishImports(server_.connection()))
    return true;
  findings_.Add("the server went away undisturbed");
  return false;
}

bool Campaign::RunScript() {
  Connection& server = server_.connection();
  using enum JobHistory::Steering;
  if (!models_.Import(server, /*aliased=*/true) || !models_.MoveAlias(server, random_)) return false;
  for (const JobKind kind : {JobKind::kTrain, JobKind::kDistill}) {
    if (!jobs_.Submit(server, NewJob(kind))) return false;
  }
  if (!jobs_.SteerNewest(server, kPause) || !models_.Import(server, /*aliased=*/false) ||
      !jobs_.SteerNewest(server, kResume) || !models_.Delete(server, random_))
    return false;
  for (const JobKind kind :
       {JobKind::kOptimize, JobKind::kDistillLora, JobKind::kEvaluate, JobKind::kTrainPictures, JobKind::kTrain}) {
    if (!jobs_.Submit(server, NewJob(kind))) return false;
  }
  return jobs_.SteerNewest(server, kCancel) && FinishJobs() && jobs_.Delete(server, random_) &&
         models_.Delete(server, random_);
}

bool Campaign::RandomOperation() {
  Connection& server = server_.connection();
  switch (random_() % 12) {
    case 0:
      return jobs_.Steer(server, JobHistory::Steering::kPause, random_);
    case 1:
    case 2:
      return jobs_.Steer(server, JobHistory::Steering::kResume, random_);
    case 3:
      return random_() % 3 != 0 || jobs_.Steer(server, JobHistory::Steering::kCancel, random_);
    case 4:
      return models_.num_versions() >= kMaxVersions || models_.Import(server, random_() % 4 == 0);
    case 5:
    case 6:
      return models_.MoveAlias(server, random_);
    case 7:
      if (models_.num_versions() < kMaxVersions / 2) return true;
      return (random_() % 2 == 0 || models_.Release(server, random_)) && models_.Delete(server, random_);
    case 8:
      return jobs_.kept() < kMaxKept / 2 || jobs_.Delete(server, random_);
    default:
      if (jobs_.unfinished() >= kMaxUnfinished || jobs_.kept() >= kMaxKept) return jobs_.Delete(server, random_);
      return jobs_.Submit(server, NewJob(static_cast<JobKind>(random_() % 6)));
  }
}

bool Campaign::FinishJobs() {
  Connection& server = server_.connection();
  if (!jobs_.ResumeAll(server)) return false;
  jobs_.Watch(server, jobs_.unfinished(), random_);
  jobs_.JoinWatches();
  // What has finished is known from here on.
  return jobs_.Check(server, 0, random_) && models_.Check(server, jobs_.published());
}

bool Campaign::Tidy() {
  Connection& server = server_.connection();
  if (jobs_.unfinished() > kMaxUnfinished && !FinishJobs()) return false;
  while (jobs_.kept() > kMaxKept && jobs_.finished() > 0) {
    if (!jobs_.Delete(server, random_)) return false;
  }
  for (size_t i = models_.num_versions(); i > kMaxVersions; --i) {
    if (!models_.Release(server, random_) || !models_.Delete(server, random_)) return false;
  }
  return true;
}

std::map<std::string, int64_t> Campaign::CountSites() {
  const std::string file = folder_ / "sites";
  StartAndCheck(absl::StrCat("unarmed=1 counts=", file), 0);
  server_.Arm();
  if (!RunScript()) findings_.Add("the server went away undisturbed");
  server_.Stop();
  std::map<std::string, int64_t> sites;
  std::ifstream counts(file);
  std::string site;
  for (int64_t count = 0; counts >> site >> count;) sites[site] = count;
  return sites;
}

void Campaign::StartKilled() {
  KillPoint point;
  point.from_start = true;
  point.occurrence = 1 + static_cast<int64_t>(random_() % kStartOperations);
  constexpr Fault::Action kActions[] = {Fault::Action::kKillBefore, Fault::Action::kKillHalf,
                                        Fault::Action::kKillAfter};
  point.action = kActions[random_() % 3];
  point.power_loss = random_() % 2 == 0;
  const absl::Status status = server_.Start(PlanOf(point));
  if (!status.ok() && !absl::IsAborted(status))
    findings_.Add(absl::StrCat("the server does not start: ", std::string(status.message())));
  // One that got through dies in its work, or here.
  const std::optional<int> end =
      status.ok() ? server_.WaitForEnd(absl::Milliseconds(random_() % kMaxMilliseconds)) : std::optional<int>(-SIGKILL);
  CountEnd(end, point);
  server_.Kill();
}

void Campaign::RandomRound(const std::map<std::string, int64_t>& sites) {
  started_killed_ = !started_killed_ && random_() % 6 == 0;
  if (started_killed_) return StartKilled();
  KillPoint point;
  const bool at_random_moment = random_() % 6 == 0;
  if (!at_random_moment) {
    const auto& [site, count] = *std::next(sites.begin(), static_cast<int64_t>(random_() % sites.size()));
    const std::vector<Fault::Action> actions = ActionsAt(site);
    point = {site, 1 + static_cast<int64_t>(random_() % (count / 10 + 1)), actions[random_() % actions.size()],
             /*from_start=*/false, /*power_loss=*/random_() % 2 == 0};
  }
  if (!StartAndCheck(at_random_moment ? "" : PlanOf(point), kRepeatsPerRound)) return server_.Kill();
  server_.Arm();
  jobs_.Watch(server_.connection(), 3, random_);
  for (int i = 0; i < kOperationsPerRound && RandomOperation(); ++i) {
  }
  const int64_t wait = at_random_moment ? static_cast<int64_t>(random_() % kMaxMilliseconds) : kMaxMilliseconds;
  const std::optional<int> end = server_.WaitForEnd(absl::Milliseconds(wait));
  CountEnd(end, point);
  server_.Kill();
  jobs_.JoinWatches();
}

bool Campaign::ScriptedRound(const KillPoint& point) {
  if (!StartAndCheck(PlanOf(point), 0) || !Tidy()) {
    server_.Kill();
    return false;
  }
  server_.Arm();
  RunScript();
  const std::optional<int> end = server_.WaitForEnd(absl::ZeroDuration());
  const int exit_status = end ? *end : server_.Stop();
  CountEnd(exit_status, point);
  return exit_status == -SIGKILL;
}

void Campaign::Finish() {
  if (!StartAndCheck("", 0)) return server_.Kill();
  if (!FinishJobs()) findings_.Add("the server went away undisturbed");
  jobs_.CheckAllFinished();
  const int exit_status = server_.Stop();
  if (exit_status != 0) findings_.Add(absl::StrCat("the server stopped with ", exit_status));
  StartAndCheck("", jobs_.kept());
  jobs_.CheckAllFinished();
  CheckLeftovers();
  server_.Kill();
}

void Campaign::CheckLeftovers() {
  const std::string data = folder_ / "data";
  std::error_code error;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(data, error)) {
    const std::string path = entry.path().lexically_relative(data).string();
    bool left = absl::StrContains(path, ".tmp-");
    for (const char* folder : {"staging/", "jobs/", "quarantine/"}) left = left || absl::StartsWith(path, folder);
    // The removal of an upload is not flushed: one that comes back goes after a day.
    if (num_power_losses_ == 0) left = left || absl::StartsWith(path, "uploads/");
    if (left) findings_.Add(absl::StrCat("left on the disk: ", path));
  }
}

int64_t Campaign::num_kills() const {
  int64_t kills = 0;
  for (const auto& [what, count] : kills_) kills += count;
  return kills;
}

}  // namespace boss::testing
