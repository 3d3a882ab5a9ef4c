#include "client/cli/report_data.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/format.h"

namespace boss::client {

absl::StatusOr<ReportJob> FetchReportJob(Client& client, const std::string& name) {
  ReportJob result;
  auto job = client.GetJob(name);
  if (!job.ok()) return job.status();
  result.job = *std::move(job);
  boss::v1::WatchJobRequest request;
  request.set_name(name);
  // The stream of a finished job ends by itself; one that is still at work is shown as it is.
  request.set_replay_only(!IsFinal(result.job.state()));
  const absl::Status status = client.WatchJob(request, [&](const boss::v1::JobEvent& event) {
    result.events.push_back(event);
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  return result;
}

absl::StatusOr<std::string> ReportFooter(Client& client) {
  const auto capabilities = client.GetCapabilities();
  if (!capabilities.ok()) return capabilities.status();
  std::string footer =
      absl::StrCat("Made by bossctl on ", absl::FormatTime("%Y-%m-%d %H:%M", absl::Now(), absl::LocalTimeZone()),
                   " from bossd ", capabilities->server_version());
  for (const auto& device : capabilities->devices()) {
    absl::StrAppend(&footer, ", ", device.name(),
                    device.description().empty() ? "" : absl::StrCat(" (", device.description(), ")"));
  }
  return footer;
}

}  // namespace boss::client
