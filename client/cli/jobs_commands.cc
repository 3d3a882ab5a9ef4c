// bossctl jobs: reading and steering. Submitting is in submit_commands.cc.
#include <algorithm>
#include <memory>
#include <ostream>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/cli/job_follower.h"
#include "client/cli/options.h"
#include "client/format.h"

namespace boss::client {
namespace {

using boss::v1::Job;

int List(Context& context, const boss::v1::ListJobsRequest& request, int limit) {
  const auto jobs = context.client().ListJobs(request).Take(limit);
  if (!jobs.ok()) return context.Fail(jobs.status());
  if (context.json) {
    boss::v1::ListJobsResponse all;
    all.mutable_jobs()->Add(jobs->begin(), jobs->end());
    context.PrintJson(all);
    return kExitOk;
  }
  // Columns that few jobs fill are there when one does.
  const bool reasons =
      std::any_of(jobs->begin(), jobs->end(), [](const Job& job) { return !job.state_reason().empty(); });
  const bool stored = std::any_of(jobs->begin(), jobs->end(), [](const Job& job) { return job.stored_bytes() > 0; });
  const bool owned = std::any_of(jobs->begin(), jobs->end(), [](const Job& job) { return !job.owner().empty(); });
  const bool expiring = std::any_of(jobs->begin(), jobs->end(), [](const Job& job) { return job.has_expire_time(); });
  std::vector<Table::Column> columns = {{"NAME"},       {"KIND"},  {"STATE"},  {"STAGE"},
                                        {"DONE", true}, {"INPUT"}, {"OUTPUT"}, {"CREATED"}};
  if (owned) columns.push_back({"OWNER"});
  if (stored) columns.push_back({"STORED", true});
  if (expiring) columns.push_back({"EXPIRES"});
  if (reasons) columns.push_back({"REASON"});
  Table table(columns);
  for (const Job& job : *jobs) {
    const bool staged = job.stage() != boss::v1::JOB_STAGE_UNSPECIFIED;
    std::vector<std::string> row = {job.name(),
                                    KindName(job.kind()),
                                    Job::State_Name(job.state()),
                                    staged ? StageName(job.stage()) : "-",
                                    absl::StrFormat("%.0f%%", 100 * job.progress().fraction()),
                                    job.input_models().empty() ? "-" : absl::StrJoin(job.input_models(), ", "),
                                    job.output_model().empty() ? "-" : job.output_model(),
                                    FormatTime(job.create_time())};
    if (owned) row.push_back(job.owner());
    if (stored) row.push_back(FormatBytes(job.stored_bytes()));
    if (expiring) row.push_back(FormatTime(job.expire_time()));
    if (reasons) row.push_back(job.state_reason());
    table.AddRow(std::move(row));
  }
  context.out() << (table.empty() ? "no jobs\n" : table.Render());
  return kExitOk;
}

int WatchEvents(Context& context, const std::string& name, int64_t from_sequence, bool replay_only) {
  boss::v1::WatchJobRequest request;
  request.set_name(name);
  request.set_from_sequence(from_sequence);
  request.set_replay_only(replay_only);
  auto final_state = Job::STATE_UNSPECIFIED;
  const absl::Status status = context.client().WatchJob(request, [&](const boss::v1::JobEvent& event) {
    if (event.has_state_change()) final_state = event.state_change().to();
    if (context.json) {
      context.PrintJsonLine(event);
    } else {
      context.out() << RenderEvent(event) << std::endl;
    }
    return absl::OkStatus();
  });
  if (!status.ok()) return context.Fail(status);
  return final_state == Job::FAILED || final_state == Job::CANCELLED ? kExitJobFailed : kExitOk;
}

// A command that takes a job's name, calls one RPC, and shows the job that it returns.
void AddSteering(CLI::App& jobs, Context& context, const std::string& verb, const std::string& help,
                 absl::StatusOr<Job> (Client::*method)(const std::string&)) {
  auto name = std::make_shared<std::string>();
  CLI::App* command = jobs.add_subcommand(verb, help);
  command->add_option("job", *name, "jobs/ID")->required();
  SetCommand(*command, context, [name, method](Context& context) {
    const auto job = (context.client().*method)(*name);
    if (!job.ok()) return context.Fail(job.status());
    if (context.json) {
      context.PrintJson(*job);
    } else {
      context.out() << RenderJob(*job);
    }
    return int{kExitOk};
  });
}

}  // namespace

void AddJobsCommands(CLI::App& app, Context& context) {
  CLI::App* jobs =
      app.add_subcommand("jobs", "Training, stepsizes, distillation, evaluation")->require_subcommand(0, 1);
  AddSubmitCommands(*jobs, context);
  AddSteering(*jobs, context, "get", "One job with its result", &Client::GetJob);
  AddSteering(*jobs, context, "cancel", "End a job", &Client::CancelJob);
  AddSteering(*jobs, context, "pause", "Stop a job, keeping its progress", &Client::PauseJob);
  AddSteering(*jobs, context, "resume", "Queue a paused job again", &Client::ResumeJob);

  auto request = std::make_shared<boss::v1::ListJobsRequest>();
  auto limit = std::make_shared<int>(50);
  CLI::App* list = jobs->add_subcommand("list", "Jobs, newest first");
  list->add_option_function<std::string>(
      "--filter", [request](const std::string& v) { request->set_filter(v); },
      "e.g. 'state = RUNNING AND labels.team = \"vision\"'");
  list->add_option_function<std::string>(
      "--order-by", [request](const std::string& v) { request->set_order_by(v); },
      "'create_time' or 'create_time desc'");
  list->add_option("--limit", *limit, "At most so many; 0 for all")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  SetCommand(*list, context, [request, limit](Context& context) { return List(context, *request, *limit); });

  struct Watch {
    std::string name;
    int64_t from_sequence = 1;
    bool events = false, replay_only = false;
  };
  auto watch = std::make_shared<Watch>();
  CLI::App* follow = jobs->add_subcommand("watch", "Follow a job to its end: a progress bar, or its events");
  follow->add_option("job", watch->name, "jobs/ID")->required();
  follow->add_option("--from", watch->from_sequence, "Sequence number of the first event")->capture_default_str();
  follow->add_flag("--events", watch->events, "Every event on a line of its own (with --json: as JSON)");
  follow->add_flag("--replay-only", watch->replay_only, "The events so far, as --events, without waiting for more");
  SetCommand(*follow, context, [watch](Context& context) {
    if (watch->events || watch->replay_only)
      return WatchEvents(context, watch->name, watch->from_sequence, watch->replay_only);
    return FollowJob(context, watch->name, watch->from_sequence);
  });

  auto deleted = std::make_shared<std::string>();
  CLI::App* remove = jobs->add_subcommand("delete", "Forget a finished job");
  remove->add_option("job", *deleted, "jobs/ID")->required();
  SetCommand(*remove, context, [deleted](Context& context) {
    const absl::Status status = context.client().DeleteJob(*deleted);
    if (!status.ok()) return context.Fail(status);
    context.out() << (context.json ? "{}" : absl::StrCat("deleted ", *deleted)) << "\n";
    return int{kExitOk};
  });
}

}  // namespace boss::client
