#include "client/cli/job_follower.h"

#include <algorithm>
#include <ostream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/format.h"

namespace boss::client {
namespace {

using boss::v1::Job;
using boss::v1::JobEvent;

constexpr int kBarWidth = 24;

// Whatever a server sends, NaN included.
double Share(double fraction) { return fraction > 0 ? std::min(fraction, 1.0) : 0.0; }

std::string RenderBar(double fraction) {
  const int filled = static_cast<int>(Share(fraction) * kBarWidth);
  std::string bar(filled, '=');
  if (filled < kBarWidth) bar.push_back('>');
  bar.resize(kBarWidth, ' ');
  return absl::StrCat("[", bar, "]");
}

// Between the steps of a row.
std::string RenderTimes(const boss::v1::Schedule& schedule) {
  return absl::StrJoin(schedule.time_grid(), " ",
                       [](std::string* out, double t) { absl::StrAppend(out, FormatReal(t)); });
}

std::string RenderMetrics(const boss::v1::JobMetrics& metrics) {
  std::string text =
      absl::StrFormat("train step %d  loss %.5f  gradient norm %s  learning rate %s", metrics.train_step(),
                      metrics.loss(), FormatReal(metrics.gradient_norm()), FormatReal(metrics.learning_rate()));
  if (metrics.has_held_out_loss()) absl::StrAppendFormat(&text, "  held-out loss %.5f", metrics.held_out_loss());
  return text;
}

std::string RenderRow(const boss::v1::EvaluationRow& row) {
  std::string text = absl::StrFormat(
      "%s  K %d  %s  trajectory error %.4f", row.model().empty() ? "new version" : row.model(), row.steps(),
      row.label().empty() ? ScheduleName(row.schedule()) : row.label(), row.trajectory_error());
  if (row.has_frechet_distance()) absl::StrAppendFormat(&text, "  Frechet distance %.3f", row.frechet_distance());
  return absl::StrCat(text, "  ", FormatReal(row.samples_per_second()), " samples/s");
}

std::string RenderStateChange(const boss::v1::StateChange& change) {
  std::string text = absl::StrCat("state ", Job::State_Name(change.to()));
  if (!change.reason().empty()) absl::StrAppend(&text, ": ", change.reason());
  if (!change.error().message().empty()) absl::StrAppend(&text, ": ", change.error().message());
  return text;
}

}  // namespace

std::string RenderProgress(const boss::v1::JobProgress& progress, const boss::v1::JobMetrics* metrics, int width) {
  std::string line = StageName(progress.stage());
  if (progress.stage_count() > 0)
    absl::StrAppend(&line, " (", progress.stage_index(), " of ", progress.stage_count(), ")");
  std::vector<std::string> parts;
  parts.push_back(absl::StrFormat("%s %3.0f%%", RenderBar(progress.fraction()), 100 * Share(progress.fraction())));
  if (progress.total_steps() > 0) parts.push_back(absl::StrCat(progress.step(), "/", progress.total_steps()));
  const bool training =
      progress.stage() == boss::v1::JOB_STAGE_TRAINING || progress.stage() == boss::v1::JOB_STAGE_STRAIGHTENING;
  if (training && metrics != nullptr && metrics->train_step() > 0)
    parts.push_back(absl::StrFormat("loss %.4f", metrics->loss()));
  if (progress.samples_per_second() > 0) parts.push_back(FormatReal(progress.samples_per_second()) + " samples/s");
  if (progress.has_eta() && progress.fraction() < 1)
    parts.push_back(FormatElapsed(ToDuration(progress.eta())) + " left");
  for (const std::string& part : parts) {
    if (static_cast<int>(line.size() + 2 + part.size()) > width) break;
    absl::StrAppend(&line, "  ", part);
  }
  return line.substr(0, std::max(width, 0));
}

std::string RenderEvent(const JobEvent& event) {
  std::string text;
  switch (event.payload_case()) {
    case JobEvent::kStateChange:
      text = RenderStateChange(event.state_change());
      break;
    case JobEvent::kStageChange:
      text = absl::StrCat("stage ", StageName(event.stage_change().to()));
      break;
    case JobEvent::kProgress:
      text = RenderProgress(event.progress(), nullptr, 1000);
      break;
    case JobEvent::kMetrics:
      text = RenderMetrics(event.metrics());
      break;
    case JobEvent::kMessage:
      text = event.message().text();
      break;
    case JobEvent::kPreview:
      text = absl::StrCat("preview at train step ", event.preview().train_step(), ", ",
                          FormatBytes(event.preview().png().size()));
      break;
    case JobEvent::kEvaluation:
      text = RenderRow(event.evaluation());
      break;
    case JobEvent::PAYLOAD_NOT_SET:
      text = "an event that this client does not know";
      break;
  }
  return absl::StrFormat("%6d  %s  %s", event.sequence(), FormatTime(event.time()), text);
}

void JobFollower::OnEvent(const JobEvent& event) {
  switch (event.payload_case()) {
    case JobEvent::kStateChange:
      PrintLine(RenderStateChange(event.state_change()));
      break;
    case JobEvent::kMessage:
      PrintLine(event.message().text());
      break;
    case JobEvent::kEvaluation:
      PrintLine(RenderRow(event.evaluation()));
      break;
    case JobEvent::kMetrics:
      metrics_ = event.metrics();
      Redraw();
      break;
    case JobEvent::kProgress:
      progress_ = event.progress();
      Redraw();
      break;
    case JobEvent::kStageChange:
      progress_.set_stage(event.stage_change().to());
      progress_.clear_step();
      progress_.clear_total_steps();
      progress_.clear_samples_per_second();
      break;
    default:
      break;
  }
}

void JobFollower::PrintLine(const std::string& line) {
  if (bar_shown_) console_.err << "\r\x1b[K";
  console_.err << line << std::endl;
  if (bar_shown_) Redraw();
}

void JobFollower::Redraw() {
  if (progress_.stage() == boss::v1::JOB_STAGE_UNSPECIFIED) return;
  if (console_.interactive) {
    // One character less than the width: some terminals wrap a full line.
    console_.err << "\r" << RenderProgress(progress_, &metrics_, console_.width - 1) << "\x1b[K" << std::flush;
    bar_shown_ = true;
    return;
  }
  const int tenth = static_cast<int>(Share(progress_.fraction()) * 10);
  if (progress_.stage() == printed_stage_ && tenth <= printed_tenth_) return;
  printed_stage_ = progress_.stage();
  printed_tenth_ = tenth;
  console_.err << RenderProgress(progress_, &metrics_, 1000) << std::endl;
}

void JobFollower::Finish() {
  if (bar_shown_) console_.err << std::endl;
  bar_shown_ = false;
}

std::string RenderJob(const Job& job) {
  Facts facts;
  facts.Add("name", job.name());
  facts.Add("kind", KindName(job.kind()));
  facts.Add("state",
            absl::StrCat(Job::State_Name(job.state()), job.state_reason().empty() ? "" : ": ", job.state_reason()));
  if (!IsFinal(job.state()) && job.progress().stage() != boss::v1::JOB_STAGE_UNSPECIFIED) {
    facts.Add("progress", RenderProgress(job.progress(), &job.metrics(), 1000));
  }
  if (job.metrics().train_step() > 0) facts.Add("metrics", RenderMetrics(job.metrics()));
  facts.Add("error", job.error().message());
  facts.Add("input", absl::StrJoin(job.input_models(), ", "));
  facts.Add("output", job.output_model());
  if (!job.result().schedule_set().empty()) {
    facts.Add("schedules", absl::StrCat(job.result().schedule_set(), " of ", job.result().schedule_model()));
  }
  if (job.result().schedule().steps() > 0) {
    facts.Add("schedule",
              absl::StrCat("K ", job.result().schedule().steps(), ": ", RenderTimes(job.result().schedule())));
  }
  if (job.result().velocity_evaluations() > 0)
    facts.Add("evaluations", FormatCount(job.result().velocity_evaluations()));
  facts.Add("owner", job.owner());
  facts.Add("created", FormatTime(job.create_time()));
  if (job.end_time().seconds() > 0 && job.start_time().seconds() > 0) {
    facts.Add("ended", absl::StrCat(FormatTime(job.end_time()), " after ",
                                    FormatElapsed(ToTime(job.end_time()) - ToTime(job.start_time()))));
  }
  if (job.has_expire_time()) facts.Add("expires", FormatTime(job.expire_time()));
  if (job.stored_bytes() > 0) facts.Add("stored", FormatBytes(job.stored_bytes()));
  std::string text = facts.Render();
  if (!job.result().evaluation().empty()) absl::StrAppend(&text, "\n", RenderEvaluation(job.result().evaluation()));
  return text;
}

absl::StatusOr<Job> WaitForJob(Context& context, const std::string& name, int64_t from_sequence) {
  JobFollower follower(context.console());
  boss::v1::WatchJobRequest request;
  request.set_name(name);
  request.set_from_sequence(from_sequence);
  const absl::Status status = context.client().WatchJob(request, [&](const JobEvent& event) {
    follower.OnEvent(event);
    return absl::OkStatus();
  });
  follower.Finish();
  if (!status.ok()) return status;
  return context.client().GetJob(name);
}

int FailWaiting(Context& context, const std::string& name, const absl::Status& status) {
  const int code = context.Fail(status);
  if (code == kExitInterrupted) {
    context.err() << name << " goes on; follow it with: bossctl jobs watch " << name << "\n";
  }
  return code;
}

int FollowJob(Context& context, const std::string& name, int64_t from_sequence) {
  const absl::StatusOr<Job> job = WaitForJob(context, name, from_sequence);
  if (!job.ok()) return FailWaiting(context, name, job.status());
  if (context.json) {
    context.PrintJson(*job);
  } else {
    context.out() << RenderJob(*job);
  }
  return job->state() == Job::SUCCEEDED ? kExitOk : kExitJobFailed;
}

}  // namespace boss::client
